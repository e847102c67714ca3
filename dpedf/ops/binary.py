"""The loss of classifiers of two classes."""

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import floats
from dpedf.kernels.activation import sigmoid


class BinaryLogLoss(CompNode):
    """ell[b] = -log(sigmoid((2 y[b] - 1) s[b])) = log(1 + exp(s[b])) - y[b] s[b]

    s.grad[b] += ell.grad[b] (sigmoid(s[b]) - y[b])

    s: (B,), the score of class 1; y: (B,), of 0 and 1; ell: (B,)
    """

    def __init__(self, s, y):
        self.s, self.y = s, y

    def forward(self):
        (s,) = floats(self.s.value)
        self.target = self.y.value.astype(s.dtype)
        self.value = np.logaddexp((1 - 2 * self.target) * s, 0.0)

    def backward(self):
        self.s.addgrad(self.grad * (sigmoid(self.s.value) - self.target))
