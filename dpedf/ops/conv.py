"""Convolution and pooling, of images x[b,i,h,w]: channel i, line h, column w."""

from dpedf.edf import CompNode, context
from dpedf.kernels import floats
from dpedf.kernels.conv import convolution, convolution_gradients
from dpedf.kernels.pool import average_pool, average_pool_gradient, max_pool, max_pool_gradient
from dpedf.ops.indices import whole


def one(node, sizes):
    """The size of windows, or of their steps, along both axes: a number, or the same one twice."""
    numbers = whole(node, sizes)
    if len(set(numbers)) != 1 or len(numbers) > 2:
        raise ValueError(f"{type(node).__name__} by {sizes}, expected one size for both axes")
    return numbers[0]


def expect_windows(x, sizes, stride, padding=0):
    """ValueError: windows of these sizes do not fit into the images x, or do not move."""
    if stride < 1 or min(sizes) < 1 or padding < 0:
        found = f"{tuple(sizes)}, {stride} and {padding}"
        raise ValueError(f"expected windows and a stride of 1 or more, and padding, not {found}")
    room = [n + 2 * padding for n in x.shape[2:]]
    if any(size > n for size, n in zip(sizes, room, strict=True)):
        raise ValueError(f"expected windows of at most {tuple(room)}, not {tuple(sizes)}")


class Conv2D(CompNode):
    """y[b,j,m,n] = sum_i,u,v x[b,i,S m + u - P,S n + v - P] W[j,i,u,v] - C[j]

    W.grad[j,i,u,v] += sum_b,m,n x[b,i,S m + u - P,S n + v - P] y.grad[b,j,m,n]
    C.grad[j] -= sum_b,m,n y.grad[b,j,m,n]
    x.grad[b,i,S m + u - P,S n + v - P] += sum_j y.grad[b,j,m,n] W[j,i,u,v]

    stride: S; padding: P, the zeros on each side of x; windows that x does not fill are left out

    Phi.w: W, (J, I, U, V); Phi.b: C, (J,); x: (B, I, H, W)
    """

    def __init__(self, Phi, x, stride=1, padding=0):
        self.Phi, self.x = Phi, x
        self.stride, self.padding = one(self, stride), one(self, padding)

    def forward(self):
        x, W = floats(self.x.value, self.Phi.w.value)
        expect_windows(x, W.shape[2:], self.stride, self.padding)
        how = self.stride, self.padding
        self.value, seen = convolution(x, W, self.Phi.b.value, *how, context.slices)
        self.seen = seen if context.train and self.varies else None  # it takes much memory

    def backward(self):
        x, how = self.x, (self.stride, self.padding, self.x.varies, context.slices)
        value, g = floats(x.value, self.grad)
        dx = convolution_gradients(value, self.seen, self.Phi, g, *how)
        self.seen = None
        if x.varies:
            x.addgrad(dx)


class Pool(CompNode):
    """One number for each window, size by size, of a channel.  Subclasses define pooled(x)."""

    def __init__(self, x, size, stride=None):
        self.x, self.size = x, one(self, size)
        self.stride = self.size if stride is None else one(self, stride)

    def forward(self):
        expect_windows(self.x.value, (self.size, self.size), self.stride)
        self.value = self.pooled(self.x.value)


class MaxPool(Pool):
    """y[b,i,m,n] = max_u,v x[b,i,S m + u,S n + v]

    x.grad[b,i,S m + u,S n + v] += y.grad[b,i,m,n] [x[b,i,S m + u,S n + v] = y[b,i,m,n]]

    size: U, V; stride: S, by default size; of several u, v that are largest the first alone counts

    x: (B, I, H, W)
    """

    def pooled(self, x):
        return max_pool(*floats(x), self.size, self.stride)

    def backward(self):
        x = self.x
        x.addgrad(max_pool_gradient(x.value, self.value, self.grad, self.size, self.stride))


class AveragePool(Pool):
    """y[b,i,m,n] = mean_u,v x[b,i,S m + u,S n + v]

    x.grad[b,i,S m + u,S n + v] += y.grad[b,i,m,n] / size**2

    size: U, V; stride: S, by default size

    x: (B, I, H, W)
    """

    def pooled(self, x):
        return average_pool(*floats(x), self.size, self.stride)

    def backward(self):
        x = self.x
        x.addgrad(average_pool_gradient(x.value, self.grad, self.size, self.stride))
