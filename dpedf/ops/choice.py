"""Nodes that choose between numbers, each of which may be a node's or the same for all.

Their operands meet as those of + do (arithmetic.py).
"""

from math import inf

import numpy as np

from dpedf.edf import CompNode, Node
from dpedf.kernels import floats, selected
from dpedf.ops.arithmetic import Operator, as_node
from dpedf.ops.broadcast import aligned, send
from dpedf.ops.indices import a_number


class Maximum(Operator):
    """z = max(x, y)

    x.grad += z.grad ([x > y] + [x = y] / 2)
    y.grad += z.grad ([y > x] + [x = y] / 2)

    x, y: nodes or numbers
    """

    def z(self, x, y):
        return np.maximum(x, y)

    def dx(self, x, y, g):
        return shared(x < y, x == y, g)

    def dy(self, x, y, g):
        return shared(y < x, x == y, g)


class Minimum(Operator):
    """z = min(x, y)

    x.grad += z.grad ([x < y] + [x = y] / 2)
    y.grad += z.grad ([y < x] + [x = y] / 2)

    x, y: nodes or numbers
    """

    def z(self, x, y):
        return np.minimum(x, y)

    def dx(self, x, y, g):
        return shared(x > y, x == y, g)

    def dy(self, x, y, g):
        return shared(y > x, x == y, g)


def shared(lost, tied, g):
    """g, half of it where both are the extreme, and 0 where the other one is."""
    return np.where(lost, 0.0, np.where(tied, g / 2, g))


class Clip(CompNode):
    """y = min(max(x, low), high)

    x.grad += y.grad [x >= low] [x <= high]

    min, max: low and high, numbers; None: there is none.  ValueError: neither is given, or
    min > max.
    """

    def __init__(self, x, min=None, max=None):
        self.x = x
        if isinstance(min, Node) or isinstance(max, Node):
            raise ValueError("Clip between nodes, expected numbers: Maximum and Minimum take nodes")
        self.low = -inf if min is None else a_number(self, min=min)
        self.high = inf if max is None else a_number(self, max=max)
        if min is max is None or not self.low <= self.high:
            raise ValueError(f"Clip of min = {min}, max = {max}, expected numbers, min <= max")

    def forward(self):
        self.value = np.clip(*floats(self.x.value), self.low, self.high)

    def backward(self):
        x = self.x.value
        self.x.addgrad(selected(self.grad, (x >= self.low) & (x <= self.high)))


class Where(CompNode):
    """z = [mask != 0] x + [mask = 0] y

    x.grad += z.grad [mask != 0]
    y.grad += z.grad [mask = 0]

    What is not chosen does not matter, were it no number.

    mask: a node; x, y: nodes or numbers, both of which make float32, as a NotEqual does
    """

    def __init__(self, mask, x, y):
        self.mask, self.x, self.y = mask, as_node(x), as_node(y)

    def operands(self):
        x, y = floats(self.x.value, self.y.value)
        return aligned((self.mask, self.mask.value), (self.x, x), (self.y, y))

    def forward(self):
        mask, x, y = self.operands()
        self.chosen = mask != 0
        self.value = np.where(self.chosen, x, y)
        if type(x) is type(y) is float:
            self.value = self.value.astype(np.float32)

    def backward(self):
        _, x, y = self.operands()
        if self.x.varies:
            send(self.x, np.where(self.chosen, self.grad, 0.0), x)
        if self.y.varies:
            send(self.y, np.where(self.chosen, 0.0, self.grad), y)
