"""The loss of regressions."""

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import floats, packed
from dpedf.ops.masked_mean import expect_same_shape


class SquareLoss(CompNode):
    """ell[b] = sum_... (x[b,...] - y[b,...])**2

    x.grad[b,...] += 2 ell.grad[b] (x[b,...] - y[b,...])
    y.grad[b,...] -= 2 ell.grad[b] (x[b,...] - y[b,...])

    x, y: (B, ...); ell: (B,)
    """

    def __init__(self, x, y):
        self.x, self.y = x, y

    def forward(self):
        x, y = floats(self.x.value, self.y.value)
        expect_same_shape("y", y, x.shape)
        self.difference = x - y.astype(x.dtype, copy=False)
        squares = packed(np.square(self.difference))
        self.value = squares.sum(axis=tuple(range(1, squares.ndim)))

    def backward(self):
        delta = (2 * self.grad * self.difference.T).T
        self.x.addgrad(delta)
        if self.y.varies:
            self.y.addgrad(-delta)
