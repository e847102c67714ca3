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
def columns(x, U, V, stride, low, high, S):
    """What the windows of the lines low:high see of x, as matrices (S, I U V, H' W' b).

    S: how many equal slices the B rows of x are, of b rows.
    """
    seen = windows(x, U, V, stride, low, high)
    I, U, V, down, across, B = seen.shape
    if S > 1:
        seen = np.moveaxis(seen.reshape(I, U, V, down, across, S, B // S), 5, 0)
    return seen.reshape(S, I * U * V, down * across * (B // S))


@on_gpu(columns)
def columns_on_gpu(x, U, V, stride, low, high, S):
    (I, H, W, B), row = x.shape, x.strides[2] // x.itemsize
    across = windows_along(W, V, stride)
    seen = np.empty((S, I * U * V, (high - low) * across * (B // S)), x.dtype, like=x)
    sizes = seen.size, H, W, B // S, row, I, U, V, stride, low, high - low, across
    cuda.columns(seen.size, seen, x, *sizes)
    return seen


@function
def add_columns(x, seen, U, V, stride, low, high):
    """Add seen, which has the shape of columns(...), to x, where columns reads it."""
    (I, H, W, B), S = x.shape, len(seen)
    down, across = high - low, windows_along(W, V, stride)
    seen = seen.reshape(S, I, U, V, down, across, B // S)
    x = x.reshape(I, H, W, S, B // S)
    for u in range(U):
        lines = slice(low * stride + u, (high - 1) * stride + u + 1, stride)
        for v in range(V):
            part = x[:, lines, v : v + (across - 1) * stride + 1 : stride]
            part += np.moveaxis(seen[:, :, u, v], 0, 3)


@on_gpu(add_columns)
def add_columns_on_gpu(x, seen, U, V, stride, low, high):
    (I, H, W, B), row, S = x.shape, x.strides[2] // x.itemsize, len(seen)
    sizes = x.size, H, W, B // S, row, S, I, U, V, stride, low, high - low
    cuda.add_columns(x.size, x, seen, *sizes, windows_along(W, V, stride))


def batches(x, W, stride, slices):
    """Yield (these slices, their rows, low, high): what of x is computed at a time.

    That is as many slices as fit, with all lines of windows, or some lines of one slice.
    """
    (J, I, U, V), B = W.shape, x.shape[3]
    down, across = windows_along(x.shape[1], U, stride), windows_along(x.shape[2], V, stride)
    v = 0
    while v < len(slices):
        rows = slices.rows(v, B)
        line = max(1, I * U * V * across * (rows.stop - rows.start))  # numbers that one takes
        lines = max(1, at_a_time(x) // line)
        S = max(1, min(len(slices) - v, lines // max(1, down))) if slices.equal else 1
        rows = slice(rows.start, slices.rows(v + S - 1, B).stop)
        for low in range(0, down, lines):
            yield slice(v, v + S), rows, low, min(low + lines, down)
        v += S


def matrices(x, S):
    """x, (J, H', W', B), as matrices (S, J, H' W' b), of S equal slices of its rows."""
    J, H, W, B = x.shape
    by_slice = np.moveaxis(x.reshape(J, H, W, S, B // S), 3, 0)
    return packed(by_slice.reshape(S, J, H * W * (B // S)))


def convolution(x, W, C, stride, padding, slices):
    """The value of a Conv2D of x, W and C, where each slice of x has products of its own."""
    x, (J, I, U, V) = padded(batch_innermost(x), padding), W.shape
    B, across = x.shape[3], windows_along(x.shape[2], V, stride)
    y = np.empty((J, windows_along(x.shape[1], U, stride), across, B), x.dtype, like=x)
    matrix, C = W.reshape(J, I * U * V), np.expand_dims(C, 1)
    for these, rows, low, high in batches(x, W, stride, slices):
        S, out = these.stop - these.start, y[:, low:high, :, rows]
        in_place = matrices(out, S) if len(slices) == 1 else None
        made = product(matrix, columns(x[..., rows], U, V, stride, low, high, S), in_place)
        made -= C
        if in_place is None:
            b = out.shape[3] // S
            made = np.moveaxis(made.reshape(S, *out.shape[:3], b), 0, 3)
            out.reshape(*out.shape[:3], S, b)[...] = made
    return batch_first(y)


def convolution_gradients(x, W, g, stride, padding, varies, slices):
    """(x.grad, W.grad, sum of g) of a Conv2D whose grad is g; x.grad is None unless x varies.

    The last two are of each slice: (V, J, I, U, V'), (V, J).
    """
    x, g, (J, I, U, V) = padded(batch_innermost(x), padding), batch_innermost(g), W.shape
    matrix = W.reshape(J, I * U * V)
    dx = np.zeros_like(x) if varies else None
    dW = np.zeros_like(matrix, shape=(len(slices), *matrix.shape))
    sums = np.empty_like(matrix, shape=(len(slices), J))
    for these, rows, low, high in batches(x, W, stride, slices):
        S = these.stop - these.start
        if low == 0:
            sums[these] = matrices(g[..., rows], S).sum(axis=2)
        part, seen = matrices(g[:, low:high, :, rows], S), x[..., rows]
        seen = columns(seen, U, V, stride, low, high, S)
        product(part, seen.swapaxes(1, 2), out=dW[these], add=True)
        if varies:
            add_columns(dx[..., rows], product(matrix.T, part), U, V, stride, low, high)
    if varies:
        H, width = dx.shape[1] - padding, dx.shape[2] - padding
        dx = batch_first(dx[:, padding:H, padding:width])
    return dx, dW.reshape(len(slices), *W.shape), sums


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
