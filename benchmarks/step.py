"""One training step on one rank and one thread, float32, against PyTorch and the slides' code:

    python benchmarks/step.py

PyTorch runs eagerly, with fused SGD and matmul precision "highest"; with images as channels_last
too, and the faster counts.  A ratio above 1 says that dpedf is faster.
"""

import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from architectures import NAMES, ours, theirs
from pairs import MODELS, machine, microseconds, our_step, paired, ratio
from peers import pytorch_step
from threadpoolctl import threadpool_limits

from dpedf.edf import SGD, Backward, CompNodes, Forward, Input, Parameters

sys.path.append(str(Path(__file__).parents[1] / "examples"))
import slides


def slides_step(sizes, B, eta=0.01):
    """The same step with the slides' classes, as they stand in examples/slides.py.

    As on the slides the numbers are float64, every x gets a gradient, and dW is a sum of outer
    products.
    """
    random = np.random.default_rng(0)
    x, y = Input(), Input()
    x.value, y.value = random.random((B, sizes[0])), random.integers(0, sizes[-1], B)
    L = x
    for I, J in zip(sizes[:-2], sizes[1:-1], strict=True):
        L = slides.Sigmoid(slides.Affine(slides.package(I, J, random), L))
    s = slides.Affine(slides.package(*sizes[-2:], random), L)
    ell = slides.LogLoss(slides.Softmax(s), y)

    def step():
        Forward(ell)
        Backward(ell)
        SGD(Parameters(ell), eta)

    return step


def shares(step, ell, steps=10):
    """Where the time of a step goes: the largest shares of the classes of its nodes."""
    seconds = Counter()

    def timed(n, name):
        method = getattr(n, name)

        def call():
            start = time.perf_counter()
            method()
            seconds[type(n).__name__] += time.perf_counter() - start

        setattr(n, name, call)

    for n in CompNodes(ell):
        timed(n, "forward")
        timed(n, "backward")
    start = time.perf_counter()
    for _ in range(steps):
        step()
    whole = time.perf_counter() - start
    return ", ".join(f"{name} {s / whole:.0%}" for name, s in seconds.most_common(6))


def main():
    threadpool_limits(1, "blas")
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    print(f"{machine()}, PyTorch {torch.__version__}, one thread")
    print("\nagainst PyTorch: how many times faster, median [quartiles] of 11 pairs\n")
    for name, sizes in MODELS.items():
        for B in 64, 256, 1024:
            measured = paired(our_step(sizes, B), pytorch_step(sizes, B))
            print(
                f"{name:18} B = {B:4}  {ratio(measured):20}  {microseconds(measured)}", flush=True
            )
    for name, B in NAMES:
        step, ell = ours(name, B)
        pairs = [paired(step, their_step) for their_step in theirs(name, B)]
        measured = min(pairs, key=lambda pairs: np.median([t for _, t in pairs]))
        print(f"{name:18} B = {B:4}  {ratio(measured):20}  {microseconds(measured)}")
        print(f"{'':29}{shares(step, ell)}", flush=True)
    sizes, B = MODELS["784-1024-1024-10"], 256
    measured = paired(our_step(sizes, B), slides_step(sizes, B), pairs=9)
    print("\nagainst the slides' code\n")
    print(f"784-1024-1024-10   B = {B:4}  {ratio(measured):20}  {microseconds(measured)}")


if __name__ == "__main__":
    main()
