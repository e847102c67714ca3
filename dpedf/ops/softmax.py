"""Softmax, its logarithm, and that of the sum which it divides by."""

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import floats, packed, selected
from dpedf.kernels.gemm import matrix
from dpedf.kernels.softmax import softmax, sum_of_columns
from dpedf.kernels.sums import sum_of_axes
from dpedf.ops.indices import after_b, indexed, letters_of, whole


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


class LogOthers(CompNode):
    """y[b,...,j] = log(sum_k [k != j] exp(x[b,...,k]))

    x.grad[b,...,k] += exp(x[b,...,k]) sum_j [j != k] y.grad[b,...,j] exp(-y[b,...,j])

    which is log(1 - Q), where x = log Q of probabilities Q, as it has to be.

    x: (B, ..., J); y: (B, ..., J)
    """

    def __init__(self, x):
        self.x = x

    def forward(self):
        (x,) = floats(matrix(self.x.value).T)
        self.top = np.arange(len(x), like=x)[:, np.newaxis] == x.argmax(axis=0)
        self.others = np.where(self.top, -np.inf, x)  # of the largest Q, which may round to 1
        most = finite(self.others.max(axis=0))
        with np.errstate(divide="ignore"):  # of a single class
            self.rest = np.log(sum_of_columns(np.exp(self.others - most))) + most
        y = np.where(self.top, self.rest, np.log1p(-np.exp(self.others)))
        self.value = y.T.reshape(self.x.value.shape)

    def backward(self):
        g, y, x = (matrix(a).T for a in (self.grad, self.value, self.x.value))
        sent = np.where(self.top, 0.0, g * np.exp(-np.where(self.top, 0.0, y)))
        delta = np.exp(x) * (sum_of_columns(sent) - sent)
        from_top = sum_of_columns(np.where(self.top, g, 0.0))
        delta += from_top * np.exp(self.others - finite(self.rest))
        self.x.addgrad(delta.T.reshape(self.value.shape))


class LogSumExp(CompNode):
    """y[b,...] = log(sum_j exp(x[b,...,j,...])), over all j of some axes: by default, of all

    x.grad[b,...,j,...] += y.grad[b,...] exp(x[b,...,j,...] - y[b,...])
    """

    def __init__(self, x, axis=None):
        self.x, self.axis = x, axis if axis is None else whole(self, axis)

    def forward(self):
        (x,) = floats(packed(self.x.value))
        self.over = after_b(self.x, self.axis)
        most = finite(x.max(axis=self.over, keepdims=True))
        with np.errstate(divide="ignore"):  # log 0 is -inf
            logs = np.log(sum_of_axes(np.exp(x - most), self.over))
        self.value = logs + np.squeeze(most, axis=self.over)

    def backward(self):
        g, y = (np.expand_dims(a, self.over) for a in (self.grad, finite(self.value)))
        self.x.addgrad(g * np.exp(self.x.value - y))

    def equations(self):
        """Those of these axes: y[b,i] = log(sum_j exp(x[b,i,j]))."""
        there = letters_of(self.x)
        over = [there[axis] for axis in sorted(self.over)]
        y, x = indexed("y", [i for i in there if i not in over]), indexed("x", there)
        dy, dx = y.replace("y", "y.grad", 1), x.replace("x", "x.grad", 1)
        right = f"sum_{','.join(over)} " * bool(over) + f"exp({x})"
        return f"{y} = log({right})\n{dx} += {dy} exp({x} - {y})"


def finite(x):
    """x, but 0 where it is infinite or no number."""
    return np.where(np.isfinite(x), x, 0.0).astype(x.dtype, copy=False)


def where_any(g, delta):
    """delta, but 0 in each column where g is 0: one that is masked, of which Q may be nan."""
    return selected(delta, (g != 0).any(axis=0))
