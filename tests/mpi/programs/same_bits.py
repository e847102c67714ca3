"""After every step all ranks hold the same bits of Phi and momentum: FILE SLICES ALLREDUCE."""

import hashlib
import sys

from threadpoolctl import threadpool_limits

from dpedf import comm
from dpedf.data import Data
from dpedf.gradient import Gradient
from dpedf.models import mlp
from dpedf.optim import Momentum
from dpedf.phi import Phi


def main(ranks):
    file, slices, overlap = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "buckets"
    threadpool_limits(1, "blas")
    data = Data(file)
    Q, ell = mlp(data.x, data.y, [64, 32, 10])
    phi = Phi(ell)
    gradient = Gradient(ell, phi, ranks, data.put, slices, overlap, bucket=500)
    update = Momentum(phi, momentum=0.9)
    steps = 0
    for x, y, B in data.train.minibatches(0, 0, 50, gradient.shard):
        gradient(x, y, B)
        update(0.1, steps)
        held = hashlib.sha256(phi.value.tobytes() + update.state["v"].tobytes()).hexdigest()
        assert len(set(ranks.gather(held))) == 1, f"step {steps}"
        steps += 1
    ranks.say(f"{steps} steps, phi_sha256 {phi.sha256()}")
    return 0


comm.run(main)
