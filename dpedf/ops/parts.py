"""Nodes that join values along an axis, and take parts of them.

Axes and indices leave out b, as in tensor.py.
"""

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import is_integer
from dpedf.kernels.concat import concat
from dpedf.ops.indices import after_b, copy_equations, is_whole, letters_of, whole_one


def several(node, x):
    """A list of nodes.  ValueError: it is none, or some of them have b and others have not."""
    x = list(x) if np.iterable(x) else []
    if {getattr(part, "batched", None) for part in x} not in ({True}, {False}):
        expected = "expected a list of nodes, all with b or all without"
        raise ValueError(f"{type(node).__name__}: {expected}")
    return x


def joined(values, axis):
    """Arrays one after the other along an axis, and where each of them is."""
    before, after = values[0].shape[:axis], values[0].shape[axis + 1 :]
    decisive = [value for value in values if not is_integer(value)] or values
    dtype = np.result_type(*{value.dtype for value in decisive})
    size = sum(value.shape[axis] for value in values)
    y = np.empty((*before, size, *after), dtype, like=values[0])
    return y, concat(y, values, axis)


def one_after_the_other(equations):
    """Those of the value of each part, then those of its gradient."""
    pairs = (both.split("\n") for both in equations)
    return "\n".join(line for lines in zip(*pairs, strict=True) for line in lines)


class Concat(CompNode):
    """y[b,...,j,...] = x[b,...,j,...], one x after the other along an axis

    x.grad[b,...,j,...] += y.grad[b,...,j,...], the part that it became

    x: several, all with b or all without; integers beside floats take their type
    """

    def __init__(self, x, axis=-1):
        self.x, self.axis = several(self, x), whole_one(self, axis)

    def forward(self):
        values = [x.value for x in self.x]
        (axis,) = after_b(self.x[0], [self.axis])
        around = {(value.ndim, value.shape[:axis], value.shape[axis + 1 :]) for value in values}
        if len(around) > 1:
            raise ValueError(f"expected shapes that differ along axis {self.axis} alone")
        self.value, self.parts = joined(values, axis)

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
            pairs.append(copy_equations(here, there, f"x{k}"))
        return one_after_the_other(pairs)


class Stack(CompNode):
    """y[b,...,k,...] = x[b,...], where k says which x: a new index, by default the first after b

    x.grad[b,...] += y.grad[b,...,k,...]

    x: several of one shape, all with b or all without; axis: that of k in y
    """

    def __init__(self, x, axis=0):
        self.x, self.axis = several(self, x), whole_one(self, axis)

    @property
    def at(self):
        """The axis of k, counted from b on."""
        return after_b(self.x[0], [self.axis], more=1)[0]

    def forward(self):
        values, at = [x.value for x in self.x], self.at
        if len({value.shape for value in values}) > 1:
            raise ValueError("expected values of one shape")
        self.value, _ = joined([np.expand_dims(value, at) for value in values], at)

    def backward(self):
        before = (slice(None),) * self.at
        for k, x in enumerate(self.x):
            if x.varies:
                x.addgrad(self.grad[(*before, k, ...)])

    def equations(self):
        """Those of each x: y[b,1,i] = x1[b,i]."""
        there = letters_of(self.x[0])
        before, after = there[: self.at], there[self.at :]
        here = [[*before, str(k), *after] for k in range(len(self.x))]
        return one_after_the_other(copy_equations(y, there, f"x{k}") for k, y in enumerate(here))


def is_slice(part):
    """Is this a slice of whole numbers?"""
    if not isinstance(part, slice):
        return False
    return all(i is None or is_whole(i) for i in (part.start, part.stop, part.step))


class Slice(CompNode):
    """y[b,...] = x[b,...], the part at index

    x.grad[b,...] += y.grad[b,...], to that part

    index: a whole number, a slice or ..., or a tuple of these, for the first indices after b; not
    an array or a mask, as what these choose is a copy, to which no gradient can be added
    """

    def __init__(self, x, index):
        index = index if isinstance(index, tuple) else (index,)
        for part in index:
            if not (part is ... or is_whole(part) or is_slice(part)):
                found = f"Slice by a part of type {type(part).__name__}"
                expected = (
                    "whole numbers, slices or ...: rows that an array chooses are an Embedding"
                )
                raise ValueError(f"{found}, expected {expected}")
        self.x, self.index = x, tuple(int(part) if is_whole(part) else part for part in index)

    def forward(self):
        x, index = self.x, self.index
        if ... in index:
            k, indices = index.index(...), x.value.ndim - x.batched
            every = (slice(None),) * (indices - len(index) + 1)
            index = (*index[:k], *every, *index[k + 1 :])
        # ... makes it a view, also of one number: NumPy would copy that
        self.at = (slice(None),) * x.batched + index + (...,)
        self.value = self.x.value[self.at]

    def backward(self):
        part = self.x.own_grad()[self.at]
        part += self.grad

    def equations(self):
        """Those of this index: y[b,i,j] = x[b,3,2+i,j]."""
        free, there = iter(letters_of(self)), []
        parts = [*self.at[:-1], *[slice(None)] * self.x.value.ndim]
        for part, size in zip(parts, self.x.value.shape, strict=False):
            many = isinstance(part, slice)
            start, _, step = part.indices(size) if many else (part % size, None, None)
            there.append(f"{start} + {step} {next(free)}" if many else f"{start}")
        return copy_equations(letters_of(self), there)
