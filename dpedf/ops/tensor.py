"""Nodes that arrange or add up whole indices.

Shapes and axes leave out b, as those of an Input do: axis 0 is the first index after b, and -1
the last of all.  A value without b has all its indices counted.
"""

from math import prod

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import packed
from dpedf.kernels.concat import concat
from dpedf.kernels.sums import sum_of_axes
from dpedf.ops.indices import after_b, copy_equations, indexed, letters_of, reshape_equations


class Reshape(CompNode):
    """y[b,...] = x[b,...], the numbers of each row in another shape

    x.grad[b,...] += y.grad[b,...]

    shape: that of a row of y, with as many numbers; -1 once: what is left
    """

    def __init__(self, x, shape):
        self.x, self.shape = x, tuple(shape)

    def forward(self):
        x, known = self.x.value, prod(size for size in self.shape if size != -1)
        b, row = x.shape[: self.x.batched], prod(x.shape[self.x.batched :])
        shape = tuple(row // max(known, 1) if size == -1 else size for size in self.shape)
        if prod(shape) != row:
            raise ValueError(f"expected a shape of {row} numbers, not {self.shape}")
        self.value = x.reshape(*b, *shape)

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

    axes: for each index of y after b, which of x it is
    """

    takes_slices = True  # in backward, as an index before those of a value without b

    def __init__(self, x, axes=None):
        self.x, self.axes = x, axes

    def forward(self):
        x = self.x
        axes = range(x.value.ndim - x.batched)[::-1] if self.axes is None else self.axes
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


class Concat(CompNode):
    """y[b,...,j,...] = x[b,...,j,...], one x after the other along an axis

    x.grad[b,...,j,...] += y.grad[b,...,j,...], the part that it became
    """

    def __init__(self, x, axis=-1):
        self.x, self.axis = list(x), axis

    def forward(self):
        values = [x.value for x in self.x]
        (axis,) = after_b(self.x[0], [self.axis])
        size = sum(value.shape[axis] for value in values)
        around = {(value.shape[:axis], value.shape[axis + 1 :]) for value in values}
        if len(around) > 1:
            raise ValueError(f"expected shapes that differ along axis {self.axis} alone")
        ((before, after),), dtype = around, np.result_type(*{value.dtype for value in values})
        self.value = np.empty((*before, size, *after), dtype, like=values[0])
        self.parts = concat(self.value, values, axis)

    def backward(self):
        for x, part in zip(self.x, self.parts, strict=True):
            if x.varies:
                x.addgrad(self.grad[part])

    def equations(self):
        """Those of each part: y[b,4+i] = x1[b,i], where x0 is (B, 4)."""
        there, pairs = letters_of(self.x[0]), []
        for k, (*before, part) in enumerate(self.parts):
            here = [*there]
            here[len(before)] = f"{part.start} + {there[len(before)]}"  # of the first, too
            pairs.append(copy_equations(here, there, f"x{k}").split("\n"))
        return "\n".join(line for lines in zip(*pairs, strict=True) for line in lines)


class Slice(CompNode):
    """y[b,...] = x[b,...], the part at index

    x.grad[b,...] += y.grad[b,...], to that part

    index: a number or a slice, or a tuple of these, for the first indices after b
    """

    def __init__(self, x, index):
        self.x, self.index = x, index if isinstance(index, tuple) else (index,)

    def forward(self):
        # ... makes it a view, also of one number: NumPy would copy that
        self.at = (slice(None),) * self.x.batched + self.index + (...,)
        self.value = self.x.value[self.at]

    def backward(self):
        part = self.x.own_grad()[self.at]
        part += self.grad

    def equations(self):
        """Those of this index: y[b,i,j] = x[b,3,2+i,j]."""
        free, there = iter(letters_of(self)), []
        parts = [*self.at[:-1], *[slice(None)] * self.x.value.ndim]
        for part, size in zip(parts, self.x.value.shape, strict=False):
            whole = isinstance(part, slice)
            start, _, step = part.indices(size) if whole else (part % size, None, None)
            there.append(f"{start} + {step} {next(free)}" if whole else f"{start}")
        return copy_equations(letters_of(self), there)


class Sum(CompNode):
    """y[b,...] = sum_j x[b,...,j,...], over all indices j of some axes: by default, of all

    x.grad[b,...,j,...] += y.grad[b,...]
    """

    def __init__(self, x, axes=None):
        self.x, self.axes = x, (axes,) if isinstance(axes, int) else axes

    def forward(self):
        x = self.x
        axes = range(x.value.ndim - x.batched) if self.axes is None else self.axes
        self.over = after_b(x, axes)
        self.value = sum_of_axes(packed(x.value), self.over)

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
        self.value = self.value / (self.J or 1)

    def backward(self):
        self.spread(self.grad / (self.J or 1))

    def equations(self):
        return super().equations("mean", f" / {self.J}")
