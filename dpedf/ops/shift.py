"""Images that are moved at random in training, so that a model does not learn where they lie."""

import numpy as np

from dpedf.edf import CompNode, context
from dpedf.kernels import floats
from dpedf.ops.draws import uniform


class Shift(CompNode):
    """y[b,...,i,j] = x[b,...,i + down[b],j + right[b]]

    x.grad[b,...,i + down[b],j + right[b]] += y.grad[b,...,i,j]

    down, right: in training each is 1 with probability rate, -1 with the same, else 0; otherwise
    both are 0.  Drawn anew in each step, the same for any split of the rows.  Beyond its edges x is
    0.  ValueError: rate is not in 0 <= rate <= 0.5.

    x: (B, ..., H, W); y: (B, ..., H, W)
    """

    def __init__(self, x, rate):
        if not 0 <= rate <= 0.5:
            raise ValueError(f"Shift of rate {rate}, expected 0 <= rate <= 0.5")
        self.x, self.rate = x, float(rate)

    def forward(self):
        (self.value,), moves = floats(self.x.value), context.train and self.rate > 0
        by = np.zeros_like(self.value, shape=(len(self.value), 2))
        if moves:
            u = uniform(self, by)
            by = (u < self.rate).astype(np.intp) - (u >= 1 - self.rate).astype(np.intp)
        self.down, self.right = by[:, 0].astype(np.intp), by[:, 1].astype(np.intp)
        if moves:
            self.value = self.moved(self.value, 1)

    def backward(self):
        self.x.addgrad(self.moved(self.grad, -1))

    def moved(self, x, way):
        """Each row by its down and right, or if way is -1, back."""
        for axis, by in enumerate((self.down, self.right)):
            by = way * by.reshape(-1, *[1] * (x.ndim - 1))
            x = np.where(by == 1, beside(x, axis, 1), np.where(by == -1, beside(x, axis, -1), x))
        return x


def beside(x, axis, by):
    """y[...,i,j] = x[...,i + by,j], or along axis 1, x[...,i,j + by]; by: 1 or -1."""
    y, most, least = np.zeros_like(x), slice(1, None), slice(None, -1)
    to, of = (least, most) if by == 1 else (most, least)
    whole = [slice(None)] * (1 - axis)
    y[(..., to, *whole)] = x[(..., of, *whole)]
    return y
