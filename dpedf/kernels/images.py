"""Images x, (B, ..., H, W), each moved by a distance of its own, or with a hole in it."""

from math import prod

import numpy as np

from dpedf.kernels import Kernels, floats, function, on_gpu, packed

cuda = Kernels("images.cu")


@function
def moved(x, by, way=1):
    """y[b,...,i,j] = x[b,...,i + way by[b,0],j + way by[b,1]], 0 beside x; by: integers, (B, 2)"""
    for axis, whole, steps in (-2, (slice(None),), by[:, 0]), (-1, (), by[:, 1]):
        y, size = np.zeros_like(x), x.shape[axis]
        for step in set(steps.tolist()):
            rows, more, less = (steps == step).nonzero()[0], max(0, way * step), max(0, -way * step)
            to, of = slice(less, max(0, size - more)), slice(more, max(0, size - less))
            y[(rows, ..., to, *whole)] = x[(rows, ..., of, *whole)]
        x = y
    return x


@on_gpu(moved)
def moved_on_gpu(x, by, way=1):
    x = packed(*floats(x))
    y = np.empty_like(x)
    cuda.moved(x.size, x, y, by, x.size, way, **compiled_in(x))
    return y


@function
def without_square(x, corner, size):
    """x, but 0 in a square of so many lines and columns; corner: the first of them, (B, 2)"""
    y = x.copy()
    for image, (top, left) in zip(y, corner.tolist(), strict=True):
        image[..., max(0, top) : max(0, top + size), max(0, left) : max(0, left + size)] = 0
    return y


@on_gpu(without_square)
def without_square_on_gpu(x, corner, size):
    x = packed(*floats(x))
    y = np.empty_like(x)
    cuda.without_square(x.size, x, y, corner, x.size, size, **compiled_in(x))
    return y


def compiled_in(x):
    """The sizes of images, by the names that kernels have for them."""
    return {"I": prod(x.shape[1:-2]), "H": x.shape[-2], "W": x.shape[-1]}
