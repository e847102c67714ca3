"""Interleaved timings: the same work done by two programs in turn, and the ratio of each pair.

What else a machine does changes by the second, so a pair is timed back to back, and a ratio
is reported as its median and quartiles over pairs.
"""

import os
import platform
import time

import numpy as np

from dpedf.device import CPU
from dpedf.edf import Input
from dpedf.kernels.gemm import unchanging
from dpedf.models import mlp
from dpedf.optim import Momentum
from dpedf.parallel.gradient import Gradient
from dpedf.parallel.trial import fastest
from dpedf.phi import Phi

MODELS = {
    "softmax 784-10": [784, 10],
    "784-128-10": [784, 128, 10],
    "784-512-512-10": [784, 512, 512, 10],
    "784-1024-1024-10": [784, 1024, 1024, 10],
}


def machine():
    """One line: what these figures were measured on."""
    with open("/proc/cpuinfo") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    cpu = f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"
    return f"{cpu}, Python {platform.python_version()}, NumPy {np.__version__}"


def seconds(work, times):
    start = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times


def paired(ours, theirs, pairs=11, least=0.15):
    """[(our seconds, their seconds)] of one call each, timed in turn for least seconds or more."""
    times = [max(1, round(least / seconds(work, 3))) if least else 1 for work in (ours, theirs)]
    return [(seconds(ours, times[0]), seconds(theirs, times[1])) for _ in range(pairs + 1)][1:]


def ratio(measured):
    """How many times faster ours is: "1.25 [1.21, 1.30]", the median and the quartiles."""
    low, median, high = np.percentile([t / o for o, t in measured], [25, 50, 75])
    return f"{median:.2f} [{low:.2f}, {high:.2f}]"


def microseconds(measured):
    ours, theirs = np.median(measured, axis=0) * 1e6
    return f"{ours:10,.0f} us {theirs:10,.0f} us"


class Alone:
    """One rank, where a benchmark must not start MPI."""

    rank, size, piece = 0, 1, None

    @staticmethod
    def largest(*numbers):
        return numbers

    @staticmethod
    def alive():
        pass


def our_step(sizes, B, slices=0, eta=0.01, ranks=Alone, stored=np.float32, device=None):
    """A function that makes one SGD step of an MLP on this rank's part of B random rows.

    stored: as what; dpedf.train finds uint8 in its files, and scales it.
    device: where, the CPU by default; on a GPU eta is an array there.
    """
    device = device or CPU()
    scale = np.float32(1 / 255)
    x, y = Input((sizes[0],), np.dtype(np.float32)), Input((), np.dtype(np.intp), sizes[-1])

    def put(images, labels):
        x.value, y.value = images.astype(np.float32, copy=False), labels
        if stored == np.uint8:
            x.value *= scale

    random = np.random.default_rng(0)
    images = random.integers(0, 256, (B, sizes[0])).astype(stored)
    if stored != np.uint8:
        images *= scale
    labels = random.integers(0, sizes[-1], B)
    Q, ell = mlp(x, y, sizes)
    return step_of(ell, put, images, labels, slices, eta, ranks, device)


def step_of(ell, put, x, y, slices=0, eta=0.01, ranks=Alone, device=None):
    """A function that makes one SGD step of a program on this rank's part of the rows x, y.

    put(x, y) sets its Inputs.  How many passes a step takes is tried, as dpedf.train does.
    """
    device, B = device or CPU(), len(x)
    phi = Phi(ell, put=device.put)
    gradient, update = Gradient(ell, phi, ranks, put, slices), Momentum(phi)
    mine = slice(*gradient.shard(B))
    x, y = device.put(x[mine]), device.put(y[mine])
    gradient.compute_in(fastest(gradient, x, y, B, ranks, device))
    unchanging_phi = unchanging(phi.value)

    def step():
        with unchanging_phi:  # as a Step has it
            gradient(x, y, B)
        update(eta, 0)

    return step
