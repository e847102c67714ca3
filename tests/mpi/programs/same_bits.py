"""After every step all ranks hold the same bits of Phi, momentum and running values:

FILE SLICES ALLREDUCE MODEL
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


def main(ranks):
    file, slices, overlap = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "buckets"
    threadpool_limits(1, "blas")
    data = Data(file)
    Q, ell = build.build({"build": sys.argv[4]}, data.x, data.y)
    phi = Phi(ell)
    gradient = Gradient(ell, phi, ranks, data.put, slices, overlap, bucket=500)
    update = Momentum(phi, momentum=0.9)
    steps = 0
    for x, y, B in data.train.minibatches(0, 0, 50, gradient.shard):
        gradient(x, y, B)
        update(0.1, steps)
        vectors = phi.value, update.state["v"], *phi.state.values()
        held = hashlib.sha256(b"".join(array.tobytes() for array in vectors)).hexdigest()
        assert len(set(ranks.gather(held))) == 1, f"step {steps}"
        steps += 1
    ranks.say(f"{steps} steps, phi_sha256 {phi.sha256()}")
    return 0


job.run(main)
