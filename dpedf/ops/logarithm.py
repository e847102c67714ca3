"""Logarithms, also of probabilities, which are computed from the scores behind them.

A probability may round to 0 or to 1 where its logarithm is an ordinary number.
"""

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import floats
from dpedf.kernels.activation import sigmoid
from dpedf.ops.arithmetic import Add, Multiply, Number, Subtract
from dpedf.ops.embedding import OneHot
from dpedf.ops.functions import Exp
from dpedf.ops.masked_mean import NotEqual
from dpedf.ops.parts import Concat, Slice, Stack
from dpedf.ops.pointwise import Sigmoid
from dpedf.ops.softmax import LogOthers, LogSoftmax, LogSumExp, Softmax
from dpedf.ops.tensor import Flatten, Reshape, Sum, Transpose


class Log(CompNode):
    """y = log(x)

    x.grad += y.grad / x, or 0 where y.grad is 0

    where logs:

    y = logs

    logs.grad += y.grad

    logs: log(x), computed from scores s, where x is Softmax(s), Sigmoid(s), 1 minus one of them,
    Exp(s) or 1 + Exp(s); what Reshape, Flatten, Transpose, Slice, Concat and Stack make of such;
    or a Sum of such, perhaps times a mask, OneHot or NotEqual.
    """

    def __init__(self, x):
        self.x, self.logs = x, of_scores(x)

    def forward(self):
        if self.logs:
            (self.value,) = floats(self.logs.value)
        else:
            with np.errstate(divide="ignore"):  # log 0 is -inf
                self.value = np.log(*floats(self.x.value))

    def backward(self):
        g = self.grad
        if self.logs:
            self.logs.addgrad(g)
        else:
            self.x.addgrad(g / np.where(g == 0, 1.0, self.x.value))  # a masked x may be 0


class LogSigmoid(CompNode):
    """y = log(sigmoid(x)) = -log(1 + exp(-x))

    x.grad += y.grad sigmoid(-x)
    """

    def __init__(self, x):
        self.x = x

    def forward(self):
        (x,) = floats(self.x.value)
        self.value = -np.logaddexp(-x, 0.0)

    def backward(self):
        self.x.addgrad(self.grad * sigmoid(-self.x.value))


# What only arranges numbers: the same of the logarithms, given the node and these.
ARRANGED = {
    Reshape: lambda n, logs: Reshape(logs, n.shape),
    Flatten: lambda n, logs: Flatten(logs),
    Transpose: lambda n, logs: Transpose(logs, n.axis),
    Slice: lambda n, logs: Slice(logs, n.index),
}


def is_one(x):
    return isinstance(x, Number) and x.value == 1


def beside_one(x):
    """z, where x is 1 + z or z + 1; else None."""
    if type(x) is Add:
        for one, z in (x.x, x.y), (x.y, x.x):
            if is_one(one):
                return z
    return None


def one_minus(x):
    """z, where x is 1 - z, also as 1 + -z; else None."""
    if type(x) is Subtract and is_one(x.x):
        return x.y
    z = beside_one(x)
    negated = type(z) is Multiply and isinstance(z.y, Number) and z.y.value == -1
    return z.x if negated else None


def of_scores(x, complement=False):
    """log(x), or with complement log(1 - x), as a node of scores; None if x is made of none."""
    kind = type(x)  # a class that derives from one of these may compute anything
    if kind is Softmax:
        logs = LogSoftmax(x.s, x)
        return LogOthers(logs) if complement else logs
    if kind is Sigmoid:
        return LogSigmoid(-x.x if complement else x.x)
    if (z := one_minus(x)) is not None:
        return of_scores(z, not complement)
    if kind in (Concat, Stack):
        logs = [of_scores(part, complement) for part in x.x]
        return kind(logs, x.axis) if all(logs) else None
    if kind in ARRANGED and (logs := of_scores(x.x, complement)):
        return ARRANGED[kind](x, logs)
    return None if complement else of_positive(x)


def of_positive(x):
    """log(x) of an exponential, or of a sum, perhaps masked, of what is made of scores; or None."""
    kind, z = type(x), beside_one(x)
    if kind is Exp:
        return x.x
    if type(z) is Exp:
        return -LogSigmoid(-z.x)
    if kind is Sum and (logs := of_scores(x.x) or of_masked(x.x)):
        return LogSumExp(logs, x.axis)
    return None


def of_masked(x):
    """log(x), where x is a mask times what is made of scores; else None."""
    if type(x) is Multiply:
        for Q, mask in (x.x, x.y), (x.y, x.x):
            if type(mask) in (OneHot, NotEqual) and (logs := of_scores(Q)):
                return logs + Log(mask)
    return None
