"""One training step on one rank and one thread, float32, against PyTorch and the slides' code:

    python benchmarks/step.py

PyTorch runs eagerly, with fused SGD and matmul precision "highest".  A ratio above 1 says that
dpedf is faster.
"""

import numpy as np
import torch
from pairs import MODELS, machine, microseconds, our_step, paired, ratio
from threadpoolctl import threadpool_limits


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
    """The same step in plain NumPy as on the slides, whose dW is a sum of outer products."""
    random = np.random.default_rng(0)
    shapes = list(zip(sizes, sizes[1:], strict=False))
    W = [random.random(shape, np.float32) * 0.01 for shape in shapes]
    C = [np.zeros(J, np.float32) for I, J in shapes]
    images, labels = random.random((B, sizes[0]), np.float32), random.integers(0, sizes[-1], B)

    def step():
        values = [images]
        for w, c in zip(W, C, strict=True):
            s = values[-1] @ w - c
            values.append(np.maximum(s, 0))
        exp = np.exp(s - s.max(axis=1, keepdims=True))
        grad = exp / exp.sum(axis=1, keepdims=True)
        grad[np.arange(B), labels] -= 1
        grad /= B
        for w, c, x in zip(W[::-1], C[::-1], values[-2::-1], strict=True):
            before = (grad @ w.T) * (x > 0)
            w -= eta * (x[:, :, np.newaxis] * grad[:, np.newaxis, :]).sum(axis=0)
            c -= eta * (-grad).sum(axis=0)
            grad = before

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
