"""+ - * / @ ** of nodes and numbers, which build nodes.

The batch index of one operand meets the batch index of the other; the indices after it
broadcast as NumPy's do.  So where ell is (B,) and x is (B, J), ell * x is ell[b] x[b,j].
A parameter has no batch index, and a number has no index at all.  Integers and bools, such as
labels, count in the type of the floats that they meet, or in float32 where they meet none.
"""

from numbers import Real

import numpy as np

from dpedf.edf import CompNode, Node
from dpedf.kernels import floats
from dpedf.ops.broadcast import aligned, send
from dpedf.ops.functions import Square
from dpedf.ops.products import MatMul


class Number(Node):
    """A constant, as a Python float, which never changes the dtype of a graph."""

    varies = batched = False

    def __init__(self, value):
        self.value = float(value)


def as_node(x):
    """x, or the constant that it is."""
    return Number(x) if isinstance(x, Real) else x


class Operator(CompNode):
    """z = x o y, number by number.  Subclasses define z(x, y), and dx and dy, given z.grad as g."""

    def __init__(self, x, y):
        self.x, self.y = as_node(x), as_node(y)

    def operands(self):
        x, y = floats(self.x.value, self.y.value)
        return aligned((self.x, x), (self.y, y))

    def forward(self):
        self.value = self.z(*self.operands())

    def backward(self):
        a, b = self.operands()
        if self.x.varies:
            send(self.x, self.dx(a, b, self.grad), a)
        if self.y.varies:
            send(self.y, self.dy(a, b, self.grad), b)


class Add(Operator):
    """z = x + y

    x.grad += z.grad
    y.grad += z.grad
    """

    def z(self, x, y):
        return x + y

    def dx(self, x, y, g):
        return g

    def dy(self, x, y, g):
        return g


class Subtract(Operator):
    """z = x - y

    x.grad += z.grad
    y.grad -= z.grad
    """

    def z(self, x, y):
        return x - y

    def dx(self, x, y, g):
        return g

    def dy(self, x, y, g):
        return -g


class Multiply(Operator):
    """z = x y

    x.grad += z.grad y
    y.grad += z.grad x
    """

    def z(self, x, y):
        return x * y

    def dx(self, x, y, g):
        return g * y

    def dy(self, x, y, g):
        return g * x


class Divide(Operator):
    """z = x / y

    x.grad += z.grad / y
    y.grad -= z.grad z / y
    """

    def z(self, x, y):
        return x / y

    def dx(self, x, y, g):
        return g / y

    def dy(self, x, y, g):
        return -g * self.value / y


class Power(Operator):
    """z = x**y

    x.grad += z.grad y x**(y - [y != 0])
    y.grad += z.grad z log(x + [x = 0] [y >= 0])

    so at x = 0 the slope along y is 0, or -infinity where y < 0, and at x < 0 it is nan
    """

    def z(self, x, y):
        return x**y

    def dx(self, x, y, g):
        return g * (y * x ** (y - (y != 0)))

    def dy(self, x, y, g):
        flat = ((x == 0) & (y >= 0)).astype(g.dtype)
        return g * (self.value * np.log(x + flat))


def square_or_power(x, y):
    return Square(x) if isinstance(y, Number) and y.value == 2 else Power(x, y)


def operator(make, reflected=False):
    def build(self, other):
        other = as_node(other)
        if hasattr(other, "__array__"):
            found = f"{type(self).__name__} beside a {type(other).__name__}"
            raise TypeError(f"{found}, expected a node or a number: put arrays into an Input")
        elif not isinstance(other, Node):
            return NotImplemented
        return make(other, self) if reflected else make(self, other)

    return build


# Node gets its operators here, so that the framework itself depends on no node.
OPERATORS = {"add": Add, "sub": Subtract, "mul": Multiply, "truediv": Divide}
OPERATORS |= {"pow": square_or_power, "matmul": MatMul}
for name, make in OPERATORS.items():
    setattr(Node, f"__{name}__", operator(make))
    setattr(Node, f"__r{name}__", operator(make, reflected=True))
Node.__neg__ = lambda x: Multiply(x, Number(-1))
Node.__array_ufunc__ = None  # a NumPy number on the left leaves the operation to the node
