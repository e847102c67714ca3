"""Convolution as products of matrices, and pooling: of images x, (B, I, H, W).

In memory b is the innermost index: (I, H, W, B).  So one product gives all channels of many
windows, and NumPy works along rows that are as long as the minibatch.  A few lines of windows are
computed at a time, so that what a product reads stays in the cache.
"""

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
    return packed(seen.reshape(S, I * U * V, down * across * (B // S)))


@on_gpu(columns)
def columns_on_gpu(x, U, V, stride, low, high, S):
    I, H, W, B = x.shape
    across = windows_along(W, V, stride)
    seen = np.empty((S, I * U * V, (high - low) * across * (B // S)), x.dtype, like=x)
    sizes = seen.size, H, W, S, B // S, I, U, V, stride, low, high - low, across
    cuda.columns(seen.size, seen, x, *sizes)
    return seen


@function
def add_columns(x, seen, U, V, stride, low, high):
    """Add seen, which has the shape of columns(...), to x, where columns reads it."""
    (I, H, W, B), S = x.shape, len(seen)
    down, across = high - low, windows_along(W, V, stride)
    if S > 1:  # one more index costs time
        x = x.reshape(I, H, W, S, B // S)
        seen = np.moveaxis(seen.reshape(S, I, U, V, down, across, B // S), 0, 5)
    else:
        seen = seen.reshape(I, U, V, down, across, B)
    for u in range(U):
        lines = slice(low * stride + u, (high - 1) * stride + u + 1, stride)
        for v in range(V):
            part = x[:, lines, v : v + (across - 1) * stride + 1 : stride]
            part += seen[:, u, v]


@on_gpu(add_columns)
def add_columns_on_gpu(x, seen, U, V, stride, low, high):
    (I, H, W, B), S = x.shape, len(seen)
    sizes = x.size, H, W, S, B // S, I, U, V, stride, low, high - low
    cuda.add_columns(x.size, x, seen, *sizes, windows_along(W, V, stride))


def groups(x, W, stride, padding, slices):
    """Yield (S slices, their rows, x of them, padded, lines of windows), for a time.

    These are all lines of as many slices as fit, or as many lines of one slice.
    x: (B, I, H, W), and of them (I, H, W, b).
    """
    (I, U, V), (B, _, H, width), v = W.shape[1:], x.shape, 0
    down = windows_along(H + 2 * padding, U, stride)
    across = windows_along(width + 2 * padding, V, stride)
    while v < len(slices):
        rows = slices.rows(v, B)
        lines = at_a_time(x) // max(1, I * U * V * across * (rows.stop - rows.start))
        S = min(max(1, lines // max(1, down)), len(slices) - v) if slices.equal else 1
        rows = slice(rows.start, slices.rows(v + S - 1, B).stop)
        yield S, rows, padded(batch_innermost(x[rows]), padding), max(1, min(lines, down))
        v += S


def matrices(x, S):
    """x, (J, H', W', B), as matrices (S, J, H' W' b), of S equal slices of its rows."""
    J, H, W, B = x.shape
    if S == 1:
        return x.reshape(1, J, H * W * B)
    by_slice = np.moveaxis(x.reshape(J, H, W, S, B // S), 3, 0)
    return packed(by_slice.reshape(S, J, H * W * (B // S)))


def convolution(x, W, C, stride, padding, slices):
    """The value of a Conv2D of x, W and C, where each slice of x has products of its own."""
    parts = groups(x, W, stride, padding, slices)
    pieces = [convolved(part, W, C, stride, S, lines) for S, _, part, lines in parts]
    return batch_first(joined(pieces, axis=3))


def joined(pieces, axis):
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis)


def convolved(x, W, C, stride, S, lines):
    """The value of a Conv2D, (J, H', W', B), of S equal slices x, (I, H, W, B)."""
    (J, I, U, V), B = W.shape, x.shape[3]
    down, across = windows_along(x.shape[1], U, stride), windows_along(x.shape[2], V, stride)
    y = np.empty((J, down, across, B), x.dtype, like=x)
    matrix, C = W.reshape(J, I * U * V), np.expand_dims(C, 1)
    for low in range(0, down, lines):
        high = min(low + lines, down)
        seen = columns(x, U, V, stride, low, high, S)
        out = product(matrix, seen, matrices(y[:, low:high], 1) if S == 1 else None)
        out -= C
        if S > 1:  # which have all lines at a time
            out = out.reshape(S, J, down, across, B // S)
            y.reshape(J, down, across, S, B // S)[...] = np.moveaxis(out, 0, 3)
    return y


def convolution_gradients(x, W, g, stride, padding, varies, slices):
    """(x.grad, W.grad, sum of g) of a Conv2D whose grad is g; x.grad is None unless x varies.

    The last two are of each slice, with its index first.
    """
    pieces = []
    for S, rows, part, lines in groups(x, W, stride, padding, slices):
        pieces.append(gradients(part, W, batch_innermost(g[rows]), stride, varies, S, lines))
    dx, dW, sums = zip(*pieces, strict=True)
    dW, sums = joined(dW, axis=0).reshape(len(slices), *W.shape), joined(sums, axis=0)
    if not varies:
        return None, dW, sums
    dx = joined(dx, axis=3)
    H, width = dx.shape[1] - padding, dx.shape[2] - padding
    return batch_first(dx[:, padding:H, padding:width]), dW, sums


def gradients(x, W, g, stride, varies, S, lines):
    """(x.grad, W.grad, sum of g), as convolution_gradients, of S equal slices x, padded."""
    (J, down, across, B), (I, U, V) = g.shape, W.shape[1:]
    g, line, matrix = matrices(g, S), across * B // S, W.reshape(J, I * U * V)
    dx = np.zeros_like(x) if varies else None
    dW = np.zeros_like(matrix, shape=(S, *matrix.shape))
    for low in range(0, down, lines):
        high = min(low + lines, down)
        part = g[:, :, low * line : high * line]
        product(part, columns(x, U, V, stride, low, high, S).swapaxes(1, 2), out=dW, add=True)
        if varies:
            add_columns(dx, product(matrix.T, part), U, V, stride, low, high)
    return dx, dW, g.sum(axis=2)


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
