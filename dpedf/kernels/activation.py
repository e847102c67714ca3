"""Activations with long formulas, computed a part at a time, which stays in the cache."""

from math import pi, sqrt

import numpy as np

from dpedf.kernels import Kernels, function, on_gpu, packed, packed_as, packed_for, selected

cuda = Kernels("activation.cu")
CACHED = 1 << 14  # numbers computed at a time
SLOPE, CUBE, FLAT = sqrt(2 / pi), 0.044715, 100.0


def sigmoid(x, out=None):
    """1 / (1 + exp(-x)), written into out if it is given; out may be x"""
    y = np.negative(x, out=np.empty_like(x) if out is None else out)
    with np.errstate(over="ignore"):  # where exp is infinite, the result is 0
        np.exp(y, out=y)
    y += 1
    return np.divide(1, y, out=y)  # faster than np.reciprocal


def parts(*arrays):
    """Yield parts of packed arrays of one shape, as vectors of at most CACHED numbers."""
    vectors = [x.reshape(-1) for x in arrays]
    for low in range(0, vectors[0].size, CACHED):
        yield [x[low : low + CACHED] for x in vectors]


@function
def relu(x):
    """y = max(x, 0)"""
    return np.maximum(x, 0)


@on_gpu(relu)
def relu_on_gpu(x):
    return np.maximum(x, 0, out=np.empty_like(x))  # in the memory order of x


@function
def relu_gradient(y, g):
    """g where y is not 0, but positive or nan, else 0; y: of relu, without gaps in memory"""
    return selected(g, y != 0)


@on_gpu(relu_gradient)
def relu_gradient_on_gpu(y, g):
    delta = np.empty_like(y)
    cuda.relu_gradient(y.size, y, packed_as(g, y), delta, y.size)
    return delta


@function
def gelu(x):
    """y = x s,  s = sigmoid(2 u),  u = sqrt(2 / pi) (x + 0.044715 x**3); returns y and s, packed"""
    x = packed(x)
    y, s = np.empty_like(x), np.empty_like(x)
    for a, b, c in parts(x, y, s):
        with np.errstate(over="ignore"):  # where exp is infinite, s is 0
            np.multiply(a, a, out=b)
            b *= -2 * SLOPE * CUBE
            b += -2 * SLOPE
            b *= a
            np.exp(b, out=b)
        b += 1
        np.reciprocal(b, out=c)
        np.multiply(a, c, out=b)
    return y, s


@on_gpu(gelu)
def gelu_on_gpu(x):
    x = packed(x)
    y, s = np.empty_like(x), np.empty_like(x)
    cuda.gelu(x.size, x, y, s, x.size)
    return y, s


@function
def gelu_gradient(x, s, g):
    """g dy/dx = g (s + 2 x s (1 - s) du/dx),  du/dx = sqrt(2 / pi) (1 + 3 0.044715 x**2)"""
    x, g = packed(x), packed(g)
    delta, buffer = np.empty_like(x), np.empty_like(x, shape=(min(CACHED, x.size),))
    for a, b, c, d in parts(x, s, g, delta):
        e = buffer[: len(a)]
        np.clip(a, -FLAT, FLAT, out=e)  # beyond, its cube would overflow, and s is 0 or 1
        np.multiply(e, e, out=d)
        d *= 6 * SLOPE * CUBE
        d += 2 * SLOPE
        d *= e
        d *= np.subtract(1, b, out=e)
        d += 1
        d *= b
        d *= c
    return delta


@on_gpu(gelu_gradient)
def gelu_gradient_on_gpu(x, s, g):
    x, g = packed_for(x, x, g)
    delta = np.empty_like(x)
    cuda.gelu_gradient(x.size, x, s, g, delta, x.size)
    return delta
