"""Logarithms, also of probabilities, which are computed from the scores behind them.

A probability may round to 0 or to 1 where its logarithm is an ordinary number.
"""

from math import log
from weakref import WeakKeyDictionary, ref

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import floats
from dpedf.kernels.activation import sigmoid
from dpedf.ops.arithmetic import Add, Divide, Multiply, Number, Subtract
from dpedf.ops.embedding import OneHot
from dpedf.ops.functions import Exp
from dpedf.ops.masked_mean import NotEqual
from dpedf.ops.parts import Concat, Slice
from dpedf.ops.pointwise import Sigmoid
from dpedf.ops.softmax import LogOthers, LogSoftmax, LogSumExp, Softmax
from dpedf.ops.tensor import Flatten, Reshape, Sum, Transpose


class Log(CompNode):
    """y = log(x)

    x.grad += y.grad / x, or 0 where y.grad is 0

    It is computed from scores s, as stable as LogSoftmax, where x is Softmax(s), Sigmoid(s),
    1 minus one of them, Exp(s) or 1 + Exp(s); a product or quotient of these, of positive numbers
    and of masks (OneHot, NotEqual); a Sum of such; or what Reshape, Flatten, Transpose, Slice and
    Concat make of one.
    """

    def __new__(cls, x=None):  # none where a copy of one is made
        return (cls is Log and of_scores(x)) or super().__new__(cls)

    def __init__(self, x):
        self.x = x

    def forward(self):
        with np.errstate(divide="ignore"):  # log 0 is -inf
            self.value = np.log(*floats(self.x.value))

    def backward(self):
        g = self.grad
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
    Transpose: lambda n, logs: Transpose(logs, n.axes),
    Slice: lambda n, logs: Slice(logs, n.index),
}


made = WeakKeyDictionary()  # LogSoftmax by its Softmax, for as long as somebody has it


def log_softmax(Q):
    """LogSoftmax of the scores of Q, one for all that take it, such as its slices."""
    logs = made[Q]() if Q in made else None
    if logs is None:
        logs = LogSoftmax(Q.s, Q)
        made[Q] = ref(logs)
    return logs


def is_number(x, value):
    return isinstance(x, Number) and x.value == value


def beside_one(x):
    """z, where x is 1 + z or z + 1; else None."""
    if type(x) is Add:
        for one, z in (x.x, x.y), (x.y, x.x):
            if is_number(one, 1):
                return z
    return None


def one_minus(x):
    """z, where x is 1 - z, also as 1 + -z; else None."""
    if type(x) is Subtract and is_number(x.x, 1):
        return x.y
    z = beside_one(x)
    return z.x if type(z) is Multiply and is_number(z.y, -1) else None


def of_factor(x):
    """log(x) of what is made of scores, or a mask, or a positive number; else None."""
    if isinstance(x, Number):
        return Number(log(x.value)) if x.value > 0 else None
    return Log(x) if type(x) in (NotEqual, OneHot) else of_scores(x)


def of_scores(x, complement=False):
    """log(x), or with complement log(1 - x), as a node of scores; None if x is made of none."""
    kind = type(x)  # a class that derives from one of these may compute anything
    if kind is Softmax:
        return LogOthers(log_softmax(x)) if complement else log_softmax(x)
    if kind is Sigmoid:
        return LogSigmoid(-x.x if complement else x.x)
    if (z := one_minus(x)) is not None:
        return of_scores(z, not complement)
    if kind is Concat:
        logs = [of_scores(part, complement) for part in x.x]
        pairs = zip(logs, x.x, strict=True)
        if not any(logs):
            return None
        return Concat([own or Log(1 - part if complement else part) for own, part in pairs], x.axis)
    if kind in ARRANGED and (logs := of_scores(x.x, complement)):
        return ARRANGED[kind](x, logs)
    return None if complement else of_positive(x)


def of_positive(x):
    """log(x) of a function, a product or a sum whose scores are known; else None."""
    kind, z = type(x), beside_one(x)
    if kind is Exp:
        return Slice(x.x, ...)
    if type(z) is Exp:
        return -LogSigmoid(-z.x)
    if kind is Sum and (logs := of_scores(x.x)):
        return LogSumExp(logs, x.axes)
    if kind in (Multiply, Divide):
        logs = of_factor(x.x), of_factor(x.y)
        if all(logs):
            return Add(*logs) if kind is Multiply else Subtract(*logs)
    return None
