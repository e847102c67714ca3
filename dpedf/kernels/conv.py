"""Convolution of images x, (B, I, H, W), as products of matrices.

On a CPU b is the innermost index in memory, and a few lines of windows are computed at a time, so
that what a product reads stays in the cache.  On a GPU b is the first index and the channel the
last, (B, H, W, I), so slices are rows of a matrix one after the other, and the bias is that of an
Affine; what the windows see is kept for the backward pass, unless it is too large.
"""

from math import prod

import numpy as np

from dpedf.kernels import function, on_gpu, packed
from dpedf.kernels.gemm import affine, product
from dpedf.kernels.slices import affine_of_rows, parts_of, product_of_rows
from dpedf.kernels.windows import (
    add_columns,
    batch_first,
    batch_innermost,
    columns,
    down_and_across,
    padded,
    patches,
    sum_of_patches,
    unpadded,
    windows_along,
)

KEPT = 1 << 25  # numbers of patches, at most, that a GPU keeps for the backward pass


@function
def at_a_time(x):
    """How many numbers of columns are computed at a time."""
    return 1 << 18


@on_gpu(at_a_time)
def at_a_time_on_gpu(x):
    return 1 << 25


def groups(x, W, stride, padding, slices):
    """Yield, of each group that is computed at a time, (S, rows, x of these, padded, lines).

    It has all lines of windows of S slices, as many as fit, or so many lines of one slice.
    x: (B, I, H, W), and of them (I, H, W, b).
    """
    (I, U, V), B, v = W.shape[1:], len(x), 0
    down, across = down_and_across(x, U, V, stride, padding)
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


@function
def convolution(x, W, C, stride, padding, slices):
    """(y, seen): the value of a Conv2D of x, W and C, where each slice has products of its own.

    seen: what convolution_gradients may use again, or None.
    """
    parts = groups(x, W, stride, padding, slices)
    pieces = [convolved(part, W, C, stride, S, lines) for S, _, part, lines in parts]
    return batch_first(joined(pieces, axis=3)), None


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


@function
def convolution_gradients(x, seen, Phi, g, stride, padding, varies, slices):
    """Add W.grad and C.grad of a Conv2D whose grad is g; return x.grad, or None unless x varies.

    seen: as convolution returned it; None: it is computed again.  Phi: W and C, as nodes w and b.
    """
    pieces, W, learns = [], Phi.w.value, Phi.w.varies
    for S, rows, part, lines in groups(x, W, stride, padding, slices):
        asked = varies, learns, S, lines
        pieces.append(gradients(part, W, batch_innermost(g[rows]), stride, *asked))
    dx, dW, sums = zip(*pieces, strict=True)
    Phi.w.addslices(slices.all, joined(dW, axis=0).reshape(len(slices), *W.shape))
    Phi.b.addslices(slices.all, -joined(sums, axis=0))
    return batch_first(unpadded(joined(dx, axis=3), padding)) if varies else None


def gradients(x, W, g, stride, varies, learns, S, lines):
    """(x.grad, W.grad, sum of g) of S equal slices x, padded; x.grad is None unless x varies.

    learns: does W vary?  If not, its gradient is 0.
    The last two are of each slice, with its index first.
    """
    (J, down, across, B), (I, U, V) = g.shape, W.shape[1:]
    g, line, matrix = matrices(g, S), across * B // S, W.reshape(J, I * U * V)
    dx = np.zeros_like(x) if varies else None
    dW = np.zeros_like(matrix, shape=(S, *matrix.shape))
    for low in range(0, down, lines):
        high = min(low + lines, down)
        part = g[:, :, low * line : high * line]
        if learns:
            product(part, columns(x, U, V, stride, low, high, S).swapaxes(1, 2), out=dW, add=True)
        if varies:
            add_columns(dx, product(matrix.T, part), U, V, stride, low, high)
    return dx, dW, g.sum(axis=2)


def pieces_of(x, W, stride, padding, slices):
    """(slice, rows) of each piece that is computed at a time, or None: all slices are, at once.

    Where a slice is cut depends on its sizes alone, and so do its bits.
    """
    numbers = prod(W.shape[1:]) * prod(down_and_across(x, *W.shape[2:], stride, padding))
    most = max(1, at_a_time(x) // max(1, numbers))
    each = [slices.rows(v, len(x)) for v in range(len(slices))]
    if all(rows.stop - rows.start <= most for rows in each):
        return None
    return [
        (v, slice(low, min(low + most, rows.stop)))
        for v, rows in enumerate(each)
        for low in range(rows.start, max(rows.start + 1, rows.stop), most)
    ]


def as_matrix(x, count):
    """x with the last count indices as one, and those before as one."""
    return x.reshape(prod(x.shape[:-count]), prod(x.shape[-count:]))


@on_gpu(convolution)
def convolution_on_gpu(x, W, C, stride, padding, slices):
    how, matrix = (*W.shape[2:], stride, padding), as_matrix(W, 3).T
    pieces = pieces_of(x, W, stride, padding, slices)
    shape = len(x), *down_and_across(x, *how), len(W)
    if pieces is None:
        seen = patches(x, *how)
        y = affine_of_rows(as_matrix(seen, 3), matrix, C, slices).reshape(shape)
    else:
        y, seen = np.empty(shape, x.dtype, like=x), None
        for _, rows in pieces:
            affine(as_matrix(patches(x[rows], *how), 3), matrix, C, as_matrix(y[rows], 1))
    return y.transpose(0, 3, 1, 2), seen if seen is not None and seen.size <= KEPT else None


@on_gpu(convolution_gradients)
def convolution_gradients_on_gpu(x, seen, Phi, g, stride, padding, varies, slices):
    W = Phi.w.value
    how, matrix = (*W.shape[2:], stride, padding), as_matrix(W, 3)
    g = packed(g.transpose(0, 2, 3, 1))
    dx, pieces = np.empty_like(x) if varies else None, pieces_of(x, W, stride, padding, slices)
    Phi.b.addrows(as_matrix(g, 1), -1)
    if pieces is None:
        seen = patches(x, *how) if seen is None else seen
        Phi.w.addproduct(as_matrix(g, 1), as_matrix(seen, 3))
        if varies:
            spread = product_of_rows(as_matrix(g, 1), matrix, slices)
            sum_of_patches(dx, spread.reshape(seen.shape), stride, padding)
        return dx
    dW, last = parts_of(np.expand_dims(W, 0), len(slices)), None
    for v, rows in pieces:
        part, seen = as_matrix(g[rows], 1), patches(x[rows], *how)
        product(part.T, as_matrix(seen, 3), as_matrix(dW[v], 3), add=v == last)
        if varies:
            sum_of_patches(dx[rows], product(part, matrix).reshape(seen.shape), stride, padding)
        last = v
    Phi.w.addslices(slices.all, dW)
    return dx
