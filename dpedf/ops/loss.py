"""Losses, and the softmax that goes with one."""

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import floats, packed
from dpedf.kernels.gemm import matrix
from dpedf.kernels.softmax import flat_index, log_loss, log_loss_gradient, softmax, sum_of_columns
from dpedf.ops.masked_mean import mean, spread, weights


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
        self.s.addgrad((Q * (g - sum_of_columns(g * Q))).T.reshape(self.value.shape))


class LogLoss(CompNode):
    """ell[b] = -sum_... m[b,...] log(Q[b,...,y[b,...]]) / N[b]

    m[b,...] = [mask[b,...] != 0]
    N[b] = max(1, sum_... m[b,...])

    Q.grad[b,...,y[b,...]] -= ell.grad[b] m[b,...] / N[b] / Q[b,...,y[b,...]]

    where Q = Softmax(s), since this would divide by zero, the same as

    ell[b] = sum_... m[b,...] (log(Z[b,...]) - s[b,...,y[b,...]]) / N[b]

    s.grad[b,...,j] += ell.grad[b] m[b,...] / N[b] (Q[b,...,j] - [j = y[b,...]])

    Without a mask, each position counts.

    Q: (B, ..., J); y: (B, ...), of 0..J-1; mask: (B, ...); ell: (B,)
    """

    def __init__(self, Q, y, mask=None):
        self.Q, self.y, self.mask = Q, y, mask

    def forward(self):
        Q, y = self.Q, self.y.value
        if isinstance(Q, Softmax):
            losses, self.at = log_loss(Q.shifted, Q.Z, y.reshape(-1))
        else:
            self.at = flat_index(y.reshape(-1))
            losses = -np.log(*floats(matrix(Q.value).T.take(self.at)))
        self.weights = weights(y, self.mask, losses)
        self.value = losses if self.weights is None else mean(losses, self.weights, y.shape)

    def backward(self):
        Q, g = self.Q, self.grad
        if self.weights is not None:
            g = spread(g, self.weights, self.y.value.shape)
        if isinstance(Q, Softmax):
            delta = log_loss_gradient(matrix(Q.value), self.at, g)
            Q.s.addgrad(delta.reshape(Q.value.shape))
        else:
            chosen = matrix(Q.value).T
            delta = np.zeros_like(chosen, order="C")
            shown = np.where(g == 0, 1.0, chosen.take(self.at))  # a masked Q may be 0
            delta.reshape(-1)[self.at] = -g / shown
            Q.addgrad(delta.T.reshape(Q.value.shape))


class SquareLoss(CompNode):
    """ell[b] = sum_... (x[b,...] - y[b,...])**2

    x.grad[b,...] += 2 ell.grad[b] (x[b,...] - y[b,...])
    y.grad[b,...] -= 2 ell.grad[b] (x[b,...] - y[b,...])

    x, y: (B, ...); ell: (B,)
    """

    def __init__(self, x, y):
        self.x, self.y = x, y

    def forward(self):
        x, y = floats(self.x.value, self.y.value)
        self.difference = x - y.astype(x.dtype, copy=False)
        squares = packed(np.square(self.difference))
        self.value = squares.sum(axis=tuple(range(1, squares.ndim)))

    def backward(self):
        delta = (2 * self.grad * self.difference.T).T
        self.x.addgrad(delta)
        if self.y.varies:
            self.y.addgrad(-delta)
