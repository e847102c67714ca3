"""The nodes, by family."""

from dpedf.ops.affine import Affine
from dpedf.ops.arithmetic import Add, Divide, Multiply, Power, Subtract
from dpedf.ops.loss import LogLoss, Softmax, SquareLoss
from dpedf.ops.pointwise import Relu, Sigmoid, Square, Tanh
from dpedf.ops.tensor import Flatten, MatMul
