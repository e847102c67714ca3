"""Functions of calculus, of each number by itself."""

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import floats


class Exp(CompNode):
    """y = exp(x)

    x.grad += y.grad y
    """

    def __init__(self, x):
        self.x = x

    def forward(self):
        self.value = np.exp(*floats(self.x.value))

    def backward(self):
        self.x.addgrad(self.grad * self.value)


class Sqrt(CompNode):
    """y = sqrt(x)

    x.grad += y.grad / (2 y)
    """

    def __init__(self, x):
        self.x = x

    def forward(self):
        self.value = np.sqrt(*floats(self.x.value))

    def backward(self):
        self.x.addgrad(self.grad / (2 * self.value))


class Square(CompNode):
    """y = x**2

    x.grad += 2 x y.grad
    """

    def __init__(self, x):
        self.x = x

    def forward(self):
        self.value = np.square(*floats(self.x.value))

    def backward(self):
        self.x.addgrad(2 * self.x.value * self.grad)
