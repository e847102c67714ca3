"""Softmax, and its logarithm."""

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import floats, selected
from dpedf.kernels.gemm import matrix
from dpedf.kernels.softmax import softmax, sum_of_columns


class Softmax(CompNode):
    """Q[b,...,j] = exp(s[b,...,j]) / Z[b,...]

    Z[b,...] = sum_j exp(s[b,...,j])

    s.grad[b,...,j] += Q[b,...,j] (Q.grad[b,...,j] - sum_k Q.grad[b,...,k] Q[b,...,k])

    s: (B, ..., J); Q: (B, ..., J)
    """

    def __init__(self, s):
        self.s = s

    def forward(self):
        s = self.s.value
        Q, self.shifted, self.Z = softmax(*floats(matrix(s)))
        self.value = Q.reshape(s.shape)

    def backward(self):
        g, Q = matrix(self.grad).T, matrix(self.value).T
        delta = Q * (g - sum_of_columns(g * Q))
        self.s.addgrad(where_any(g, delta).T.reshape(self.value.shape))


class LogSoftmax(CompNode):
    """y[b,...,j] = s[b,...,j] - log(Z[b,...])

    Z[b,...] = sum_j exp(s[b,...,j])

    s.grad[b,...,j] += y.grad[b,...,j] - Q[b,...,j] sum_k y.grad[b,...,k]

    which is finite where Q is 0.  Q: Softmax(s), if the program has it.

    s: (B, ..., J); Q: (B, ..., J); y: (B, ..., J)
    """

    def __init__(self, s, Q=None):
        self.s, self.Q = s, Q or Softmax(s)

    def forward(self):
        shifted, Z = self.Q.shifted, self.Q.Z
        self.value = (shifted - np.log(Z)[:, np.newaxis]).reshape(self.s.value.shape)

    def backward(self):
        g, Q = matrix(self.grad).T, matrix(self.Q.value).T
        self.s.addgrad(where_any(g, g - Q * sum_of_columns(g)).T.reshape(self.value.shape))


def where_any(g, delta):
    """delta, but 0 in each column where g is 0: one that is masked, of which Q may be nan."""
    return selected(delta, (g != 0).any(axis=0))
