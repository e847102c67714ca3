"""Images that are changed at random in training, so that a model learns what stays.

What is drawn is drawn anew in each step, for each row, and the same for any split of the rows.
In evaluation images stay as they are.  A place without a number of x is 0, which is the mean of
inputs where the data file has a mean.
"""

import numpy as np

from dpedf.edf import CompNode, context
from dpedf.kernels import floats
from dpedf.kernels.images import moved, without_square
from dpedf.ops.draws import uniform
from dpedf.ops.indices import whole_one


def expect_size(node, name, found):
    """An int of at least 0.  ValueError: it is none."""
    if (size := whole_one(node, found)) < 0:
        raise ValueError(f"{type(node).__name__} of {name} {size}, expected at least 0")
    return size


class Moved(CompNode):
    """Images, each moved by lines and columns of its own.

    Subclasses define moves, may they be moved at all?, and drawn(u): by how much, (B, 2) integers,
    of u, (B, 2), which is uniform in [0, 1).
    """

    def forward(self):
        (self.value,), self.moving = floats(self.x.value), context.train and self.moves
        B = len(self.value)
        if self.moving:
            self.by = self.drawn(uniform(self, np.empty_like(self.value, shape=(B, 2))))
            self.value = moved(self.value, self.by)
        else:
            self.by = np.zeros_like(self.value, shape=(B, 2), dtype=np.int64)
        self.down, self.right = self.by[:, 0], self.by[:, 1]

    def backward(self):
        self.x.addgrad(moved(self.grad, self.by, -1) if self.moving else self.grad)


class Shift(Moved):
    """y[b,...,i,j] = x[b,...,i + down[b],j + right[b]]

    x.grad[b,...,i + down[b],j + right[b]] += y.grad[b,...,i,j]

    down, right: in training each is 1 with probability rate, -1 with the same, else 0; otherwise
    both are 0.  Beyond its edges x is 0.  ValueError: rate is not in 0 <= rate <= 0.5.

    x: (B, ..., H, W); y: (B, ..., H, W)
    """

    def __init__(self, x, rate):
        if not 0 <= rate <= 0.5:
            raise ValueError(f"Shift of rate {rate}, expected 0 <= rate <= 0.5")
        self.x, self.rate, self.moves = x, float(rate), rate > 0

    def drawn(self, u):
        return (u < self.rate).astype(np.int64) - (u >= 1 - self.rate).astype(np.int64)


class Crop(Moved):
    """y[b,...,i,j] = x[b,...,i + down[b],j + right[b]]

    x.grad[b,...,i + down[b],j + right[b]] += y.grad[b,...,i,j]

    A window of the size of x, at a random place of x with so many zeros on each side, padding:
    in training down and right are drawn from -padding..padding, otherwise both are 0.

    x: (B, ..., H, W); y: (B, ..., H, W)
    """

    def __init__(self, x, padding):
        self.x, self.padding = x, expect_size(self, "padding", padding)
        self.moves = self.padding > 0

    def drawn(self, u):
        return (u * (2 * self.padding + 1)).astype(np.int64) - self.padding


class Flip(CompNode):
    """y[b,...,i,j] = flip[b] x[b,...,i,W - 1 - j] + (1 - flip[b]) x[b,...,i,j]

    x.grad[b,...,i,j] += flip[b] y.grad[b,...,i,W - 1 - j] + (1 - flip[b]) y.grad[b,...,i,j]

    flip: in training 1 with probability rate, else 0; otherwise 0: left and right change places.
    ValueError: rate is not in 0 <= rate <= 1.

    x: (B, ..., H, W); y: (B, ..., H, W)
    """

    def __init__(self, x, rate=0.5):
        if not 0 <= rate <= 1:
            raise ValueError(f"Flip of rate {rate}, expected 0 <= rate <= 1")
        self.x, self.rate = x, float(rate)

    def forward(self):
        (self.value,), self.flips = floats(self.x.value), context.train and self.rate > 0
        B = len(self.value)
        if self.flips:
            self.flip = uniform(self, np.empty_like(self.value, shape=B)) < self.rate
            self.value = self.flipped(self.value)
        else:
            self.flip = np.zeros_like(self.value, shape=B, dtype=bool)

    def flipped(self, x):
        return np.where(self.flip.reshape(-1, *[1] * (x.ndim - 1)), x[..., ::-1], x)

    def backward(self):
        self.x.addgrad(self.flipped(self.grad) if self.flips else self.grad)


class Cutout(CompNode):
    """y[b,...,h,w] = x[b,...,h,w] (1 - cut[b,h,w])

    cut[b,h,w] = [h >= top[b]] [h < top[b] + size] [w >= left[b]] [w < left[b] + size]

    x.grad[b,...,h,w] += y.grad[b,...,h,w] (1 - cut[b,h,w])

    A square of size x size is 0, but for what lies beyond the edges: in training its center, line
    top + size // 2 and column left + size // 2, is any place of the image, otherwise there is none.
    DeVries and Taylor, 2017

    x: (B, ..., H, W); y: (B, ..., H, W)
    """

    def __init__(self, x, size):
        self.x, self.size = x, expect_size(self, "size", size)

    def forward(self):
        (self.value,), self.cuts = floats(self.x.value), context.train and self.size > 0
        B = len(self.value)
        if self.cuts:
            u = uniform(self, np.empty_like(self.value, shape=(B, 2)))
            for axis in 0, 1:
                u[:, axis] *= self.value.shape[axis - 2]
            self.corner = u.astype(np.int64) - self.size // 2
            self.value = without_square(self.value, self.corner, self.size)
        else:
            self.corner = np.full_like(self.value, -self.size, shape=(B, 2), dtype=np.int64)
        self.top, self.left = self.corner[:, 0], self.corner[:, 1]

    def backward(self):
        g = self.grad
        self.x.addgrad(without_square(g, self.corner, self.size) if self.cuts else g)
