"""Streaming against arrays in memory: the same shuffle, the same uint8 rows, scaled alike:

    python benchmarks/stream.py

Both read 60,000 and 600,000 rows like MNIST's, in a warm cache; one rank, one thread.  The
ratio is that of the throughputs: 1 says that streaming costs nothing.
"""

import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
from pairs import MODELS, Alone, machine, microseconds, paired, ratio
from threadpoolctl import threadpool_limits

from dpedf.data import Data, write
from dpedf.models import mlp
from dpedf.optim import Momentum
from dpedf.parallel.gradient import Gradient
from dpedf.phi import Phi

B = 256


def trainer(path, sizes):
    """(learn from a minibatch, the data): one step of dpedf.train."""
    data = Data(path)
    Q, ell = mlp(data.x, data.y, sizes)
    phi = Phi(ell)
    gradient, update = Gradient(ell, phi, Alone, data.put), Momentum(phi)

    def learn(x, y, b):
        gradient(x, y, b)
        update(0.01, 0)

    return learn, data


def streamed(path, sizes, steps):
    """A function that trains for an epoch from the file."""
    learn, data = trainer(path, sizes)

    def epoch():
        for x, y, b in islice(data.train.minibatches(0, 0, B, lambda b: (0, b)), steps):
            learn(x, y, b)

    return epoch


def in_memory(path, sizes, steps):
    """The same from arrays."""
    learn, data = trainer(path, sizes)
    images, labels = data.train.load(data.train.numbers)

    def epoch():
        order = data.train.order(0, 0)
        for first in islice(range(0, len(order), B), steps):
            rows = order[first : first + B]
            learn(images[rows], labels[rows], len(rows))

    return epoch


def main():
    threadpool_limits(1, "blas")
    print(f"{machine()}, one thread, float32, B = {B}")
    print("\nthroughput streamed over that of arrays, median [quartiles] of 9 pairs\n")
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for rows in 60_000, 600_000:
            path = Path(folder) / f"{rows}.h5"
            x = random.integers(0, 256, (rows, 784), np.uint8)
            y = random.integers(0, 10, rows, np.uint8)
            write(path, name="random", source="benchmarks/stream.py", licence="none", classes=10,
                  scale=1 / 255, train=(x, y), test=(x[:1], y[:1]))  # fmt: skip
            for name, sizes in MODELS.items():
                steps = rows // B if len(sizes) < 4 else 50  # a whole epoch, where it is short
                both = streamed(path, sizes, steps), in_memory(path, sizes, steps)
                measured = paired(*both, pairs=9, least=0)
                times = f"{ratio(measured):20}  {microseconds(measured)}"
                print(f"{rows:7,} rows  {steps:4} steps  {name:18}  {times}", flush=True)


if __name__ == "__main__":
    main()
