"""Losses, and the softmax that goes with one."""

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels.softmax import log_loss, log_loss_gradient, places, softmax


class Softmax(CompNode):
    """Q[b,j] = exp(s[b,j]) / Z[b],  Z[b] = sum_j exp(s[b,j])

    s.grad[b,j] += Q[b,j] (Q.grad[b,j] - sum_k Q.grad[b,k] Q[b,k])

    s: (B, J); Q: (B, J)
    """

    def __init__(self, s):
        self.s = s

    def forward(self):
        self.value, self.shifted, self.Z = softmax(self.s.value)

    def backward(self):
        g, Q = self.grad.T, self.value.T
        self.s.addgrad((Q * (g - (g * Q).sum(axis=0))).T)


class LogLoss(CompNode):
    """ell[b] = -log Q[b,y[b]]

    Q.grad[b,y[b]] -= ell.grad[b] / Q[b,y[b]]

    and of a Softmax node Q of s, where this would divide by zero, the same as
    ell[b] = log Z[b] - s[b,y[b]],  s.grad[b,j] += ell.grad[b] (Q[b,j] - [j = y[b]])

    Q: (B, J); y: (B,), of 0..J-1; ell: (B,)
    """

    def __init__(self, Q, y):
        self.Q, self.y = Q, y

    def forward(self):
        Q, y = self.Q, self.y.value
        if isinstance(Q, Softmax):
            self.value, self.at = log_loss(Q.shifted, Q.Z, y)
        else:
            self.at = places(y)
            self.value = -np.log(Q.value.T.take(self.at))

    def backward(self):
        Q = self.Q
        if isinstance(Q, Softmax):
            Q.s.addgrad(log_loss_gradient(Q.value, self.at, self.grad))
        else:
            delta = np.zeros_like(Q.value.T, order="C")
            delta.reshape(-1)[self.at] = -self.grad / Q.value.T.take(self.at)
            Q.addgrad(delta.T)


class SquareLoss(CompNode):
    """ell[b] = sum_j (x[b,j] - y[b,j])**2, over all indices j but b

    x.grad[b,j] += 2 ell.grad[b] (x[b,j] - y[b,j]), and y.grad the opposite

    x, y: (B, ...); ell: (B,)
    """

    def __init__(self, x, y):
        self.x, self.y = x, y

    def forward(self):
        self.difference = self.x.value - self.y.value
        squares = np.square(self.difference)
        self.value = squares.sum(axis=tuple(range(1, squares.ndim)))

    def backward(self):
        delta = (2 * self.grad * self.difference.T).T
        self.x.addgrad(delta)
        if self.y.varies:
            self.y.addgrad(-delta)
