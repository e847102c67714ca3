"""Arrays in one, one after the other, such as the outputs of all time steps."""

from itertools import accumulate, groupby, pairwise
from math import prod

from dpedf.kernels import TYPES, Kernels, function, on_gpu

cuda = Kernels("concat.cu")
AT_ONCE = 8  # arrays that the kernel copies


@function
def concat(y, parts, axis):
    """y[...,j,...] = x[...,j,...], one x of the parts after the other along an axis

    y: packed.  Returns places.
    """
    where = places(parts, axis)
    for place, x in zip(where, parts, strict=True):
        y[place] = x
    return where


def places(parts, axis):
    """The index of each part in the whole."""
    ends = accumulate((x.shape[axis] for x in parts), initial=0)
    return [(slice(None),) * axis + (slice(*pair),) for pair in pairwise(ends)]


@on_gpu(concat)
def concat_on_gpu(y, parts, axis):
    if y.dtype.name not in TYPES:
        return concat.__wrapped__(y, parts, axis)
    before, N, after = prod(y.shape[:axis]), y.shape[axis], prod(y.shape[axis + 1 :])
    cubes = [x.astype(y.dtype, copy=False).reshape(before, x.shape[axis], after) for x in parts]
    start = 0
    for some in alike(cubes):
        count, n, last = len(some), some[0].shape[1], some[-1:] * (AT_ONCE - len(some))
        steps = [stride // y.itemsize for stride in some[0].strides]
        sizes = count, before, n, after, N, start, *steps
        cuda.concat(count * some[0].size, y, *some, *last, *sizes)
        start += count * n
    return places(parts, axis)


def alike(arrays):
    """Yield lists of at most AT_ONCE arrays, one after the other, that lie in memory alike."""
    for _, group in groupby(arrays, lambda x: (x.shape, x.strides)):
        these = [*group]
        for low in range(0, len(these), AT_ONCE):
            yield these[low : low + AT_ONCE]
