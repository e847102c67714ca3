"""Activations beyond those of the slides."""

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import floats
from dpedf.kernels.activation import gelu, gelu_gradient, sigmoid


class LeakyRelu(CompNode):
    """y = max(x, slope x)

    x.grad += y.grad ([x > 0] + slope [x <= 0])

    slope: a number in 0..1, or ValueError.  Maas, Hannun and Ng, 2013
    """

    def __init__(self, x, slope=0.01):
        if not 0 <= slope <= 1:
            raise ValueError(f"LeakyRelu of slope {slope}, expected 0 <= slope <= 1")
        self.x, self.slope = x, float(slope)

    def forward(self):
        (x,) = floats(self.x.value)
        below = np.minimum(x, 0, out=np.empty_like(x))  # for 0 times inf is nan
        below *= self.slope
        self.value = np.maximum(x, below, out=below)

    def backward(self):
        slopes = (1 - self.slope) * (self.x.value > 0).astype(self.grad.dtype)
        slopes += self.slope
        slopes *= self.grad
        self.x.addgrad(slopes)


class Silu(CompNode):
    """y = x sigmoid(x)

    x.grad += y.grad sigmoid(x) (1 + x - y)

    Hendrycks and Gimpel, 2016
    """

    def __init__(self, x):
        self.x = x

    def forward(self):
        (x,) = floats(self.x.value)
        self.sigmoid = sigmoid(x, out=np.empty_like(x))  # also of one number, an array
        self.value = x * self.sigmoid

    def backward(self):
        delta = self.x.value - self.value
        delta += 1
        delta *= self.sigmoid
        delta *= self.grad
        self.x.addgrad(delta)


class Gelu(CompNode):
    """y = x p

    p = sigmoid(2 sqrt(2 / pi) (x + 0.044715 x**3))

    x.grad += y.grad p (1 + 2 x (1 - p) sqrt(2 / pi) (1 + 0.134145 x**2))

    which is x (1 + tanh(u)) / 2: Hendrycks and Gimpel, 2016, in the form that GPT-2 uses
    """

    def __init__(self, x):
        self.x = x

    def forward(self):
        self.value, self.sigmoid = gelu(*floats(self.x.value))

    def backward(self):
        self.x.addgrad(gelu_gradient(self.x.value, self.sigmoid, self.grad))
