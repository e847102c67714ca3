"""Logarithms, also of probabilities, which are computed from the scores behind them.

A probability may round to 0 or to 1 where its logarithm is an ordinary number.
"""

from weakref import WeakKeyDictionary, ref

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import floats
from dpedf.kernels.activation import sigmoid
from dpedf.ops.arithmetic import Number, Subtract
from dpedf.ops.parts import Concat, Slice
from dpedf.ops.pointwise import Sigmoid
from dpedf.ops.softmax import LogSoftmax, Softmax
from dpedf.ops.tensor import Flatten, Reshape, Transpose


class Log(CompNode):
    """y = log(x)

    x.grad += y.grad / x, or 0 where y.grad is 0

    Log(x) makes a LogSoftmax or a LogSigmoid, where x is made of scores.
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
    log = made[Q]() if Q in made else None
    if log is None:
        log = LogSoftmax(Q.s, Q)
        made[Q] = ref(log)
    return log


def of_scores(x, complement=False):
    """log(x), or with complement log(1 - x), as a node of scores; None if x is made of none.

    They are those of a Softmax, or of a Sigmoid, also of 1 minus it, in any arrangement.
    """
    kind = type(x)  # a class that derives from one of these may compute anything
    if kind is Softmax and not complement:
        return log_softmax(x)
    if kind is Sigmoid:
        return LogSigmoid(-x.x if complement else x.x)
    if kind is Subtract and isinstance(x.x, Number) and x.x.value == 1:
        return of_scores(x.y, not complement)
    if kind is Concat:
        logs = [of_scores(part, complement) for part in x.x]
        pairs = zip(logs, x.x, strict=True)
        if not any(logs):
            return None
        return Concat([log or Log(1 - part if complement else part) for log, part in pairs], x.axis)
    if kind in ARRANGED and (logs := of_scores(x.x, complement)):
        return ARRANGED[kind](x, logs)
    return None
