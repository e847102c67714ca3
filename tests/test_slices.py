"""Every node computes rows of several slices together with the bits of each slice by itself."""

from itertools import pairwise

import numpy as np
import pytest
from collected import gradients_collected
from products import each
from test_ops import CASES, Case

from dpedf.edf import Backward, CompNode, CompNodes, Forward, Input, Package, Parameter
from dpedf.kernels.slices import Slices
from dpedf.ops import (
    Affine,
    Attention,
    AveragePool,
    BatchNorm,
    BinaryLogLoss,
    Conv1D,
    Conv2D,
    Crop,
    Cutout,
    Dropout,
    Einsum,
    Elu,
    Embedding,
    Exp,
    Flip,
    Gelu,
    GRUCell,
    LayerNorm,
    LeakyRelu,
    Log,
    LogLoss,
    LogOthers,
    LogSigmoid,
    LogSoftmax,
    LogSumExp,
    LSTMCell,
    MatMul,
    Maximum,
    MaxPool,
    Mean,
    Multiply,
    Normal,
    Power,
    Relu,
    RMSNorm,
    Shift,
    Sigmoid,
    Silu,
    Softmax,
    Softplus,
    Sqrt,
    Square,
    SquareLoss,
    Sum,
    Tanh,
)
from dpedf.ops.cross_entropy import CrossEntropy
from dpedf.parallel.counts import Counts
from dpedf.program import during, program


class Given(CompNode):
    """ell[b] = 0, and z.grad is g, as it lies in memory"""

    def __init__(self, z, g):
        self.z, self.g = z, g

    def forward(self):
        self.value = np.zeros(len(self.g.value))

    def backward(self):
        self.z.addgrad(self.g.value)


def innermost(x):
    """x with b as the innermost index in memory, as a Conv2D leaves it."""
    held = np.empty((*x.shape[1:], len(x)), x.dtype)
    np.moveaxis(held, -1, 0)[...] = x
    return np.moveaxis(held, -1, 0)


def part(x):
    """x as a part of a wider array, as a Slice of it."""
    return np.concatenate([x, x], axis=-1)[..., : x.shape[-1]] if x.ndim > 1 else x


def spread(x):
    """One number of x along its last index, in memory once, as the gradient of a Sum has it."""
    return np.broadcast_to(x[..., :1], x.shape) if x.ndim > 1 else x


ORDERS = np.array, innermost, part, spread


class Passes:
    """A node of a case, to be run over some of B rows."""

    def __init__(self, case, B, dtype, sizes):
        self.rows, operands = {}, []  # of each Input, in all passes together
        for (kind, *_), value in zip(case.operands, case.values(B, dtype, **sizes), strict=True):
            operands.append(Parameter(value) if kind == "p" else self.input(value))
        z = case.make(*operands)
        Forward(z)
        shape = z.value.shape if z.batched else (B, *z.value.shape)
        g = np.random.default_rng(8).uniform(-2, 2, shape).astype(dtype)
        self.ell, self.B = Given(z, self.input(g)), B
        counts = Counts(self.ell)
        self.shares = counts.shares(counts.count(), B) if counts.masks else {}
        self.mixes = any(getattr(n, "mixes", False) for n in CompNodes(z))  # rows, in training

    def input(self, value):
        x = Input()
        x.value = self.rows[x] = value
        return x

    def run(self, order, *ends):
        """All that a pass over these slices leaves: of rows, and of slices.  order: of memory."""
        first, end = ends[0], ends[-1]
        slices = Slices([e - first for e in ends], [(v, ()) for v in range(len(ends) - 1)])
        parameters = program(self.ell).parameters
        for x, value in self.rows.items():
            x.value = order(value[first:end])
        for p in parameters:
            p.differentiate_into(np.zeros((len(slices), *p.value.shape), p.value.dtype))
        known = during(slices=slices, row=first, B=self.B, shares=self.shares, step=0)
        with known, gradients_collected(self.ell) as grads:
            Forward(self.ell, train=not self.mixes)
            Backward(self.ell, self.B)
        nodes = [n for n in CompNodes(self.ell) if n.batched]
        of_rows = [n.value for n in nodes] + [n.grad for n in nodes] + list(grads.values())
        return [x for x in of_rows if x is not None], [p.grads for p in parameters]


def assert_computed_alike(case, dtype, order, ends, **sizes):
    passes = Passes(case, ends[-1], dtype, sizes)
    of_rows, of_slices = passes.run(order, *ends)
    for v, (first, end) in enumerate(pairwise(ends)):
        rows_apart, slices_apart = passes.run(order, first, end)
        for together, apart in zip(of_rows, rows_apart, strict=True):
            assert together[first:end].tobytes() == apart.tobytes()
        for together, apart in zip(of_slices, slices_apart, strict=True):
            assert together[v].tobytes() == apart[0].tobytes()


ENDS = [0, 3, 6, 9], [0, 2, 3, 3, 8], [0, 1, 2, 3]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@each("dtype", [np.float32, np.float64])
@each("order", ORDERS)
@each("ends", ENDS)
def test_slices_that_are_computed_together_have_the_bits_of_each(case, dtype, order, ends):
    assert_computed_alike(case, dtype, order, ends)


def of(node, *more):
    """A node of a package of w and b, and of x."""
    return lambda x, w, c: node(Package(w=w, b=c), x, *more)


def einsum(indices, *operands):
    return Case(Einsum, " ".join(operands), lambda *x: Einsum(indices, *x), name=indices)


# Of inner sizes, I, at which BLAS and NumPy add in other orders; D, T and F are 2 I, 3 I and 4 I.
LONG = [
    *(Case(Affine, operands, of(Affine)) for operands in ("bI pI3 p3", "bI pI1 p1", "b2I pI2 p2")),
    Case(Affine, "b3 p3I pI", of(Affine)),
    *(
        Case(MatMul, operands, MatMul)
        for operands in ("bI pI", "bI pI3", "pI bI2", "p2I bI", "bI bI", "b2I bI3", "b2I p2I3")
    ),
    einsum("bi,bi->b", "bI", "bI"),
    einsum("bi,ij->bj", "bI", "pI3"),
    einsum("bti,bsi->bts", "b2I", "b3I"),
    einsum("bti,tij->bj", "b2I", "p2I3"),
    einsum("bij->bj", "bI2"),
    einsum("bij->b", "b2I"),
    *(Case(n, operands, n) for n in (Softmax, LogSoftmax) for operands in ("bI", "b2I")),
    *(Case(LogOthers, n, lambda s: Log(1 - Softmax(s))) for n in ("bI", "b2I")),
    Case(LogLoss, "bI yI", lambda s, y: LogLoss(Softmax(s), y)),
    Case(LogLoss, "bI3 y3I mI", lambda s, y, m: LogLoss(Softmax(s), y, m), name="masked"),
    Case(CrossEntropy, "bI yI", lambda s, y: LogLoss(Softmax(s), y, smoothing=0.1)),
    *(Case(LayerNorm, operands, of(LayerNorm)) for operands in ("bI pI pI", "b2I pI pI")),
    Case(RMSNorm, "bI pI", lambda x, w: RMSNorm(w, x)),
    *(Case(SquareLoss, operands, SquareLoss) for operands in ("bI bI", "b2I b2I")),
    *(
        Case(node, "b2I", lambda x, node=node, axis=axis: node(x, axis), name=str(axis))
        for node in (Sum, Mean, LogSumExp)
        for axis in (None, 0, 1)
    ),
    *(Case(Multiply, f"bI {other}", Multiply) for other in ("pI", "p", "p1", "b", "p2I")),
    Case(Multiply, "bI pI", lambda x, w: x * (w * w), name="of a parameter twice"),
    *(Case(Power, f"bI {other}", Power, low=0.5) for other in ("pI", "bI")),
    *(
        Case(node, "bI", node, low=0.1)
        for node in (Exp, Log, LogSigmoid, Sqrt, Square, Tanh, Sigmoid, Relu, LeakyRelu, Silu, Gelu)
    ),
    *(Case(node, "bI", node) for node in (Elu, Softplus)),
    Case(Gelu, "bI", lambda x: Gelu(4 * x, "none"), name="exact"),
    Case(Maximum, "bI pI", Maximum),
    Case(Dropout, "bI", lambda x: Dropout(x, 0.3)),
    Case(Normal, "bI", lambda x: Sum(x) * Normal(x, x.value.shape[1])),
    Case(Normal, "b", lambda x: x * Normal(x, 5)),
    Case(Shift, "b34", lambda x: Shift(x, 0.3)),
    Case(Crop, "b234", lambda x: Crop(x, 2)),
    Case(Flip, "b34", Flip),
    Case(Cutout, "b234", lambda x: Cutout(x, 2)),
    Case(BinaryLogLoss, "b y2", BinaryLogLoss),
    Case(Attention, "b2I b3I b34", Attention),
    Case(LSTMCell, "bF bF bD", LSTMCell),
    Case(GRUCell, "bT bT bI", GRUCell),
    Case(Embedding, "p32 y3I", Embedding),
    Case(BatchNorm, "b2I p2 p2", of(BatchNorm)),
]
LONG_ENDS = [0, 3, 6], [0, 1, 2, 15]


@pytest.mark.parametrize("case", LONG, ids=lambda case: case.name)
@each("dtype", [np.float32, np.float64])
@each("order", ORDERS)
@each("I, ends", [(I, ends) for I in (300, 4097) for ends in LONG_ENDS])
def test_so_have_slices_of_long_rows(case, dtype, order, I, ends):
    assert_computed_alike(case, dtype, order, ends, I=I, D=2 * I, T=3 * I, F=4 * I)


IMAGES = [
    Case(Conv2D, "b1II p2155 p2", of(Conv2D, 2, 1)),
    Case(Conv2D, "b2I9 p4233 p4", of(Conv2D)),
    Case(Conv2D, "b4I9 p6233 p6", of(Conv2D, (1, 2), (2, 0), (2, 1), 2)),
    Case(Conv1D, "b4I p623 p6", of(Conv1D, 2, 1, 2, 2)),
    Case(MaxPool, "b2I9", lambda x: MaxPool(x, 3, 2)),
    Case(MaxPool, "b2I9", lambda x: MaxPool(x, (3, 2), 2, 1, 1, True), name="beside"),
    Case(AveragePool, "b2I9", lambda x: AveragePool(x, 3, 2, 1, True, False), name="beside"),
    Case(AveragePool, "b2I9", lambda x: AveragePool(x, 3, 2)),
]


@pytest.mark.parametrize("at_a_time", [1, 3000, 9000, 1 << 18])
@each("case", IMAGES)
@each("dtype", [np.float32, np.float64])
@each("order", ORDERS)
@each("ends", [[0, 4, 8, 12], [0, 1, 2, 3], [0, 2, 2, 7]])
def test_so_have_images_however_many_fit_at_a_time(
    case, dtype, order, ends, at_a_time, monkeypatch
):
    """Numbers of columns: of a line of a slice, of some lines, of one slice or of several."""
    monkeypatch.setattr("dpedf.kernels.conv.at_a_time", lambda x: at_a_time)
    assert_computed_alike(case, dtype, order, ends, I=13)
