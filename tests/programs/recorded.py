"""How many launches a recorded step of each shipped config has, on a simulated GPU, as JSON.

    recorded.py FOLDER images|texts

{config: [without slices, with those of the config in one pass]}, and the same for what one more
layer or time step adds.  What is recorded is counted, and not replayed.
"""

import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from cupy.cuda import stream
from shipped import ROOT, SHIPPED, settings_of

from dpedf.device.gpu import acquire
from dpedf.optim import update_rule
from dpedf.parallel.gradient import Gradient
from dpedf.parallel.ranks import Ranks
from dpedf.run.command_line import from_command_line
from dpedf.run.setup import assemble
from dpedf.run.step import Step

PARTS = {  # of which config, that with less of it, and how many less
    "a layer of char_transformer": ("char_transformer", "model.layers=3", 1),
    "a time step of char_lstm": ("char_lstm", "data.window=56", 8),
}


def launches(name, words, slices):
    """Those of the config with these words."""
    _, settings, _ = from_command_line([str(ROOT / "configs" / f"{name}.toml"), *words])
    slices, B = slices and settings.train.slices, settings.train.batch_size
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


def words_of(name):
    return settings_of(name, Path(sys.argv[1]) / name, rows=4000)


def both(name, words):
    return [launches(name, words, slices) for slices in (False, True)]


gpu = acquire(0, "float32", True, print)
stream.Graph.launch = lambda graph, stream: None
found = {}
texts = sys.argv[2] == "texts"
for name in SHIPPED:
    if name.startswith("char_") == texts:
        found[name] = both(name, words_of(name))
if not texts:
    found["784-128-10"] = both("mnist", [*words_of("mnist"), "model.sizes=[784,128,10]"])
for part, (name, words, n) in PARTS.items() if texts else ():
    less = both(name, [*words_of(name), words])
    found[part] = [(a - b) / n for a, b in zip(found[name], less, strict=True)]
print(json.dumps(found))
gpu.close()
