"""Convolution of images x[b,i,h,w], channel i, line h, column w; and of sequences x[b,i,w]."""

from dataclasses import replace

import numpy as np

from dpedf.edf import CompNode, context
from dpedf.kernels import floats
from dpedf.kernels.conv import convolution, convolution_gradients
from dpedf.kernels.windows import Windows
from dpedf.ops.indices import is_whole, whole_one
from dpedf.ops.words import keep


def pair(node, word, numbers, least, without=1):
    """(down, across): the stride, say, of a node: of numbers for each of its axes, or one for all.

    without: what it is down, if the node has one axis alone.  ValueError: they are none.
    """
    found = tuple(numbers) if np.ndim(numbers) else (numbers,)
    known = len(found) in (1, node.axes) and all(map(is_whole, found))
    if not known or min(found) < least:
        expected = f"a {word} of {least} or more, one whole number{' or two' * (node.axes - 1)}"
        raise ValueError(f"{type(node).__name__} by {numbers}, expected {expected}")
    return int(found[0]) if node.axes == 2 else without, int(found[-1])


def as_images(*arrays):
    """Each of these, of sequences (..., W), as of images of one line, (..., 1, W)."""
    return [x if x.ndim == 4 else np.expand_dims(x, 2) for x in arrays]


def expect_windows(x, windows, axes):
    """ValueError: not even one of these windows stands over the images x."""
    if not all(windows.over(*x.shape[2:])):
        room = [n + 2 * p for n, p in zip(x.shape[2:], windows.padding, strict=True)]
        most, found = tuple(room[-axes:]), windows.span[-axes:]
        raise ValueError(f"expected windows of at most {most}, not {found}")


def place(windows, axes):
    """Where windows look, as the last indices of x: ["2 m + 1 u - 1", "2 n + 1 v - 1"]."""

    def times(factor, letter):
        return letter if factor == 1 else f"{factor} {letter}"

    along = zip("mn", "uv", windows.stride, windows.dilation, windows.padding, strict=True)
    return [f"{times(s, m)} + {times(d, u)}" + f" - {p}" * (p > 0) for m, u, s, d, p in along][
        -axes:
    ]


class Conv2D(CompNode):
    """y[b,j,m,n] = sum_i,u,v x[b,i,S m + D u - P,S n + D v - P] W[j,i,u,v] - C[j]

    W.grad[j,i,u,v] += sum_b,m,n x[b,i,S m + D u - P,S n + D v - P] y.grad[b,j,m,n]
    C.grad[j] -= sum_b,m,n y.grad[b,j,m,n]
    x.grad[b,i,S m + D u - P,S n + D v - P] += sum_j y.grad[b,j,m,n] W[j,i,u,v]

    stride: S; padding: P, the zeros on each side of x; dilation: D; each a number, or one for each
    axis.  Windows that x does not fill are left out.  groups: G, equal parts of the channels, and
    of the kernels W[j], of which each sees the channels of its part.  Without Phi.b, C is 0.

    Phi.w: W, (J, I, U, V); Phi.b: C, (J,); x: (B, GI, H, W)
    """

    axes, dilation, groups = 2, 1, 1

    def __init__(self, Phi, x, stride=1, padding=0, dilation=1, groups=1):
        self.Phi, self.x, self.stride, self.padding = Phi, x, stride, padding
        keep(self, dilation=dilation, groups=whole_one(self, groups))
        stride, dilation = pair(self, "stride", stride, 1), pair(self, "dilation", dilation, 1)
        self.windows = Windows((0, 0), stride, pair(self, "padding", padding, 0, 0), dilation)
        if self.groups < 1:
            raise ValueError(f"{type(self).__name__} by {groups}, expected 1 or more groups")

    @property
    def bias(self):
        return getattr(self.Phi, "b", None)

    def forward(self):
        x, W = as_images(*floats(self.x.value, self.Phi.w.value))
        (J, I), groups = W.shape[:2], self.groups
        if x.shape[1] != groups * I:
            each = f", {groups} groups of {I}" * (groups > 1)
            raise ValueError(f"expected x of {groups * I} channels{each}, not {x.shape[1]}")
        if J % groups:
            raise ValueError(f"expected a multiple of {groups} kernels, one a group, not {J}")
        if self.windows.size != W.shape[2:]:
            self.windows = replace(self.windows, size=W.shape[2:])
        expect_windows(x, self.windows, self.axes)
        C = getattr(self.bias, "value", None)
        y, seen = convolution(x, W, C, self.windows, context.slices)
        self.value = y if self.axes == 2 else y[:, :, 0]
        self.seen = seen if context.train and self.varies else None  # it takes much memory

    def backward(self):
        x, g = as_images(*floats(self.x.value, self.grad))
        how = self.windows, self.x.varies, context.slices
        dx = convolution_gradients(x, self.seen, self.Phi, g, *how)
        self.seen = None
        if self.x.varies:
            self.x.addgrad(dx if self.axes == 2 else dx[:, :, 0])

    def equations(self):
        """Those of these arguments: y[b,j,m,n] = sum_i,u,v x[b,i,2 m + u,2 n + v] W[j,i,u,v]."""
        mn, uv = ",".join("mn"[-self.axes :]), ",".join("uv"[-self.axes :])
        k, j, i = ("j", "j", "i") if self.groups == 1 else ("k", "K g + k", "I g + i")
        x = ",".join(["b", i, *place(self.windows, self.axes)])
        y, W, C = f"b,{j},{mn}", f"{j},i,{uv}", self.bias is not None
        return f"""y[{y}] = sum_i,{uv} x[{x}] W[{W}]{f" - C[{j}]" * C}
        K = J / G

        W.grad[{W}] += sum_b,{mn} x[{x}] y.grad[{y}]
        {f"C.grad[{j}] -= sum_b,{mn} y.grad[{y}]" * C}
        x.grad[{x}] += sum_{k} y.grad[{y}] W[{W}]"""


class Conv1D(Conv2D):
    """y[b,j,n] = sum_i,v x[b,i,S n + D v - P] W[j,i,v] - C[j]

    W.grad[j,i,v] += sum_b,n x[b,i,S n + D v - P] y.grad[b,j,n]
    C.grad[j] -= sum_b,n y.grad[b,j,n]
    x.grad[b,i,S n + D v - P] += sum_j y.grad[b,j,n] W[j,i,v]

    stride: S; padding: P; dilation: D; groups: G.  All as in Conv2D, of one axis.

    Phi.w: W, (J, I, V); Phi.b: C, (J,); x: (B, GI, W)
    """

    axes = 1
