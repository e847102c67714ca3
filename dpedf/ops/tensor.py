"""Nodes that arrange or add up whole indices.

Shapes and axes leave out b, as those of an Input do: axis 0 is the first index after b, and -1
the last of all.  A value without b has all its indices counted.
"""

from math import prod

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import floats, packed
from dpedf.kernels.sums import sum_of_axes
from dpedf.ops.indices import (
    after_b,
    copy_equations,
    indexed,
    letters_of,
    reshape_equations,
    whole,
)


class Reshape(CompNode):
    """y[b,...] = x[b,...], the numbers of each row in another shape

    x.grad[b,...] += y.grad[b,...]

    shape: that of a row of y, with as many numbers; -1 once: what is left; a number: of one index
    """

    keeps_order = True  # of the numbers of a row

    def __init__(self, x, shape):
        self.x, self.shape = x, whole(self, shape)

    def forward(self):
        x, known = self.x.value, prod(size for size in self.shape if size != -1)
        b, row = x.shape[: self.x.batched], prod(x.shape[self.x.batched :])
        shape = tuple(row // max(known, 1) if size == -1 else size for size in self.shape)
        if prod(shape) != row:
            raise ValueError(f"expected a shape of {row} numbers, not {self.shape}")
        self.value = x.reshape((*b, *shape))

    def backward(self):
        self.x.addgrad(self.grad.reshape(self.x.value.shape))

    def equations(self):
        """Those of these shapes: y[b,8 i + j] = x[b,i,j], or by way of a row of numbers."""
        return reshape_equations(self, self.x)


class Flatten(Reshape):
    """y[b,i] = x[b,...], the indices after b as one

    x.grad[b,...] += y.grad[b,i]
    """

    def __init__(self, x):
        super().__init__(x, (-1,))


class Transpose(CompNode):
    """y[b,...] = x[b,...], the indices after b in another order: by default, in reverse

    x.grad[b,...] += y.grad[b,...]

    axis: for each index of y after b, which of x it is
    """

    takes_slices = True  # in backward, as an index before those of a value without b

    def __init__(self, x, axis=None):
        self.x, self.axis = x, axis if axis is None else whole(self, axis)

    def forward(self):
        x = self.x
        axes = range(x.value.ndim - x.batched)[::-1] if self.axis is None else self.axis
        self.order = (*range(x.batched), *after_b(x, axes))
        self.value = x.value.transpose(self.order)

    def backward(self):
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        more = self.grad.ndim - len(back)
        self.x.addgrad(self.grad.transpose(*range(more), *(more + axis for axis in back)))

    def equations(self):
        """Those of this order: y[b,i,j] = x[b,j,i]."""
        here = letters_of(self)
        return copy_equations(here, [here[self.order.index(axis)] for axis in range(len(here))])


class Sum(CompNode):
    """y[b,...] = sum_j x[b,...,j,...], over all indices j of some axes: by default, of all

    x.grad[b,...,j,...] += y.grad[b,...]
    """

    def __init__(self, x, axis=None):
        self.x, self.axis = x, axis if axis is None else whole(self, axis)

    def forward(self):
        self.over = after_b(self.x, self.axis)
        self.value = sum_of_axes(packed(self.x.value), self.over)

    def backward(self):
        self.spread(self.grad)

    def spread(self, g):
        """x.grad += g, wherever it was added from."""
        g = np.expand_dims(g, self.over)
        self.x.addgrad(np.broadcast_to(g, self.x.value.shape))

    def equations(self, kind="sum", share=""):
        """Those of these axes: y[b,i] = sum_j x[b,i,j]."""
        there = letters_of(self.x)
        over = [there[axis] for axis in sorted(self.over)]
        here = [letter for letter in there if letter not in over]
        right = f"{kind}_{','.join(over)} " * bool(over) + indexed("x", there)
        gradient = f"{indexed('x.grad', there)} += {indexed('y.grad', here)}{share}"
        return f"{indexed('y', here)} = {right}\n{gradient}"


class Mean(Sum):
    """y[b,...] = 1/J sum_j x[b,...,j,...], over all J indices j of some axes: by default, of all

    x.grad[b,...,j,...] += 1/J y.grad[b,...]
    """

    def forward(self):
        super().forward()
        self.J = prod(self.x.value.shape[axis] for axis in self.over)
        (total,) = floats(self.value)
        self.value = total / (self.J or 1)

    def backward(self):
        self.spread(self.grad / (self.J or 1))

    def equations(self):
        return super().equations("mean", f" / {self.J}")
