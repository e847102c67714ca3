"""A model with a node of random draws, as a user could write it: functions of the row alone."""

from math import prod

import numpy as np

from dpedf.edf import CompNode, context
from dpedf.ops import Affine, Flatten, LogLoss, Softmax
from dpedf.phi import affine


class Noise(CompNode):
    """y[b,i] = x[b,i] + noise drawn for (seed, step, row), while training."""

    def __init__(self, x):
        self.x = x

    def forward(self):
        x = self.x.value
        self.value = x.copy()
        for b in range(len(x) if context.train else 0):
            draws = np.random.default_rng([context.seed, context.step, context.row + b])
            self.value[b] += draws.normal(size=x.shape[1:]).astype(x.dtype)

    def backward(self):
        self.x.addgrad(self.grad)


def noisy(x, y):
    hidden = Affine(affine(prod(x.shape), 16), Flatten(x))
    Q = Softmax(Affine(affine(16, y.classes), Noise(hidden)))
    return Q, LogLoss(Q, y)
