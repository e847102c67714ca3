"""Convolution of images x, (B, I, H, W), as products of matrices.

Channels may be in G groups of I, x: (B, G I, H, W).  W is (J, I, U, V), and its first J / G kernels
see the first group.

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
    padded,
    patches,
    sum_of_patches,
    unpadded,
    within,
)

KEPT = 1 << 25  # numbers of patches, at most, that a GPU keeps for the backward pass


@function
def at_a_time(x):
    """How many numbers of columns are computed at a time."""
    return 1 << 18


@on_gpu(at_a_time)
def at_a_time_on_gpu(x):
    return 1 << 25


def portions(x, W, windows, slices):
    """Yield, of each portion that is computed at a time, (S, rows, x of these, padded, lines).

    It has all lines of windows of S slices, as many as fit, or so many lines of one slice.
    x: (B, I, H, W), and of them (I, H, W, b).
    """
    (down, across), B, v = windows.over(*x.shape[2:]), len(x), 0
    numbers = x.shape[1] * prod(windows.size) * across
    while v < len(slices):
        rows = slices.rows(v, B)
        lines = at_a_time(x) // max(1, numbers * (rows.stop - rows.start))
        S = min(max(1, lines // max(1, down)), len(slices) - v) if slices.equal else 1
        rows = slice(rows.start, slices.rows(v + S - 1, B).stop)
        yield S, rows, padded(batch_innermost(x[rows]), windows), max(1, min(lines, down))
        v += S


def matrices(x, S):
    """x, (J, H', W', B), as matrices (S, J, H' W' b), of S equal slices of its rows."""
    J, H, W, B = x.shape
    if S == 1:
        return x.reshape(1, J, H * W * B)
    by_slice = np.moveaxis(x.reshape(J, H, W, S, B // S), 3, 0)
    return packed(by_slice.reshape(S, J, H * W * (B // S)))


def by_group(x, groups):
    """Matrices x, (..., J, N), as (..., G, J / G, N)."""
    *lead, J, N = x.shape
    return x.reshape(*lead, groups, J // groups, N)


@function
def convolution(x, W, C, windows, slices):
    """(y, seen): the value of a Conv2D of x, W and C, where each slice has products of its own.

    C: None if there is none.  seen: what convolution_gradients may use again, or None.
    """
    parts = portions(x, W, windows, slices)
    pieces = [convolved(part, W, C, windows, S, lines) for S, _, part, lines in parts]
    return batch_first(joined(pieces, axis=3)), None


def joined(pieces, axis):
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis)


def convolved(x, W, C, windows, S, lines):
    """The value of a Conv2D, (J, H', W', B), of S equal slices x, (I, H, W, B)."""
    J, B, G, (down, across) = len(W), x.shape[3], len(x) // W.shape[1], within(x, windows)
    y = np.empty((J, down, across, B), x.dtype, like=x)
    matrix, C = by_group(as_matrix(W, 3), G), C if C is None else C.reshape(G, J // G, 1)
    for low in range(0, down, lines):
        high = min(low + lines, down)
        seen = by_group(columns(x, windows, low, high, S), G)
        here = by_group(matrices(y[:, low:high], 1), G) if S == 1 else None
        out = product(matrix, seen, here)
        if C is not None:
            out -= C
        if S > 1:  # which have all lines at a time
            out = out.reshape(S, J, down, across, B // S)
            y.reshape(J, down, across, S, B // S)[...] = np.moveaxis(out, 0, 3)
    return y


@function
def convolution_gradients(x, seen, Phi, g, windows, varies, slices):
    """Add W.grad and C.grad of a Conv2D whose grad is g; return x.grad, or None unless x varies.

    seen: as convolution returned it; None: it is computed again.  Phi: W and C, as nodes w and b,
    of which the second may be missing.  The shape of W may lack an index of size 1.
    """
    pieces, (J, I, *_), C = [], Phi.w.value.shape, getattr(Phi, "b", None)
    W = Phi.w.value.reshape(J, I, *windows.size)
    for S, rows, part, lines in portions(x, W, windows, slices):
        asked = varies, Phi.w.varies, C is not None, S, lines
        pieces.append(gradients(part, W, batch_innermost(g[rows]), windows, *asked))
    dx, dW, sums = zip(*pieces, strict=True)
    Phi.w.addslices(slices.all, joined(dW, axis=0).reshape(len(slices), *Phi.w.value.shape))
    if C is not None:
        C.addslices(slices.all, -joined(sums, axis=0))
    return batch_first(unpadded(joined(dx, axis=3), *x.shape[2:], windows)) if varies else None


def gradients(x, W, g, windows, varies, learns, has_bias, S, lines):
    """(x.grad, W.grad, sum of g) of S equal slices x, padded; x.grad is None unless x varies.

    learns: does W vary?  If not, its gradient is 0.  has_bias: is the sum asked for?
    The last two are of each slice, with its index first.
    """
    (J, down, across, B), G = g.shape, len(x) // W.shape[1]
    g, line, matrix = by_group(matrices(g, S), G), across * B // S, by_group(as_matrix(W, 3), G)
    dx = np.zeros_like(x) if varies else None
    dW = np.zeros_like(matrix, shape=(S, *matrix.shape))
    for low in range(0, down, lines):
        high = min(low + lines, down)
        part = g[..., low * line : high * line]
        if learns:
            seen = by_group(columns(x, windows, low, high, S), G)
            product(part, seen.swapaxes(2, 3), out=dW, add=True)
        if varies:
            add_columns(dx, product(matrix.swapaxes(1, 2), part), windows, low, high)
    return dx, dW, g.sum(axis=3).reshape(S, J) if has_bias else None


def pieces_of(x, W, windows, slices):
    """(slice, rows) of each piece that is computed at a time, or None: all slices are, at once.

    Where a slice is cut depends on its sizes alone, and so do its bits.  Groups are computed by
    pieces, each a product of theirs.
    """
    numbers = x.shape[1] * prod(windows.size) * prod(windows.over(*x.shape[2:]))
    most = max(1, at_a_time(x) // max(1, numbers))
    each = [slices.rows(v, len(x)) for v in range(len(slices))]
    if x.shape[1] == W.shape[1] and all(rows.stop - rows.start <= most for rows in each):
        return None
    return [
        (v, slice(low, min(low + most, rows.stop)))
        for v, rows in enumerate(each)
        for low in range(rows.start, max(rows.start + 1, rows.stop), most)
    ]


def as_matrix(x, count):
    """x with the last count indices as one, and those before as one."""
    return x.reshape(prod(x.shape[:-count]), prod(x.shape[-count:]))


def apart(rows, groups):
    """Rows (N, G K), of groups one after the other, as (G, N, K)."""
    N, numbers = rows.shape
    return rows.reshape(N, groups, numbers // groups).swapaxes(0, 1)


@on_gpu(convolution)
def convolution_on_gpu(x, W, C, windows, slices):
    matrix, pieces = as_matrix(W, 3), pieces_of(x, W, windows, slices)
    shape, groups = (len(x), *windows.over(*x.shape[2:]), len(W)), x.shape[1] // W.shape[1]
    if pieces is None:
        seen = patches(x, windows)
        rows = as_matrix(seen, 3), matrix.T
        y = product_of_rows(*rows, slices) if C is None else affine_of_rows(*rows, C, slices)
        y = y.reshape(shape)
    else:
        y, seen = np.empty(shape, x.dtype, like=x), None
        for _, rows in pieces:
            part, out = as_matrix(patches(x[rows], windows), 3), as_matrix(y[rows], 1)
            if groups == 1 and C is not None:
                affine(part, matrix.T, C, out)
                continue
            out = apart(out, groups)
            out[...] = product(apart(part, groups), by_group(matrix, groups).swapaxes(1, 2))
            if C is not None:
                out -= C.reshape(groups, 1, len(C) // groups)
    return y.transpose(0, 3, 1, 2), seen if seen is not None and seen.size <= KEPT else None


@on_gpu(convolution_gradients)
def convolution_gradients_on_gpu(x, seen, Phi, g, windows, varies, slices):
    (J, I, *_), W, C = Phi.w.value.shape, Phi.w.value, getattr(Phi, "b", None)
    matrix, groups = W.reshape(J, I * prod(windows.size)), x.shape[1] // I
    g = packed(g.transpose(0, 2, 3, 1))
    dx, pieces = np.empty_like(x) if varies else None, pieces_of(x, W, windows, slices)
    if C is not None:
        C.addrows(as_matrix(g, 1), -1)
    if pieces is None:
        seen = patches(x, windows) if seen is None else seen
        Phi.w.addproduct(as_matrix(g, 1), as_matrix(seen, 3))
        if varies:
            spread = product_of_rows(as_matrix(g, 1), matrix, slices)
            sum_of_patches(dx, spread.reshape(seen.shape), windows)
        return dx
    dW, last, matrix = parts_of(np.expand_dims(W, 0), len(slices)), None, by_group(matrix, groups)
    for v, rows in pieces:
        part, seen = apart(as_matrix(g[rows], 1), groups), patches(x[rows], windows)
        its = apart(as_matrix(seen, 3), groups)
        product(part.swapaxes(1, 2), its, dW[v].reshape(matrix.shape), add=v == last)
        if varies:
            spread = packed(product(part, matrix).swapaxes(0, 1)).reshape(seen.shape)
            sum_of_patches(dx[rows], spread, windows)
        last = v
    Phi.w.addslices(slices.all, dW)
    return dx
