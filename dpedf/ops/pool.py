"""Pooling of images x[b,i,h,w], channel i, line h, column w; and of sequences x[b,i,w]."""

from math import prod

from dpedf.edf import CompNode
from dpedf.kernels import floats
from dpedf.kernels.pool import average_pool, average_pool_gradient, max_pool, max_pool_gradient
from dpedf.kernels.windows import Windows
from dpedf.ops.conv import as_images, expect_windows, pair, place
from dpedf.ops.tensor import Mean
from dpedf.ops.words import keep


class Pool(CompNode):
    """A number for each window of a channel.  Subclasses define pooled(x), gradient(x, y, g)."""

    axes, padding, dilation, ceil_mode = 2, 0, 1, False

    def __init__(self, x, size, stride=None, padding=0, dilation=1, ceil_mode=False):
        self.x, self.size, self.stride = x, size, size if stride is None else stride
        keep(self, padding=padding, dilation=dilation, ceil_mode=bool(ceil_mode))
        sizes = pair(self, "size", size, 1), pair(self, "stride", self.stride, 1)
        padding = pair(self, "padding", padding, 0, 0)
        dilation = pair(self, "dilation", dilation, 1)
        self.windows = Windows(*sizes, padding, dilation, self.ceil_mode)
        span, padding = (pairs[-self.axes :] for pairs in (self.windows.span, padding))
        if any(2 * p > size for p, size in zip(padding, span, strict=True)):
            found = f"{type(self).__name__} of windows of {span} with a padding of {padding}"
            raise ValueError(f"{found}, expected at most half as much")

    @property
    def lines(self):
        return self.windows.size[0]

    @property
    def columns(self):
        return self.windows.size[1]

    def forward(self):
        (x,) = as_images(*floats(self.x.value))
        expect_windows(x, self.windows, self.axes)
        y = self.pooled(x)
        self.value = y if self.axes == 2 else y[:, :, 0]

    def backward(self):
        dx = self.gradient(*as_images(self.x.value, self.value, self.grad))
        self.x.addgrad(dx if self.axes == 2 else dx[:, :, 0])

    def letters(self):
        """(y, x, over): the indices of both, and u,v."""
        x = ",".join(["b", "i", *place(self.windows, self.axes)])
        return f"b,i,{','.join('mn'[-self.axes :])}", x, ",".join("uv"[-self.axes :])

    def inside(self, more=(0, 0)):
        """1 where a place is in the image, or at most so far beside it; "" if all places are."""
        image, windows = self.x.value.shape[2:], self.windows
        sizes = zip(windows.padding[-self.axes :], more[-self.axes :], image, strict=True)
        found = []
        for at, (padding, p, n) in zip(place(windows, self.axes), sizes, strict=True):
            if p < padding:
                found.append(f"[{at} >= {-p}]")
            if p < padding or windows.beyond:
                found.append(f"[{at} < {n + p}]")
        return " ".join(found)


class MaxPool(Pool):
    """y[b,i,m,n] = max_u,v x[b,i,S m + u,S n + v]

    x.grad[b,i,S m + u,S n + v] += y.grad[b,i,m,n] [x[b,i,S m + u,S n + v] = y[b,i,m,n]]

    size: of u, v; stride: S, by default size; padding: so much of -inf beside x, on each side;
    dilation: D, with D u and D v in place of u and v; each a number, or one for each axis.
    ceil_mode: may the last windows reach further, if they begin before that?  Of several u, v that
    are largest the first alone counts.

    lines: U; columns: V; x: (B, I, H, W)
    """

    def pooled(self, x):
        return max_pool(x, self.windows)

    def gradient(self, x, y, g):
        return max_pool_gradient(x, y, g, self.windows)

    def equations(self):
        """Those of these windows: y[b,i,m,n] = max_u,v x[b,i,2 m + u,2 n + v]."""
        y, x, over = self.letters()
        inside = self.inside()
        seen = f"(x[{x}] + log({inside}))" if inside else f"x[{x}]"
        return f"""y[{y}] = max_{over} {seen}
        x.grad[{x}] += y.grad[{y}] [x[{x}] = y[{y}]]"""


class AveragePool(Pool):
    """y[b,i,m,n] = mean_u,v x[b,i,S m + u,S n + v]

    x.grad[b,i,S m + u,S n + v] += y.grad[b,i,m,n] / (U V)

    size: of u, v; stride: S, by default size; padding: so many zeros beside x, on each side; each a
    number, or one for each axis.  ceil_mode: may the last windows reach further, if they begin
    before that?  The mean is over what a window has of x and of the padding, or if
    count_include_pad is false, of x alone.

    lines: U; columns: V; x: (B, I, H, W)
    """

    count_include_pad = True

    def __init__(self, x, size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
        super().__init__(x, size, stride, padding, ceil_mode=ceil_mode)
        keep(self, count_include_pad=bool(count_include_pad))

    def pooled(self, x):
        return average_pool(x, self.windows, self.count_include_pad)

    def gradient(self, x, y, g):
        return average_pool_gradient(x, g, self.windows, self.count_include_pad)

    def equations(self):
        """Those of these windows: y[b,i,m,n] = mean_u,v x[b,i,2 m + u,2 n + v]."""
        y, x, over = self.letters()
        counted = self.inside(self.windows.padding if self.count_include_pad else (0, 0))
        counted = f"(sum_{over} {counted})" if counted else prod(self.windows.size)
        kind, share = ("mean", "") if isinstance(counted, int) else ("sum", f" / {counted}")
        return f"""y[{y}] = {kind}_{over} x[{x}]{share}
        x.grad[{x}] += y.grad[{y}] / {counted}"""


class MaxPool1D(MaxPool):
    """y[b,i,n] = max_v x[b,i,S n + v]

    x.grad[b,i,S n + v] += y.grad[b,i,n] [x[b,i,S n + v] = y[b,i,n]]

    size: of v; stride: S, by default size; and so on, all as in MaxPool, of one axis.

    columns: V; x: (B, I, W)
    """

    axes = 1


class AveragePool1D(AveragePool):
    """y[b,i,n] = mean_v x[b,i,S n + v]

    x.grad[b,i,S n + v] += y.grad[b,i,n] / V

    size: of v; stride: S, by default size; and so on, all as in AveragePool, of one axis.

    columns: V; x: (B, I, W)
    """

    axes = 1


class GlobalAveragePool(Mean):
    """y[b,i] = mean_... x[b,i,...], over the lines and columns of an image, or over a sequence

    x.grad[b,i,...] += y.grad[b,i] / N

    N: of how many numbers each mean is

    x: (B, I, ...); y: (B, I)
    """

    def __init__(self, x):
        self.x = x

    def forward(self):
        if self.x.value.ndim not in (3, 4):
            raise ValueError("expected x (B, I, H, W) or (B, I, W)")
        self.axis = tuple(range(2 - self.x.value.ndim, 0))
        super().forward()
