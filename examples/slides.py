"""The classes of the slides, on dpedf.edf: their gradient checked, then trained on digits.

    python data/digits.py
    python examples/slides.py

A node of "The Educational Framework" (D. McAllester, TTIC 31230, 2024) needs two edits:

    1. it derives from CompNode, which the slide of Sigmoid leaves out;
    2. it loses its line CompNodes.append(self), for the loss is the graph here.

Forward, Backward and SGD take the loss and the parameters, where the slides loop over global
lists.  A gradient is 1/B times that of the slides.
"""

import numpy as np

from dpedf import check
from dpedf.data import Data
from dpedf.edf import SGD, Backward, CompNode, Forward, Package, Parameter, Parameters


class Affine(CompNode):
    def __init__(self, Phi, x):
        self.Phi = Phi
        self.x = x

    def forward(self):
        self.value = np.matmul(self.x.value, self.Phi.w.value) - self.Phi.b.value

    def backward(self):
        self.x.addgrad(np.matmul(self.grad, self.Phi.w.value.transpose()))
        self.Phi.b.addgrad(-self.grad)
        self.Phi.w.addgrad(self.x.value[:, :, np.newaxis] * self.grad[:, np.newaxis, :])


class Sigmoid(CompNode):
    def __init__(self, x):
        self.x = x

    def forward(self):
        self.value = 1.0 / (1.0 + np.exp(-self.x.value))

    def backward(self):
        self.x.addgrad(self.grad * self.value * (1.0 - self.value))


class Softmax(CompNode):
    def __init__(self, s):
        self.s = s

    def forward(self):
        exp = np.exp(self.s.value - np.max(self.s.value, axis=1, keepdims=True))
        self.value = exp / np.sum(exp, axis=1, keepdims=True)

    def backward(self):
        mean = np.sum(self.value * self.grad, axis=1, keepdims=True)
        self.s.addgrad(self.value * (self.grad - mean))


class LogLoss(CompNode):
    def __init__(self, Q, y):
        self.Q = Q
        self.y = y

    def forward(self):
        self.b = np.arange(len(self.y.value))
        self.value = -np.log(self.Q.value[self.b, self.y.value])

    def backward(self):
        delta = np.zeros_like(self.Q.value)
        delta[self.b, self.y.value] = -self.grad / self.Q.value[self.b, self.y.value]
        self.Q.addgrad(delta)


class Pixels(CompNode):
    """The digits come as images, (B, 8, 8); the slides' x is (B, 64)."""

    def __init__(self, x):
        self.x = x

    def forward(self):
        self.value = np.reshape(self.x.value, (-1, 64))

    def backward(self):
        self.x.addgrad(np.reshape(self.grad, (-1, 8, 8)))


def package(I, J, random):
    return Package(
        w=Parameter(random.normal(0, I**-0.5, (I, J))),
        b=Parameter(np.zeros(J)),
    )


def main():
    data, random = Data("data/digits.h5", dtype=np.float64), np.random.default_rng(0)
    Phi1, Phi2 = package(64, 32, random), package(32, 10, random)

    L1 = Sigmoid(Affine(Phi1, Pixels(data.x)))
    Q = Softmax(Affine(Phi2, L1))
    ell = LogLoss(Q, data.y)

    data.put(*data.train.load(np.arange(8)))
    check.gradients(ell)
    print("the gradients agree with finite differences")
    for epoch in range(20):
        for x, y, B in data.train.minibatches(0, epoch, 32, lambda B: (0, B)):
            data.put(x, y)
            Forward(ell)
            Backward(ell, B)
            SGD(Parameters(ell), 1.0)
    data.put(*data.test.load(data.test.numbers))
    Forward(ell)
    accuracy = np.mean(np.argmax(Q.value, axis=1) == data.y.value)
    print(f"test loss {np.mean(ell.value):.4f}, test accuracy {100 * accuracy:.2f} %")


if __name__ == "__main__":
    main()
