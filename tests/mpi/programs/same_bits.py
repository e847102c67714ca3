"""After every step all ranks hold the same bits of Phi, momentum and running values:

FILE SLICES MODEL [SLICES MODEL ...]
"""

import hashlib
import sys

from threadpoolctl import threadpool_limits

from dpedf.data import Data
from dpedf.optim import Momentum
from dpedf.parallel import job
from dpedf.parallel.gradient import Gradient
from dpedf.phi import Phi
from dpedf.run import build


def train(ranks, data, slices, model, overlap):
    Q, ell = build.build({"build": model}, data.x, data.y)
    phi = Phi(ell)
    gradient = Gradient(ell, phi, ranks, data.put, slices, overlap, bucket=500)
    update = Momentum(phi, momentum=0.9)
    steps = 0
    for x, y, B in data.train.minibatches(0, 0, 50, gradient.shard):
        gradient(x, y, B)
        update(0.1, steps)
        vectors = phi.value, update.state["v"], *phi.state.values()
        held = hashlib.sha256(b"".join(array.tobytes() for array in vectors)).hexdigest()
        where = f"{model}, {slices} slices, overlap {overlap}, step {steps}"
        assert len(set(ranks.gather(held))) == 1, where
        steps += 1
    ranks.say(f"{steps} steps, phi_sha256 {phi.sha256()}")


def main(ranks):
    file, *models = sys.argv[1:]
    threadpool_limits(1, "blas")
    for slices, model in zip(models[::2], models[1::2], strict=True):
        for overlap in False, True:
            train(ranks, Data(file), int(slices), model, overlap)
    return 0


job.run(main)
