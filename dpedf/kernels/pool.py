"""Pooling of images x, (B, I, H, W): one number for each of the Windows over a channel.

On a GPU x and its gradient lie in memory alike, and what is pooled has b as the first index.
"""

from itertools import repeat
from math import inf, prod

import numpy as np

from dpedf.kernels import Kernels, function, on_gpu, packed_as, packed_for, selected, strides_of
from dpedf.kernels.windows import (
    batch_first,
    batch_innermost,
    compiled_in,
    padded,
    taps,
    unpadded,
)

cuda = Kernels("pool.cu")


@function
def max_pool(x, windows):
    """y: the largest number of x that each window sees"""
    first, *others = taps(padded(batch_innermost(x), windows, -inf), windows)
    y = first.copy()
    for tap in others:
        np.maximum(y, tap, out=y)
    return batch_first(y)


@on_gpu(max_pool)
def max_pool_on_gpu(x, windows):
    return pooled(cuda.max_pool, x, windows, True, -inf)


@function
def max_pool_gradient(x, y, g, windows):
    """dx: g, at the first (u, v) of each window where x is y, perhaps nan"""
    images, y, g = batch_innermost(x), batch_innermost(y), batch_innermost(g)
    wide, inside = padded(images, windows), repeat(None)
    if windows.beside:  # where no gradient goes, whatever y is
        inside = taps(padded(np.ones_like(images[:1, :, :, :1], dtype=bool), windows), windows)
    dx, nans = np.zeros_like(wide), bool(np.isnan(y).any())
    left = np.ones(y.shape, bool)  # windows whose largest number was not met yet
    apart = all(s >= span for s, span in zip(windows.stride, windows.span, strict=True))
    for tap, part, there in zip(taps(wide, windows), taps(dx, windows), inside, strict=False):
        here = tap == y
        if nans:
            here |= np.isnan(tap)
        if there is not None:
            here &= there
        here &= left
        left ^= here
        if apart:  # windows do not overlap
            selected(g, here, out=part)
        else:
            part += selected(g, here)
    return batch_first(unpadded(dx, *x.shape[2:], windows))


@on_gpu(max_pool_gradient)
def max_pool_gradient_on_gpu(x, y, g, windows):
    dx, sizes = np.empty_like(x), compiled_in(x, windows) | {"WHOLE": 1}
    arrays = dx, packed_as(x, dx), *packed_for(x, y, g)
    cuda.max_pool_gradient(x.size, *arrays, x.size, *strides_of(dx), **sizes)
    return dx


@function
def average_pool(x, windows, whole):
    """y: the mean of the numbers of x that each window sees

    whole: does the padding count, as zeros?
    """
    first, *others = taps(padded(batch_innermost(x), windows), windows)
    y = first.copy()
    for tap in others:
        y += tap
    y /= counted(x, windows, whole)
    return batch_first(y)


@on_gpu(average_pool)
def average_pool_on_gpu(x, windows, whole):
    return pooled(cuda.average_pool, x, windows, whole)


def counted(x, windows, whole):
    """How many places the mean over each window is over: a number, or (H', W', 1)."""
    if not windows.beside:
        return prod(windows.size)
    how, sizes = (windows.size, windows.stride, windows.padding), x.shape[2:]
    down, across = (
        np.array([among(m * s - p, size, n, p * whole) for m in range(count)])
        for count, n, size, s, p in zip(windows.over(*sizes), sizes, *how, strict=True)
    )
    return (down[:, None] * across)[:, :, None].astype(x.dtype)


def among(first, size, n, padding):
    """How many of size places from a first one on are in -padding..n + padding - 1."""
    return min(first + size, n + padding) - max(first, -padding)


@function
def average_pool_gradient(x, g, windows, whole):
    """dx: of each place of x, the sum over the windows that see it of g, by what they count"""
    g = batch_innermost(g) / counted(x, windows, whole)
    dx = padded(np.zeros_like(batch_innermost(x)), windows)
    for part in taps(dx, windows):
        part += g
    return batch_first(unpadded(dx, *x.shape[2:], windows))


@on_gpu(average_pool_gradient)
def average_pool_gradient_on_gpu(x, g, windows, whole):
    dx, sizes = np.empty_like(x), compiled_in(x, windows) | {"WHOLE": int(whole)}
    (g,) = packed_for(x, g)
    cuda.average_pool_gradient(x.size, dx, g, x.size, *strides_of(dx), **sizes)
    return dx


def pooled(kernel, x, windows, whole, *more):
    """What a kernel makes of what windows see of x."""
    sizes = compiled_in(x, windows) | {"WHOLE": int(whole)}
    y = np.empty((*x.shape[:2], sizes["DOWN"], sizes["ACROSS"]), x.dtype, like=x)
    kernel(y.size, x, y, *more, y.size, *strides_of(x), **sizes)
    return y
