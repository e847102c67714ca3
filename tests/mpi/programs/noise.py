"""Models with a node of random draws: noise, as a user could write it, and dropout."""

from math import prod

from dpedf.edf import CompNode, context
from dpedf.ops import Affine, Dropout, Flatten, LogLoss, Relu, Softmax
from dpedf.ops.draws import uniform
from dpedf.phi import dense


class Noise(CompNode):
    """y[b,i] = x[b,i] + noise drawn for (seed, step, row), while training."""

    def __init__(self, x):
        self.x = x

    def forward(self):
        x = self.x.value
        self.value = x + uniform(self, x) if context.train else x

    def backward(self):
        self.x.addgrad(self.grad)


class Slides(Affine):
    """Affine, whose gradient is written with @, which on a GPU is cuBLAS: no graph can hold it."""

    def backward(self):
        self.Phi.w.addgrad(self.x.value.T @ self.grad)
        self.Phi.b.addgrad(-self.grad.sum(axis=0))


def noisy(x, y, First=Affine):
    L = Relu(First(dense(prod(x.shape), 16), Noise(Flatten(x))))
    Q = Softmax(Affine(dense(16, y.classes), L))
    return Q, LogLoss(Q, y)


def noisy_slides(x, y):
    return noisy(x, y, Slides)


def dropped(x, y):
    L = Dropout(Relu(Affine(dense(prod(x.shape), 16), Dropout(Flatten(x), 0.2))), 0.5)
    Q = Softmax(Affine(dense(16, y.classes), L))
    return Q, LogLoss(Q, y)
