"""One training step on one rank and one thread, float32, against PyTorch and the slides' code:

    python benchmarks/step.py

PyTorch runs eagerly, with fused SGD and matmul precision "highest".  A ratio above 1 says that
dpedf is faster.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from pairs import MODELS, machine, microseconds, our_step, paired, ratio
from threadpoolctl import threadpool_limits

from dpedf.edf import SGD, Backward, Forward, Input, Parameters

sys.path.append(str(Path(__file__).parents[1] / "examples"))
import slides


def pytorch_step(sizes, B, eta=0.01, wrap=lambda model: model):
    layers = []
    for I, J in zip(sizes, sizes[1:], strict=False):
        layers += [torch.nn.Linear(I, J), torch.nn.ReLU()]
    model = wrap(torch.nn.Sequential(*layers[:-1]))
    optimizer = torch.optim.SGD(model.parameters(), lr=eta, fused=True)
    loss = torch.nn.CrossEntropyLoss()
    x, y = torch.rand(B, sizes[0]), torch.randint(0, sizes[-1], (B,))

    def step():
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()

    return step


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
    sizes, B = MODELS["784-1024-1024-10"], 256
    measured = paired(our_step(sizes, B), slides_step(sizes, B), pairs=9)
    print("\nagainst the slides' code\n")
    print(f"784-1024-1024-10   B = {B:4}  {ratio(measured):20}  {microseconds(measured)}")


if __name__ == "__main__":
    main()
