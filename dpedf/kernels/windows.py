"""Windows of images x, (B, I, H, W), as matrices; and of each place, the sum over its windows.

For a CPU, b is the innermost index in memory, (I, H, W, B): NumPy works along rows as long as the
minibatch, and one product gives all channels of many windows.  For a GPU, b is the first index:
what a row of x becomes are rows of a matrix, and slices lie one after the other.
"""

import numpy as np

from dpedf.kernels import Kernels, function, on_gpu, packed, strides_of

cuda = Kernels("windows.cu")


def batch_innermost(x):
    """x with the indices (I, H, W, B), in this order in memory."""
    return packed(x.transpose(1, 2, 3, 0))


def batch_first(x):
    return x.transpose(3, 0, 1, 2)


def windows_along(size, window, stride):
    """How many windows fit into so many lines or columns."""
    return max(0, (size - window) // stride + 1)


def down_and_across(x, U, V, stride, padding=0):
    """How many windows fit into a column, and into a line, of images x, (B, I, H, W)."""
    H, W = x.shape[2:]
    return windows_along(H + 2 * padding, U, stride), windows_along(W + 2 * padding, V, stride)


def padded(x, padding):
    """x, (I, H, W, B), with so many zeros on each side."""
    if not padding:
        return x
    I, H, W, B = x.shape
    wide = np.zeros((I, H + 2 * padding, W + 2 * padding, B), x.dtype, like=x)
    wide[:, padding : padding + H, padding : padding + W] = x
    return wide


def unpadded(x, padding):
    return x[:, padding : x.shape[1] - padding, padding : x.shape[2] - padding]


def windows(x, U, V, stride, low, high):
    """A view (I, U, V, H', W', B) of x: what the windows of the lines low:high see."""
    I, H, W, B = x.shape
    i, h, w, b = x.strides
    x = x[:, low * stride :]
    shape = I, U, V, high - low, windows_along(W, V, stride), B
    return np.lib.stride_tricks.as_strided(x, shape, (i, h, w, h * stride, w * stride, b))


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
def columns(x, U, V, stride, low, high, S):
    """What the windows of the lines low:high see of x, as matrices (S, I U V, H' W' b).

    S: how many equal slices the B rows of x are, of b rows.
    """
    seen = windows(x, U, V, stride, low, high)
    I, U, V, down, across, B = seen.shape
    if S > 1:
        seen = np.moveaxis(seen.reshape(I, U, V, down, across, S, B // S), 5, 0)
    return packed(seen.reshape(S, I * U * V, down * across * (B // S)))


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


@function
def patches(x, U, V, stride, padding):
    """y[b,m,n,i,u,v] = x[b,i,m stride + u - padding,n stride + v - padding], 0 beside x; packed"""
    wide = padded(batch_innermost(x), padding)
    seen = windows(wide, U, V, stride, 0, windows_along(wide.shape[1], U, stride))
    return packed(seen.transpose(5, 3, 4, 0, 1, 2))


@on_gpu(patches)
def patches_on_gpu(x, U, V, stride, padding):
    sizes = compiled_in(x, U, V, stride, padding)
    shape = len(x), sizes["DOWN"], sizes["ACROSS"], x.shape[1], U, V
    seen = np.empty(shape, x.dtype, like=x)
    cuda.patches(seen.size, x, seen, seen.size, *strides_of(x), **sizes)
    return seen


@function
def sum_of_patches(x, seen, stride, padding):
    """Leave in x, (B, I, H, W), at each place the sum of seen, of the shape of patches, over it.

    x[b,i,m stride + u - padding,n stride + v - padding] = sum of seen[b,m,n,i,u,v]
    """
    B, down, across, I, U, V = seen.shape
    sums = padded(np.zeros_like(batch_innermost(x)), padding)
    seen = packed(seen.transpose(3, 4, 5, 1, 2, 0)).reshape(1, I * U * V, down * across * B)
    add_columns(sums, seen, U, V, stride, 0, down)
    x[...] = batch_first(unpadded(sums, padding))


@on_gpu(sum_of_patches)
def sum_of_patches_on_gpu(x, seen, stride, padding):
    sizes = compiled_in(x, *seen.shape[4:], stride, padding)
    cuda.sum_of_patches(x.size, x, seen, x.size, *strides_of(x), **sizes)


def compiled_in(x, U, V, stride, padding):
    """The sizes of images x and of their windows, by the names that kernels have for them."""
    (_, I, H, W), (down, across) = x.shape, down_and_across(x, U, V, stride, padding)
    there = {"STRIDE": stride, "PADDING": padding, "DOWN": down, "ACROSS": across}
    return {"I": I, "H": H, "W": W, "U": U, "V": V, **there}
