"""Convolution as products of matrices, and pooling: of images x, (B, I, H, W).

In memory b is the innermost index: (I, H, W, B).  So one product gives all channels of many
windows, and NumPy works along rows that are as long as the minibatch.  A few lines of windows are
computed at a time, so that what a product reads stays in the cache.
"""

from math import prod

import numpy as np

from dpedf.kernels import Kernels, function, on_gpu, packed
from dpedf.kernels.gemm import product

cuda = Kernels("conv.cu")


@function
def at_a_time(x):
    """How many numbers of columns are computed at a time."""
    return 1 << 18


@on_gpu(at_a_time)
def at_a_time_on_gpu(x):
    return 1 << 26


def batch_innermost(x):
    """x with the indices (I, H, W, B), in this order in memory."""
    return packed(x.transpose(1, 2, 3, 0))


def batch_first(x):
    return x.transpose(3, 0, 1, 2)


def windows_along(size, window, stride):
    """How many windows fit into so many lines or columns."""
    return max(0, (size - window) // stride + 1)


def padded(x, padding):
    """x, (I, H, W, B), with so many zeros on each side."""
    if not padding:
        return x
    I, H, W, B = x.shape
    wide = np.zeros((I, H + 2 * padding, W + 2 * padding, B), x.dtype, like=x)
    wide[:, padding : padding + H, padding : padding + W] = x
    return wide


def windows(x, U, V, stride, low, high):
    """A view (I, U, V, H', W', B) of x: what the windows of the lines low:high see."""
    I, H, W, B = x.shape
    i, h, w, b = x.strides
    x = x[:, low * stride :]
    shape = I, U, V, high - low, windows_along(W, V, stride), B
    return np.lib.stride_tricks.as_strided(x, shape, (i, h, w, h * stride, w * stride, b))


@function
def columns(x, U, V, stride, low, high):
    """What the windows of the lines low:high see of x, as a matrix (I U V, H' W' B)."""
    seen = windows(x, U, V, stride, low, high)
    return seen.reshape(prod(seen.shape[:3]), prod(seen.shape[3:]))


@on_gpu(columns)
def columns_on_gpu(x, U, V, stride, low, high):
    I, H, W, B = x.shape
    across = windows_along(W, V, stride)
    seen = np.empty((I * U * V, (high - low) * across * B), x.dtype, like=x)
    cuda.columns(seen.size, seen, x, seen.size, H, W, B, U, V, stride, low, high - low, across)
    return seen


@function
def add_columns(x, seen, U, V, stride, low, high):
    """Add seen, which has the shape of columns(...), to x, where columns reads it."""
    I, H, W, B = x.shape
    down, across = high - low, windows_along(W, V, stride)
    seen = seen.reshape(I, U, V, down, across, B)
    for u in range(U):
        lines = slice(low * stride + u, (high - 1) * stride + u + 1, stride)
        for v in range(V):
            part = x[:, lines, v : v + (across - 1) * stride + 1 : stride]
            part += seen[:, u, v]


@on_gpu(add_columns)
def add_columns_on_gpu(x, seen, U, V, stride, low, high):
    I, H, W, B = x.shape
    across = windows_along(W, V, stride)
    cuda.add_columns(x.size, x, seen, x.size, H, W, B, U, V, stride, low, high - low, across)


def lines(x, W, stride):
    """Yield (low, high), the lines of windows that are computed at a time."""
    J, I, U, V = W.shape
    down, across = windows_along(x.shape[1], U, stride), windows_along(x.shape[2], V, stride)
    step = max(1, at_a_time(x) // max(1, I * U * V * across * x.shape[3]))
    for low in range(0, down, step):
        yield low, min(low + step, down)


def convolution(x, W, C, stride, padding):
    """The value of a Conv2D of x, W and C."""
    x, (J, I, U, V) = padded(batch_innermost(x), padding), W.shape
    B, across = x.shape[3], windows_along(x.shape[2], V, stride)
    y = np.empty((J, windows_along(x.shape[1], U, stride), across, B), x.dtype, like=x)
    for low, high in lines(x, W, stride):
        out = y[:, low:high].reshape(J, (high - low) * across * B)
        product(W.reshape(J, I * U * V), columns(x, U, V, stride, low, high), out=out)
        out -= np.expand_dims(C, 1)
    return batch_first(y)


def convolution_gradients(x, W, g, stride, padding, varies):
    """(x.grad, W.grad) of a Conv2D whose grad is g; x.grad is None unless x varies."""
    x, g, (J, I, U, V) = padded(batch_innermost(x), padding), batch_innermost(g), W.shape
    matrix = W.reshape(J, I * U * V)
    dx = np.zeros_like(x) if varies else None
    dW = np.zeros_like(matrix)
    for low, high in lines(x, W, stride):
        part = g[:, low:high].reshape(J, (high - low) * prod(g.shape[2:]))
        product(part, columns(x, U, V, stride, low, high).T, out=dW, add=True)
        if varies:
            add_columns(dx, product(matrix.T, part), U, V, stride, low, high)
    if varies:
        H, width = dx.shape[1] - padding, dx.shape[2] - padding
        dx = batch_first(dx[:, padding:H, padding:width])
    return dx, dW.reshape(W.shape)


def taps(x, size, stride):
    """Yield views (I, H', W', B) of x, (I, H, W, B): what the windows have at each (u, v)."""
    down, across = (windows_along(n, size, stride) for n in x.shape[1:3])
    for u in range(size):
        for v in range(size):
            yield x[
                :,
                u : u + (down - 1) * stride + 1 : stride,
                v : v + (across - 1) * stride + 1 : stride,
            ]


@function
def max_pool(x, size, stride):
    """y[b,i,h,w] = max_{u,v} x[b,i,h stride + u,w stride + v]"""
    first, *others = taps(batch_innermost(x), size, stride)
    y = first.copy()
    for tap in others:
        np.maximum(y, tap, out=y)
    return batch_first(y)


@function
def max_pool_gradient(x, y, g, size, stride):
    """dx: g, at the first (u, v) of each window where x is y"""
    x, y, g = batch_innermost(x), batch_innermost(y), batch_innermost(g)
    dx = np.zeros_like(x)
    left = np.ones(y.shape, bool)  # windows whose largest number was not met yet
    for tap, part in zip(taps(x, size, stride), taps(dx, size, stride), strict=True):
        here = tap == y
        here &= left
        left ^= here
        if stride < size:
            part += g * here
        else:  # windows do not overlap
            np.multiply(g, here, out=part)
    return batch_first(dx)


@on_gpu(max_pool)
def max_pool_on_gpu(x, size, stride):
    x = batch_innermost(x)
    I, H, W, B = x.shape
    down, across = windows_along(H, size, stride), windows_along(W, size, stride)
    y = np.empty((I, down, across, B), x.dtype, like=x)
    cuda.max_pool(y.size, y, x, y.size, H, W, B, size, stride, down, across)
    return batch_first(y)


@on_gpu(max_pool_gradient)
def max_pool_gradient_on_gpu(x, y, g, size, stride):
    x, y, g = batch_innermost(x), batch_innermost(y), batch_innermost(g)
    I, H, W, B = x.shape
    dx = np.empty_like(x)
    cuda.max_pool_gradient(x.size, dx, x, y, g, x.size, H, W, B, size, stride, *y.shape[1:3])
    return batch_first(dx)
