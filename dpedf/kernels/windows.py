"""Windows of images x, (B, I, H, W), as matrices; and of each place, the sum over its windows.

For a CPU, b is the innermost index in memory, (I, H, W, B): NumPy works along rows as long as the
minibatch, and one product gives all channels of many windows.  For a GPU, b is the first index:
what a row of x becomes are rows of a matrix, and slices lie one after the other.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dpedf.kernels import Kernels, function, on_gpu, packed, strides_of

cuda = Kernels("windows.cu")


def batch_innermost(x):
    """x with the indices (I, H, W, B), in this order in memory."""
    return packed(x.transpose(1, 2, 3, 0))


def batch_first(x):
    return x.transpose(3, 0, 1, 2)


@dataclass(frozen=True)
class Windows:
    """How windows stand over images: of each pair, the first number is down, the second across.

    size: (U, V); stride: from a window to the next; padding: how far they may reach beside the
    image, on each side; dilation: from a place that a window sees to the next; beyond: may the
    last ones reach further, if they begin before that?
    """

    size: tuple
    stride: tuple = (1, 1)
    padding: tuple = (0, 0)
    dilation: tuple = (1, 1)
    beyond: bool = False

    @cached_property
    def span(self):
        """How many lines and columns there are from the first to the last that a window sees."""
        return tuple(d * (n - 1) + 1 for n, d in zip(self.size, self.dilation, strict=True))

    @cached_property
    def beside(self):
        """May they see what is beside an image?"""
        return self.beyond or self.padding != (0, 0)

    def over(self, H, W):
        """(down, across): how many stand over an image of H x W."""
        (h, w), (s, t), (p, q), more = self.span, self.stride, self.padding, self.beyond
        return windows_along(H, h, s, p, more), windows_along(W, w, t, q, more)


def windows_along(size, span, stride, padding=0, beyond=False):
    """How many windows stand over so many lines or columns."""
    over, rest = divmod(size + 2 * padding - span, stride)
    number = over + 1  # below 1 where even the first one does not fit
    if beyond and rest and number * stride < size + padding:
        number += 1
    return max(0, number)


def within(x, windows):
    """(down, across): how many windows fit into images x, (I, H, W, B), which are padded."""
    (h, w), (s, t) = windows.span, windows.stride
    return windows_along(x.shape[1], h, s), windows_along(x.shape[2], w, t)


def padded(x, windows, number=0):
    """x, (I, H, W, B), in the middle of what windows see, with this number beside it."""
    if not windows.beside:
        return x
    (I, H, W, B), (p, q), (s, t), (h, w) = x.shape, windows.padding, windows.stride, windows.span
    down, across = windows.over(H, W)
    high, broad = max(H + 2 * p, (down - 1) * s + h), max(W + 2 * q, (across - 1) * t + w)
    wide = np.zeros((I, high, broad, B), x.dtype, like=x)
    if number:
        wide.fill(number)
    wide[:, p : p + H, q : q + W] = x
    return wide


def unpadded(x, H, W, windows):
    p, q = windows.padding
    return x[:, p : p + H, q : q + W]


def seen_by(x, windows, low, high):
    """A view (I, U, V, H', W', B) of x: what the windows of the lines low:high see."""
    i, h, w, b = x.strides
    (U, V), (s, t), (d, e) = windows.size, windows.stride, windows.dilation
    shape = x.shape[0], U, V, high - low, within(x, windows)[1], x.shape[3]
    strides = i, d * h, e * w, s * h, t * w, b
    return np.lib.stride_tricks.as_strided(x[:, low * s :], shape, strides)


def taps(x, windows):
    """Yield views (I, H', W', B) of x, (I, H, W, B): what the windows have at each (u, v)."""
    (U, V), (s, t), (d, e) = windows.size, windows.stride, windows.dilation
    down, across = within(x, windows)
    for u in range(0, d * U, d):
        for v in range(0, e * V, e):
            yield x[:, u : u + (down - 1) * s + 1 : s, v : v + (across - 1) * t + 1 : t]


@function
def columns(x, windows, low, high, S):
    """What the windows of the lines low:high see of x, as matrices (S, I U V, H' W' b).

    S: how many equal slices the B rows of x are, of b rows.
    """
    seen = seen_by(x, windows, low, high)
    I, U, V, down, across, B = seen.shape
    if S > 1:
        seen = np.moveaxis(seen.reshape(I, U, V, down, across, S, B // S), 5, 0)
    return packed(seen.reshape(S, I * U * V, down * across * (B // S)))


def add_columns(x, seen, windows, low, high):
    """Add seen, which has the numbers of columns(...), to x, where columns reads it."""
    (I, H, W, B), S, (U, V) = x.shape, len(seen), windows.size
    (s, t), (d, e) = windows.stride, windows.dilation
    down, across = high - low, within(x, windows)[1]
    if S > 1:  # one more index costs time
        x = x.reshape(I, H, W, S, B // S)
        seen = np.moveaxis(seen.reshape(S, I, U, V, down, across, B // S), 0, 5)
    else:
        seen = seen.reshape(I, U, V, down, across, B)
    for u in range(U):
        lines = slice(low * s + d * u, (high - 1) * s + d * u + 1, s)
        for v in range(V):
            part = x[:, lines, e * v : e * v + (across - 1) * t + 1 : t]
            part += seen[:, u, v]


@function
def patches(x, windows):
    """(B, H', W', I, U, V): what windows see of x, (B, I, H, W), and 0 beside it; packed"""
    wide = padded(batch_innermost(x), windows)
    seen = seen_by(wide, windows, 0, within(wide, windows)[0])
    return packed(seen.transpose(5, 3, 4, 0, 1, 2))


@on_gpu(patches)
def patches_on_gpu(x, windows):
    sizes = compiled_in(x, windows)
    shape = len(x), sizes["DOWN"], sizes["ACROSS"], x.shape[1], *windows.size
    seen = np.empty(shape, x.dtype, like=x)
    cuda.patches(seen.size, x, seen, seen.size, *strides_of(x), **sizes)
    return seen


@function
def sum_of_patches(x, seen, windows):
    """Leave in x, (B, I, H, W), at each place the sum of seen over it, of the shape of patches."""
    B, down, across, I, U, V = seen.shape
    sums = padded(np.zeros_like(batch_innermost(x)), windows)
    seen = packed(seen.transpose(3, 4, 5, 1, 2, 0)).reshape(1, I * U * V, down * across * B)
    add_columns(sums, seen, windows, 0, down)
    x[...] = batch_first(unpadded(sums, *x.shape[2:], windows))


@on_gpu(sum_of_patches)
def sum_of_patches_on_gpu(x, seen, windows):
    sizes = compiled_in(x, windows)
    cuda.sum_of_patches(x.size, x, seen, x.size, *strides_of(x), **sizes)


def compiled_in(x, windows):
    """The sizes of images x and of their windows, by the names that kernels have for them."""
    (_, I, H, W), (U, V), (down, across) = x.shape, windows.size, windows.over(*x.shape[2:])
    (s, t), (p, q), (d, e) = windows.stride, windows.padding, windows.dilation
    sizes = {"I": I, "H": H, "W": W, "U": U, "V": V, "DOWN": down, "ACROSS": across}
    sizes |= {"STRIDE_H": s, "STRIDE_W": t, "PADDING_H": p, "PADDING_W": q}
    return sizes | {"DILATION_H": d, "DILATION_W": e, "BESIDE": int(windows.beside)}
