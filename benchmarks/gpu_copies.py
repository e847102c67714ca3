"""What moves data on GPUs: rows that stream from a file, and sums over ranks."""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from gpu_steps import LEAST, MLPS, ROUNDS, Timed, release
from pairs import paired, ratio

from dpedf.data import Data, write
from dpedf.models import mlp
from dpedf.optim import Momentum
from dpedf.parallel.gradient import Gradient
from dpedf.parallel.links import link_between
from dpedf.parallel.sums import LibrarySum
from dpedf.phi import Phi

N, B = 60_000, 256  # rows to stream, and in a minibatch
SIZES = 1, 16, 256  # MiB to add over ranks


def stream(gpu, ranks, names):
    """Throughput of MLPs that read rows from a file, over that of rows that are on the GPU."""
    print(f"\nrows a second of {N:,} like MNIST's, B = {B}: data.cache none, device; their ratio\n")
    random, eta = np.random.default_rng(0), gpu.put(np.array(0.01, np.float32))
    x, y = random.integers(0, 256, (N, 28, 28), np.uint8), random.integers(0, 10, N, np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "random.h5")
        write(path, name="random", source="benchmarks/gpu.py", licence="none", classes=10,
              scale=1 / 255, train=(x, y), test=(x[:1], y[:1]))  # fmt: skip
        for name in names:
            release(gpu, graphs=True)
            streamed, resident = (Data(path, device=gpu) for _ in range(2))
            resident.keep("device", ranks)
            Q, ell = mlp(streamed.x, streamed.y, MLPS[name])
            phi = Phi(ell, put=gpu.put)
            gradient, update = Gradient(ell, phi, ranks, streamed.put), Momentum(phi)

            def learn(x, y, B, gradient=gradient, update=update):
                gradient(x, y, B)
                update(eta, 0)

            def epoch(data, learn=learn, shard=gradient.shard):
                for x, y, b in data.train.minibatches(0, 0, B, shard):
                    gpu.run(b, partial(learn, B=b), x, y)  # one graph of both, at the same key
                gpu.wait()

            both = partial(epoch, streamed), partial(epoch, resident)
            for work in both * 3:  # until all is recorded
                work()
            found = paired(*both, pairs=ROUNDS, least=LEAST)
            rates = "".join(f"{rate:14,.0f}" for rate in N / np.median(found, axis=0))
            print(f"{name:18}{rates}  {ratio(found)}", flush=True)


def sums(gpu, ranks):
    """Bus bandwidth: what each link of a ring carries a second, 2 (n - 1) / n of the array."""
    link = link_between(ranks, gpu)
    adder, kind = LibrarySum(link), type(link).__name__
    ranks.say(
        f"\nGB/s, median [quartiles] of {ROUNDS}: sums over {ranks.size} ranks, {kind}, and copies"
    )
    ranks.say("from and to one GPU, which read and write so many bytes each\n")
    for size in SIZES:
        n = size << 18
        here, there = (gpu.put(np.zeros((1, n), np.float32)) for _ in range(2))

        def add(here=here, n=n, piece=link.piece or n):
            for end in range(n, 0, -piece):  # as Gradient.start does
                adder.start(here, max(0, end - piece), end, False)
            adder.finish(here)

        copy, found = partial(gpu.cupy.copyto, there, here), []
        for work, factor in (add, 2 * (1 - 1 / ranks.size)), (copy, 1):
            timed = Timed(gpu, ranks, work)
            found.append(ratio([(timed(), factor * here.nbytes / 1e9) for _ in range(ROUNDS)]))
        ranks.say(f"{size:4} MiB  bus bandwidth {found[0]:24}  copy {found[1]}")
