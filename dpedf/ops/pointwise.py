"""Nodes that act on each number by itself."""

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import floats
from dpedf.kernels.activation import relu, relu_gradient, sigmoid


class Sigmoid(CompNode):
    """y = 1 / (1 + exp(-x))

    x.grad += y.grad y (1 - y)
    """

    def __init__(self, x):
        self.x = x

    def forward(self):
        self.value = sigmoid(*floats(self.x.value))

    def backward(self):
        delta = 1 - self.value
        delta *= self.value
        delta *= self.grad
        self.x.addgrad(delta)


class Tanh(CompNode):
    """y = tanh(x)

    x.grad += y.grad (1 - y**2)
    """

    def __init__(self, x):
        self.x = x

    def forward(self):
        self.value = np.tanh(*floats(self.x.value))

    def backward(self):
        self.x.addgrad(self.grad * (1 - np.square(self.value)))


class Relu(CompNode):
    """y = max(x, 0)

    x.grad += y.grad [x > 0]
    """

    def __init__(self, x):
        self.x = x

    def forward(self):
        self.value = relu(self.x.value)

    def backward(self):
        self.x.addgrad(relu_gradient(self.value, self.grad))
