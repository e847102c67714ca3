"""How many launches a recorded step of each shipped config has, on a simulated GPU, as JSON.

{config: {what: launches}}, where what is "whole" without slices, "slices" with those of the config
in one pass, and "part" what one more layer, or one more time step, adds to the whole.
"""

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from shipped import ROOT, SHIPPED, settings_of

from dpedf.device.gpu import acquire
from dpedf.optim import update_rule
from dpedf.parallel.gradient import Gradient
from dpedf.parallel.ranks import Ranks
from dpedf.run import config
from dpedf.run.setup import assemble
from dpedf.run.step import Step

# What is one less, of what a config has: layers, or time steps.
LESS = {"char_transformer": ("model.layers=4", "model.layers=3")}
LESS |= {"char_lstm": ("data.window=64", "data.window=56")}


def launches(name, words, slices):
    """Those of the config with these words."""
    _, settings, _ = config.from_command_line([str(ROOT / "configs" / f"{name}.toml"), *words])
    slices, B = slices and settings.train.slices, 2 * settings.train.slices
    data, _, ell, phi = assemble(settings, gpu)
    link = Ranks()
    link.recordable = True
    gradient = Gradient(ell, phi, link, data.put, slices)
    gradient.compute_in(1)
    step = Step(gradient, update_rule(phi, settings.train), gpu, 0, settings.train.grad_clip)
    x, y = data.train.load(data.train.numbers[:B])
    for _ in range(2):
        step(x, y, B, 0.1)
    (recording,) = gpu.graphs.recordings.values()
    count = sum(len(work) for _, work in recording.graph.queues)
    gpu.graphs.recordings.clear()
    return count


found, gpu = {}, acquire(0, "float32", True, print)
for name in SHIPPED:
    words = settings_of(name, Path(sys.argv[1]) / name)
    whole = launches(name, words, slices=False)
    found[name] = {"whole": whole, "slices": launches(name, words, slices=True)}
    if name in LESS:
        more, less = LESS[name]
        fewer = launches(name, [*words, less], slices=False)
        n = 1 if "layers" in more else int(more.split("=")[1]) - int(less.split("=")[1])
        found[name]["part"] = (whole - fewer) / n
print(json.dumps(found))
gpu.close()
