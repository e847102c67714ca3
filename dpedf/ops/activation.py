"""Activations beyond those of the slides."""

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import floats
from dpedf.kernels.activation import gelu, gelu_gradient, sigmoid
from dpedf.kernels.normal import normal_cdf, normal_density
from dpedf.ops.indices import a_number
from dpedf.ops.words import keep


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


class Softplus(CompNode):
    """y = log(1 + exp(x))

    x.grad += y.grad sigmoid(x)

    Dugas et al., 2001
    """

    def __init__(self, x):
        self.x = x

    def forward(self):
        (x,) = floats(self.x.value)
        self.value = np.logaddexp(x, 0.0)

    def backward(self):
        self.x.addgrad(self.grad * sigmoid(*floats(self.x.value)))


class Elu(CompNode):
    """y = max(x, 0) + alpha (exp(min(x, 0)) - 1)

    x.grad += y.grad ([x > 0] + [x <= 0] alpha exp(min(x, 0)))

    Clevert, Unterthiner and Hochreiter, 2016
    """

    def __init__(self, x, alpha=1.0):
        self.x, self.alpha = x, a_number(self, alpha=alpha)

    def forward(self):
        (x,) = floats(self.x.value)
        self.value = np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0)))

    def backward(self):
        x, g = self.x.value, self.grad
        self.x.addgrad(np.where(x <= 0, g * (self.alpha * np.exp(np.minimum(x, 0))), g))


class Gelu(CompNode):
    """y = x p

    p = sigmoid(2 sqrt(2 / pi) (x + 0.044715 x**3))

    x.grad += y.grad p (1 + 2 x (1 - p) sqrt(2 / pi) (1 + 0.134145 x**2))

    where exact:

    y = x p

    p = (1 + erf(x / sqrt(2))) / 2

    x.grad += y.grad (p + x exp(-x**2 / 2) / sqrt(2 pi))

    approximate: "tanh", the default, is x (1 + tanh(u)) / 2, the form that GPT-2 uses; "none" is
    exact, as PyTorch's default.  Hendrycks and Gimpel, 2016
    """

    approximate = "tanh"

    def __init__(self, x, approximate="tanh"):
        if approximate not in ("tanh", "none"):
            raise ValueError(f'Gelu of approximate = {approximate!r}, expected "tanh" or "none"')
        self.x = x
        keep(self, approximate=approximate)

    @property
    def exact(self):
        return self.approximate == "none"

    def forward(self):
        (x,) = floats(self.x.value)
        if self.exact:
            self.p = normal_cdf(x)
            self.value = x * self.p
        else:
            self.value, self.p = gelu(x)

    def backward(self):
        x, g = self.x.value, self.grad
        delta = g * (self.p + x * normal_density(x)) if self.exact else gelu_gradient(x, self.p, g)
        self.x.addgrad(delta)
