"""A classifier with a node that makes a nan, at one step and in one row."""

from math import nan, prod

from dpedf.edf import CompNode, Package, Parameter, context
from dpedf.ops import Affine, BatchNorm, Flatten, LogLoss, Relu, Softmax
from dpedf.phi import Uniform, dense


class Fault(CompNode):
    """y[b,i] = x[b,i], but nan in a row of a step, forward or backward."""

    def __init__(self, x, step, row, backward):
        self.x, self.step, self.row, self.in_backward = x, step, row, backward

    def spoilt(self, array):
        array, row = array.copy(), self.row - context.row
        if context.train and context.step == self.step and 0 <= row < len(array):
            array[row : row + 1, 3] = nan
        return array

    def forward(self):
        self.value = self.x.value if self.in_backward else self.spoilt(self.x.value)

    def backward(self):
        self.x.addgrad(self.spoilt(self.grad) if self.in_backward else self.grad)


def failing(x, y, row, step=12, backward=False, normalized=False):
    """normalized: does what follows the Fault mix all rows, on all ranks?"""
    s = Fault(Affine(dense(prod(x.shape), 16), Flatten(x)), step, row, backward)
    if normalized:
        s = BatchNorm(Package(w=Uniform((16,), 1), b=Parameter(Uniform((16,), 1).value)), s)
    Q = Softmax(Affine(dense(16, y.classes), Relu(s)))
    return Q, LogLoss(Q, y)
