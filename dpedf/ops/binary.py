"""The loss of classifiers of two classes."""

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import floats
from dpedf.kernels.activation import sigmoid
from dpedf.kernels.losses import binary_log_loss
from dpedf.ops.masked_mean import expect_same_shape


class BinaryLogLoss(CompNode):
    """ell[b] = log(1 + exp(s[b])) - y[b] s[b]

    s.grad[b] += ell.grad[b] (sigmoid(s[b]) - y[b])
    y.grad[b] -= ell.grad[b] s[b]

    s: (B,), the score of class 1; y: (B,), of 0 and 1, or the probability of class 1 between them;
    ell: (B,)

    Other y have a loss of nan.
    """

    def __init__(self, s, y):
        self.s, self.y = s, y

    def forward(self):
        (s,) = floats(self.s.value)
        expect_same_shape("y", self.y.value, s.shape)
        self.target = self.y.value.astype(s.dtype)
        self.value = binary_log_loss(s, self.target)

    def backward(self):
        (s,) = floats(self.s.value)
        self.s.addgrad(self.grad * (sigmoid(s) - self.target))
        if self.y.varies:
            self.y.addgrad(-self.grad * s)

    def counted(self):
        """(B,): 1 for each row, all of which count; after Forward."""
        return np.ones_like(self.value)
