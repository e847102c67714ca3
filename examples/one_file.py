"""A data-parallel program in one file, on the public pieces of dpedf:

    python data/digits.py
    mpirun -n 4 python examples/one_file.py

It trains what configs/digits_mlp.toml says, and ends with the phi_sha256 of

    mpirun -n 4 python -m dpedf.train configs/digits_mlp.toml

on any number of ranks up to 8.
"""

from math import cos, pi

from threadpoolctl import threadpool_limits

from dpedf.data import Data
from dpedf.models import MLP
from dpedf.ops import Affine, Flatten, LogLoss, Relu, Softmax
from dpedf.optim import Momentum
from dpedf.parallel import job
from dpedf.parallel.gradient import Gradient
from dpedf.phi import Phi, dense, he
from dpedf.run.evaluate import evaluate
from dpedf.run.step import Step

SEED, EPOCHS, B, SLICES = 0, 30, 64, 8


def main(ranks):
    threadpool_limits(1, "blas")  # two threads would add in another order than one
    with ranks.together():  # where one rank meets a user's error, all stop, with one line
        data = Data("data/digits.h5", valid=137, seed=SEED)
        hidden = [dense(64, 128, he), dense(128, 64, he)]
        Q = Softmax(Affine(dense(64, 10), MLP(hidden, Flatten(data.x), Relu)))
        ell = LogLoss(Q, data.y)
        phi = Phi(ell, SEED)  # all parameters, as one vector
        gradient = Gradient(ell, phi, ranks, data.put, SLICES)
    ranks.broadcast(phi.value)  # it starts, and stays, the same on every rank
    step = Step(gradient, Momentum(phi, momentum=0.9, nesterov=True), seed=SEED)

    steps = EPOCHS * -(-len(data.train) // B)
    for epoch in range(EPOCHS):
        for x, y, b in data.train.minibatches(SEED, epoch, B, gradient.shard):
            step(x, y, b, eta=0.1 * (1 + cos(pi * step.number / steps)) / 2)

    loss, accuracy = evaluate(Q, ell, data, data.test, ranks)
    ranks.say(f"test loss {loss:.4f}, test accuracy {100 * accuracy:.2f} %")
    ranks.say(f"phi_sha256 {phi.sha256()}")


if __name__ == "__main__":
    job.run(main)
