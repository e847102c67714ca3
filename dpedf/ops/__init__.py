"""The nodes, by family."""

from dpedf.ops.activation import Gelu, LeakyRelu, Silu
from dpedf.ops.affine import Affine
from dpedf.ops.arithmetic import Add, Divide, Multiply, Power, Subtract
from dpedf.ops.attention import Attention
from dpedf.ops.conv import AveragePool, Conv2D, MaxPool
from dpedf.ops.einsum import Einsum
from dpedf.ops.embedding import Embedding, OneHot
from dpedf.ops.functions import Exp, Log, Sqrt
from dpedf.ops.loss import BinaryLogLoss, LogLoss, Softmax, SquareLoss
from dpedf.ops.normalization import BatchNorm, Dropout, LayerNorm, RMSNorm
from dpedf.ops.pointwise import Relu, Sigmoid, Square, Tanh
from dpedf.ops.products import MatMul
from dpedf.ops.recurrent import GRUCell, LSTMCell, Zeros
from dpedf.ops.tensor import Concat, Flatten, Mean, Reshape, Slice, Sum, Transpose
