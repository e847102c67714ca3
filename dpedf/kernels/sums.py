"""Sums over an index: the many numbers of a long one are added in blocks.

NumPy adds in pairs along the last index alone.  Along another one it adds number after number, and
of 1e6 equal ones of float32 is off by 1 %.
"""

from math import prod

import numpy as np

from dpedf.kernels import function, on_gpu

# So many numbers are added one by one; of more, each FEW have a sum of their own.
FEW, MANY = 256, 2048


@function
def sum_of_axes(x, axes, keepdims=False):
    """The sum of x over a tuple of axes."""
    in_pairs = x.ndim - 1 if x.flags.c_contiguous else None
    if prod(x.shape[axis] for axis in axes if axis != in_pairs) <= MANY:
        return x.sum(axis=axes, keepdims=keepdims)
    y = x
    for axis in sorted(axes, reverse=True):
        y = in_blocks(y, axis)
    return np.expand_dims(y, axes) if keepdims else y


@on_gpu(sum_of_axes)
def sum_of_axes_on_gpu(x, axes, keepdims=False):
    return x.sum(axis=axes, keepdims=keepdims)


def in_blocks(x, axis):
    """The sum of x over an axis."""
    before, n, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    if n <= MANY or not after and x.strides[axis] == x.itemsize:
        return x.sum(axis=axis)
    each = n // FEW
    blocks, rest = np.split(x, [FEW * each], axis)
    # A block has every each-th number, so that neighbours are added to neighbours, in long lines.
    sums = blocks.reshape(*before, FEW, each, *after).sum(axis=axis)
    sums[(slice(None),) * axis + (0,)] += rest.sum(axis=axis)
    return in_blocks(sums, axis)
