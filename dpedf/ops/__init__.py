"""The nodes, by family.  `from dpedf.ops import *` brings these, and nothing else."""

from dpedf.edf import CompNode as _CompNode
from dpedf.ops import words as words  # gives the nodes of dpedf.edf their repr
from dpedf.ops.activation import Elu, Gelu, LeakyRelu, Silu, Softplus
from dpedf.ops.affine import Affine
from dpedf.ops.arithmetic import Add, Divide, Multiply, Power, Subtract
from dpedf.ops.attention import Attention
from dpedf.ops.augment import Crop, Cutout, Flip, Shift
from dpedf.ops.binary import BinaryLogLoss
from dpedf.ops.choice import Clip, Maximum, Minimum, Where
from dpedf.ops.conv import Conv1D, Conv2D
from dpedf.ops.cross_entropy import CrossEntropy, Occurrences
from dpedf.ops.einsum import Einsum
from dpedf.ops.embedding import Codes, Embedding, OneHot
from dpedf.ops.functions import Exp, Sqrt, Square
from dpedf.ops.logarithm import Log, LogSigmoid
from dpedf.ops.loss import LogLoss
from dpedf.ops.masked_mean import NotEqual
from dpedf.ops.noise import Normal
from dpedf.ops.normalization import BatchNorm, Dropout, LayerNorm, RMSNorm
from dpedf.ops.pad import Pad
from dpedf.ops.parts import Concat, Slice, Stack
from dpedf.ops.pointwise import Relu, Sigmoid, Tanh
from dpedf.ops.pool import (
    AveragePool,
    AveragePool1D,
    GlobalAveragePool,
    MaxPool,
    MaxPool1D,
)
from dpedf.ops.products import MatMul
from dpedf.ops.recurrent import GRUCell, LSTMCell, Zeros
from dpedf.ops.regression import SquareLoss
from dpedf.ops.softmax import LogOthers, LogSoftmax, LogSumExp, Softmax
from dpedf.ops.tensor import Flatten, Mean, Reshape, Sum, Transpose

__all__ = [
    name
    for name, its in vars().items()
    if isinstance(its, type) and issubclass(its, _CompNode) and its is not _CompNode
]
