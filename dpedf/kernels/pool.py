"""Pooling of images x, (B, I, H, W): one number for each window of a channel.

On a GPU x and its gradient lie in memory alike, and what is pooled has b as the first index.
"""

import numpy as np

from dpedf.kernels import Kernels, function, on_gpu, packed_as, packed_for, selected, strides_of
from dpedf.kernels.windows import batch_first, batch_innermost, down_and_across, taps

cuda = Kernels("pool.cu")


@function
def max_pool(x, size, stride):
    """y[b,i,h,w] = max_{u,v} x[b,i,h stride + u,w stride + v]"""
    first, *others = taps(batch_innermost(x), size, stride)
    y = first.copy()
    for tap in others:
        np.maximum(y, tap, out=y)
    return batch_first(y)


@on_gpu(max_pool)
def max_pool_on_gpu(x, size, stride):
    return pooled(cuda.max_pool, x, size, stride)


@function
def max_pool_gradient(x, y, g, size, stride):
    """dx: g, at the first (u, v) of each window where x is y, perhaps nan"""
    x, y, g = batch_innermost(x), batch_innermost(y), batch_innermost(g)
    dx, nans = np.zeros_like(x), bool(np.isnan(y).any())
    left = np.ones(y.shape, bool)  # windows whose largest number was not met yet
    for tap, part in zip(taps(x, size, stride), taps(dx, size, stride), strict=True):
        here = tap == y
        if nans:
            here |= np.isnan(tap)
        here &= left
        left ^= here
        if stride < size:
            part += selected(g, here)
        else:  # windows do not overlap
            selected(g, here, out=part)
    return batch_first(dx)


@on_gpu(max_pool_gradient)
def max_pool_gradient_on_gpu(x, y, g, size, stride):
    dx, sizes = np.empty_like(x), compiled_in(x, size, stride)
    arrays = dx, packed_as(x, dx), *packed_for(x, y, g)
    cuda.max_pool_gradient(x.size, *arrays, x.size, *strides_of(dx), **sizes)
    return dx


@function
def average_pool(x, size, stride):
    """y[b,i,h,w] = mean_{u,v} x[b,i,h stride + u,w stride + v]"""
    first, *others = taps(batch_innermost(x), size, stride)
    y = first.copy()
    for tap in others:
        y += tap
    y /= size**2
    return batch_first(y)


@on_gpu(average_pool)
def average_pool_on_gpu(x, size, stride):
    return pooled(cuda.average_pool, x, size, stride)


@function
def average_pool_gradient(x, g, size, stride):
    """dx: of each place of x, the sum of g / size**2 over the windows that see it"""
    g = batch_innermost(g) / size**2
    dx = np.zeros_like(batch_innermost(x))
    for part in taps(dx, size, stride):
        part += g
    return batch_first(dx)


@on_gpu(average_pool_gradient)
def average_pool_gradient_on_gpu(x, g, size, stride):
    dx, sizes = np.empty_like(x), compiled_in(x, size, stride)
    (g,) = packed_for(x, g)
    cuda.average_pool_gradient(x.size, dx, g, x.size, *strides_of(dx), **sizes)
    return dx


def pooled(kernel, x, size, stride):
    """What a kernel makes of the windows of x."""
    sizes = compiled_in(x, size, stride)
    y = np.empty((*x.shape[:2], sizes["DOWN"], sizes["ACROSS"]), x.dtype, like=x)
    kernel(y.size, x, y, y.size, *strides_of(x), **sizes)
    return y


def compiled_in(x, size, stride):
    """The sizes of images x and of their windows, by the names that kernels have for them."""
    (_, I, H, W), (down, across) = x.shape, down_and_across(x, size, size, stride)
    return {"I": I, "H": H, "W": W, "SIZE": size, "STRIDE": stride, "DOWN": down, "ACROSS": across}
