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

    Subclasses define drawn(u): by how much each moves, (B, 2) integers, of u, (B, 2), which is
    uniform in [0, 1); and moves, a property: is that ever more than 0?
    """

    def forward(self):
        (x,), self.by = floats(self.x.value), None
        if context.train and self.moves:
            by = self.by = self.drawn(uniform(self, np.empty_like(x, shape=(len(x), 2))))
            x = moved(x, by)
        else:
            by = np.zeros_like(x, shape=(len(x), 2), dtype=np.int64)
        self.value, self.down, self.right = x, by[:, 0], by[:, 1]

    def backward(self):
        g = self.grad
        self.x.addgrad(g if self.by is None else moved(g, self.by, -1))


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
        self.x, self.rate = x, float(rate)

    @property
    def moves(self):
        return self.rate > 0

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

    @property
    def moves(self):
        return self.padding > 0

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
        (x,), self.drawn = floats(self.x.value), None
        if context.train and self.rate > 0:
            self.flip = self.drawn = uniform(self, np.empty_like(x, shape=len(x))) < self.rate
        else:
            self.flip = np.zeros_like(x, shape=len(x), dtype=bool)
        self.value = self.flipped(x)

    def flipped(self, x):
        if self.drawn is None:
            return x
        return np.where(self.drawn.reshape(-1, *[1] * (x.ndim - 1)), x[..., ::-1], x)

    def backward(self):
        self.x.addgrad(self.flipped(self.grad))


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
        (x,), self.corner = floats(self.x.value), None
        if context.train and self.size > 0:
            u = uniform(self, np.empty_like(x, shape=(len(x), 2)))
            for axis in 0, 1:
                u[:, axis] *= x.shape[axis - 2]
            corner = self.corner = u.astype(np.int64) - self.size // 2
            x = without_square(x, corner, self.size)
        else:
            corner = np.full_like(x, -self.size, shape=(len(x), 2), dtype=np.int64)
        self.value, self.top, self.left = x, corner[:, 0], corner[:, 1]

    def backward(self):
        g = self.grad
        self.x.addgrad(g if self.corner is None else without_square(g, self.corner, self.size))
