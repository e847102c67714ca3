"""Every node: against finite differences and PyTorch, and the same bits on a strict device."""

import importlib
import inspect
import math
import operator
import pkgutil

import numpy as np
import pytest
import strict
from collected import gradients_collected
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes
from products import each
from strict import DeviceArray, get, put

from dpedf import check, models, ops
from dpedf.edf import (
    SGD,
    Backward,
    CompNode,
    CompNodes,
    Forward,
    Input,
    Package,
    Parameter,
    Parameters,
)
from dpedf.ops import (
    Add,
    Affine,
    Attention,
    AveragePool,
    AveragePool1D,
    BatchNorm,
    BinaryLogLoss,
    Clip,
    Concat,
    Conv1D,
    Conv2D,
    Crop,
    Cutout,
    Divide,
    Dropout,
    Einsum,
    Elu,
    Embedding,
    Exp,
    Flatten,
    Flip,
    Gelu,
    GlobalAveragePool,
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
    MaxPool1D,
    Mean,
    Minimum,
    Multiply,
    Normal,
    NotEqual,
    OneHot,
    Pad,
    Power,
    Relu,
    Reshape,
    RMSNorm,
    Shift,
    Sigmoid,
    Silu,
    Slice,
    Softmax,
    Softplus,
    Sqrt,
    Square,
    SquareLoss,
    Stack,
    Subtract,
    Sum,
    Tanh,
    Transpose,
    Where,
    Zeros,
)
from dpedf.ops.arithmetic import Operator
from dpedf.ops.augment import Moved
from dpedf.ops.cross_entropy import CrossEntropy, Occurrences
from dpedf.ops.embedding import Codes
from dpedf.ops.masked_mean import MaskedMean
from dpedf.ops.pool import Pool
from dpedf.phi import Phi
from dpedf.program import program

ABSTRACT = {MaskedMean, Moved, Operator, Pool}
OF_LABELS = Codes, CrossEntropy, NotEqual, Occurrences, OneHot  # of a type of its own


class Rows(CompNode):
    """x[b,...] = p[b,...], so that a value with b can be asked for its gradient"""

    def __init__(self, p):
        self.p, self.b = p, Input()

    def forward(self):
        self.value = self.p.value

    def backward(self):
        self.p.addgrad(self.grad)


class Weighed(CompNode):
    """ell[b] = sum_... w[b,...] z[b,...], of a z without b too

    z.grad[b,...] += ell.grad[b] w[b,...]
    """

    def __init__(self, z, w):
        self.z, self.w = z, w

    def forward(self):
        products = self.w.value * self.z.value
        self.value = products.sum(axis=tuple(range(1, products.ndim)))

    def backward(self):
        self.z.addgrad((self.w.value.T * self.grad).T)


class Case:
    """A node of a class, and how PyTorch computes the same.

    operands: a word for each, its kind and its sizes: b rows of numbers, p a parameter,
    x an input, y an input of labels (how many classes, then sizes), m an input of 0 and 1.
    A letter is a size of one's choice.  make and reference take the operands.
    """

    def __init__(self, node, operands, make, reference=None, low=-2.0, name=""):
        self.node, self.operands, self.low = node, operands.split(), low
        self.make, self.reference = make, reference or make
        self.name = f"{node.__name__}: {name or operands}"

    def values(self, B, dtype=np.float64, **sizes):
        """Those of the operands, of B rows; sizes: what letters are."""
        random = np.random.default_rng(7)
        for kind, *word in self.operands:
            shape = [int(sizes.get(size, size)) for size in word]
            if kind == "y":
                yield random.integers(0, shape[0], (B, *shape[1:]))
            elif kind == "m":
                yield random.integers(0, 2, (B, *shape))
            else:
                shape = [B] * (kind != "p") + shape
                yield np.asarray(random.uniform(self.low, 2, shape), dtype)

    def program(self, B, dtype=np.float64):
        """ell, the sum of the node's values times the last of the leaves; and the leaves."""
        leaves, nodes = [], []
        for (kind, *_), value in zip(self.operands, self.values(B, dtype), strict=True):
            leaf = Parameter(value) if kind in "bp" else Input()
            leaf.value = value
            leaves.append(leaf)
            nodes.append(Rows(leaf) if kind == "b" else leaf)
        z, w = self.make(*nodes), Input()
        Forward(z)
        shape = z.value.shape if z.batched else (B, *z.value.shape)
        w.value = np.asarray(np.random.default_rng(8).uniform(self.low, 2, shape), dtype)
        return Weighed(z, w), [*leaves, w]


PAIRS = [
    *("b b", "b b3", "b3 b", "b3 b3", "b3 b23", "b23 b", "b1 b3", "b3 b1"),
    *("b3 p3", "p3 b3", "b3 p1", "p1 b3", "b3 p", "p b3", "b p3", "p3 b", "b3 p23", "p23 b3"),
    *("p3 p3", "p p23", "p1 p3", "b3 x3", "x3 b3", "p3 x3"),
]
# With b and without, one of them repeated along the other's indices: what each operator does of
# its own.  How shapes meet is theirs together.
FEW_PAIRS = [
    *("b3 b3", "b3 b23", "b23 b", "b3 p3", "p b3", "b p3", "p p23", "p1 p3", "b3 x3"),
    "p3 x3",
]


def of_pairs(node, operation, low=-2.0, pairs=PAIRS, theirs=None):
    """An operator on operands of shapes that meet.  theirs: PyTorch's, if it is another one."""
    for x, y in map(str.split, pairs):
        indices = max(len(x), len(y)) - 1

        def reference(*tensors, words=(x, y), indices=indices):
            shapes = [
                t.shape[:1] + (1,) * (indices + 1 - len(word)) + t.shape[1:]
                if word[0] in "bx"
                else t.shape
                for t, word in zip(tensors, words, strict=True)
            ]
            return (theirs or operation)(*map(torch().reshape, tensors, shapes))

        yield Case(node, f"{x} {y}", operation, reference, low)


def tensor(x):
    return torch().as_tensor(x, dtype=torch().float64)


CHOICES = {  # as PyTorch makes them
    "Maximum": lambda x, y: torch().maximum(tensor(x), tensor(y)),
    "Minimum": lambda x, y: torch().minimum(tensor(x), tensor(y)),
    "Where": lambda mask, x, y: torch().where(mask != 0, x, y),
}


def of_formulas():
    """Operators with numbers on either side, and with one node on both; as Python has them."""
    formulas = {
        Add: ["x + 2", "2 + x", "x + x", "x + 0.5 + y"],
        Subtract: ["x - 2", "2 - x", "x - x", "y - (x - y)"],
        Multiply: ["x * 2", "2 * x", "-x", "x * x", "-x * -y"],
        Divide: ["x / 2", "2 / x", "x / x", "x / (y / x)"],
        Power: ["x ** 3", "x ** -1", "x ** 0.5", "x ** 0", "x ** 1", "2 ** x", "0 ** x", "x ** x"],
        Square: ["x ** 2", "x ** 2.0", "(x + x + y) ** 2"],
        Maximum: ["Maximum(x, 1)", "Maximum(1.2, x)", "Maximum(x, x)", "Maximum(x * y, y)"],
        Minimum: ["Minimum(x, 1)", "Minimum(1.2, x)", "Minimum(x, x)", "Minimum(x * y, y)"],
        Where: ["Where(x - x, x, y)", "Where(x, 2, y)", "Where(x, x, -1) + y"],
    }
    for node, texts in formulas.items():
        for text in texts:
            formula = eval(f"lambda x, y: {text}")
            in_torch = eval(f"lambda x, y: {text}", CHOICES)
            yield Case(node, "b3 b3", formula, in_torch, low=0.5, name=text)


def of_indices():
    """All products that MatMul's docstring names, as einsum spells them."""
    sizes = {"i": "2", "k": "3", "j": "4"}
    xs = [b + i + "k" for b in ("", "b") for i in ("", "i")]
    ys = [b + "k" + j for b in ("", "b") for j in ("", "j")]
    for x, y in [(x, y) for x in xs for y in ys]:
        z = "".join(i for i in "bij" if i in x + y)

        def reference(x, y, indices=f"{x},{y}->{z}"):
            return importlib.import_module("torch").einsum(indices, x, y)

        operands = " ".join(
            ("b" if "b" in word else "p") + "".join(sizes[i] for i in word if i != "b")
            for word in (x, y)
        )
        yield Case(MatMul, operands, operator.matmul, reference, name=f"{x} @ {y}")
    yield Case(MatMul, "x3 p34", operator.matmul)
    yield Case(MatMul, "p43 x3", operator.matmul, lambda W, x: x @ W.T)


def of_numbers(node, reference):
    """A node that acts on each number by itself."""
    return [Case(node, operands, node, reference) for operands in ("b", "b3", "b23", "p3", "p")]


def affine(x, w, c):
    return Affine(Package(w=w, b=c), x)


def picked(Q, y):
    return Q.gather(1, y[:, None])[:, 0]


def with_other_uses(s, y):
    Q = Softmax(s)
    return LogLoss(Q, y) * Q + Q * s


def reference_with_other_uses(s, y):
    Q = s.softmax(1)
    return -picked(Q, y).log()[:, None] * Q + Q * s


def flat(x):
    return x.flatten(1) if x.ndim > 1 else x[:, None]


def torch():
    return importlib.import_module("torch")


def functional():
    return importlib.import_module("torch.nn.functional")


def of_tensors():
    """Nodes that arrange indices or add over them, and what PyTorch does with b in front."""
    for shape in (6,), (2, 3), (3, -1), (-1,), (1, 6, 1):
        yield Case(
            Reshape,
            "b32",
            lambda x, shape=shape: Reshape(x, shape),
            lambda x, shape=shape: x.reshape(len(x), *np.empty(6).reshape(shape).shape),
            name=str(shape),
        )
    yield Case(Reshape, "p32", lambda x: Reshape(x, (2, 3)), lambda x: x.reshape(2, 3))
    yield Case(Reshape, "b1", lambda x: Reshape(x, ()), lambda x: x[:, 0])
    yield Case(Reshape, "p1", lambda x: Silu(Reshape(x, ())), lambda x: functional().silu(x[0]))
    for axis in None, (0, 1, 2), (2, 0, 1), (1, 0, 2), (-1, 0, 1):
        order = (2, 1, 0) if axis is None else [k % 3 for k in axis]
        yield Case(
            Transpose,
            "b234",
            lambda x, axis=axis: Transpose(x, axis),
            lambda x, order=order: x.permute(0, *(k + 1 for k in order)),
            name=str(axis),
        )
    yield Case(Transpose, "p23", Transpose, lambda x: x.T)
    yield Case(Transpose, "b3", Transpose, lambda x: x)
    for axis in 0, 1, -1, -2:
        there = axis + 1 if axis >= 0 else axis
        yield Case(
            Concat,
            "b22 b22 b22",
            lambda *x, axis=axis: Concat(x, axis),
            lambda *x, there=there: torch().cat(x, there),
            name=f"axis {axis}",
        )
        yield Case(
            Stack,
            "b23 b23 x23",
            lambda *x, axis=axis: Stack(x, axis),
            lambda *x, there=there: torch().stack(x, there),
            name=f"axis {axis}",
        )
    yield Case(Stack, "b b", lambda *x: Stack(x), lambda *x: torch().stack(x, 1))
    yield Case(Stack, "p23 p23", lambda *x: Stack(x), lambda *x: torch().stack(x))
    yield Case(
        Stack, "b2", lambda x: Stack([x, x]), lambda x: torch().stack([x, x], 1), name="twice"
    )
    for operands, widths, value in (
        ("b234", [(0, 0), (1, 2), (3, 0)], 0),
        ("b234", [(1, 0), (0, 0), (0, 1)], -1.5),
        ("p3", [(2, 1)], 0.5),
        ("b12", [(0, 0), (0, 0)], 3),
    ):
        yield Case(
            Pad,
            operands,
            lambda x, widths=widths, value=value: Pad(x, widths, value),
            lambda x, widths=widths, value=value: functional().pad(
                x, [width for pair in widths[::-1] for width in pair], value=value
            ),
            name=f"{operands}, {widths}, {value}",
        )
    yield Case(Concat, "b2 b1 x3", lambda *x: Concat(x), lambda *x: torch().cat(x, 1))
    yield Case(
        Concat,
        "b2",
        lambda x: Concat([x, x, x]),
        lambda x: torch().cat([x, x, x], 1),
        name="of itself",
    )
    yield Case(Concat, "p23 p13", lambda *x: Concat(x, 0), lambda *x: torch().cat(x, 0))
    for index in (
        0,
        -1,
        slice(1, 3),
        slice(None, None, 2),
        (slice(None), 1),
        (1, slice(0, 2)),
        slice(2, 2),
        (..., 0),
    ):
        there = (slice(None), *index) if isinstance(index, tuple) else (slice(None), index)
        yield Case(
            Slice,
            "b43",
            lambda x, index=index: Slice(x, index),
            lambda x, there=there: x[there],
            name=str(index),
        )
    yield Case(Slice, "p43", lambda x: Slice(x, 2), lambda x: x[2])
    yield Case(
        Einsum,
        "b3",
        lambda x: Einsum("bi,bi->b", x, x),
        lambda x: torch().einsum("bi,bi->b", x, x),
        name="of one node twice",
    )
    yield Case(Slice, "p3", lambda x: Slice(x, 1), lambda x: x[1])
    yield Case(Slice, "p43", lambda x: Slice(x, (1, 2)), lambda x: x[1, 2], name="one number")
    yield Case(
        Slice,
        "p43",
        lambda x: Slice(x, 2) * Slice(x, 1) + Slice(x, 2),
        lambda x: x[2] * x[1] + x[2],
        name="thrice",
    )
    yield Case(
        Slice,
        "b43",
        lambda x: Slice(x, 0) * Slice(x, 1) * Sum(x, 0) * Slice(x, 1),
        lambda x: x[:, 0] * x[:, 1] * x.sum(1) * x[:, 1],
        name="beside other uses",
    )
    for node, name in (Sum, "sum"), (Mean, "mean"), (LogSumExp, "logsumexp"):
        for axis in None, 0, 1, -1, (0, 2), (-1, -2):
            there = (1, 2, 3) if axis is None else axis if isinstance(axis, tuple) else (axis,)
            there = there if axis is None else tuple(a + 1 if a >= 0 else a for a in there)
            yield Case(
                node,
                "b234",
                lambda x, node=node, axis=axis: node(x, axis),
                lambda x, name=name, there=there: getattr(x, name)(there),
                name=str(axis),
            )
        yield Case(node, "b", node, lambda x: x, name="of no indices")
        yield Case(
            node, "p34", lambda x, node=node: node(x, 0), lambda x, name=name: getattr(x, name)(0)
        )


def of_letters():
    """Sums of products as einsum spells them, b first."""
    for indices, operands in {
        "bi,ij->bj": "b3 p34",
        "ij,bi->bj": "p34 b3",
        "bti,ij->btj": "b23 p34",
        "bti,bsi->bts": "b23 b43",
        "bhti,bhsi->bhts": "b223 b243",
        "bhts,bshi->bthi": "b234 b423",
        "bi,bj->bij": "b3 b4",
        "bi,bi->b": "b3 b3",
        "bi,bi->bi": "b3 b3",
        "bij,jk->bi": "b32 p24",
        "bij,k->bj": "b32 p4",
        "bij->bji": "b32",
        "bij->bj": "b32",
        "b->b": "b",
        "ij,jk->ik": "p23 p34",
        "bi,ij,jk->bk": "b3 p34 p42",
        "bi,ij,bj->b": "b3 p34 b4",
        "bi,i,i->bi": "b3 p3 p3",
        "ij,bi,jk->bk": "p34 b3 p42",
        "bi,ij,kj,k->b": "b3 p34 p24 p2",
        "bkt,tj->bkj": "x23 p34",
    }.items():
        yield Case(
            Einsum,
            operands,
            lambda *x, indices=indices: Einsum(indices, *x),
            lambda *x, indices=indices: torch().einsum(indices, *x),
            name=indices,
        )


def conv(stride=1, padding=0):
    return dict(
        make=lambda x, w, c: Conv2D(Package(w=w, b=c), x, stride, padding),
        reference=lambda x, w, c: functional().conv2d(x, w, -c, stride, padding),
        name=f"stride {stride}, padding {padding}",
    )


def largest(x, size, stride):
    return x.unfold(2, size, stride).unfold(3, size, stride).amax((4, 5))


def of_images():
    """Images that are not square, strides that do not divide, windows as large as the image."""
    for operands in "b154 p2132 p2", "b245 p3222 p3", "b233 p1233 p1", "x145 p2123 p2":
        for stride, padding in (1, 0), (2, 0), (1, 1), (2, 1), (3, 2):
            settings = conv(stride, padding)
            settings["name"] = f"{operands}, {settings['name']}"
            yield Case(Conv2D, operands, **settings)
    for operands in "b154", "b245", "b233":
        for size, stride in (2, None), (2, 1), (3, 2), (1, 1), (3, 1):
            yield Case(
                MaxPool,
                operands,
                lambda x, size=size, stride=stride: MaxPool(x, size, stride),
                lambda x, size=size, stride=stride: largest(x, size, stride or size),
                name=f"{operands}, {size} by {stride}",
            )
            yield Case(
                AveragePool,
                operands,
                lambda x, size=size, stride=stride: AveragePool(x, size, stride),
                lambda x, size=size, stride=stride: functional().avg_pool2d(x, size, stride),
                name=f"{operands}, {size} by {stride}",
            )
    yield Case(
        Conv2D,
        "b155 p2122 p2 p3222 p3",
        lambda x, w, c, w2, c2: Conv2D(
            Package(w=w2, b=c2), Relu(MaxPool(Conv2D(Package(w=w, b=c), x), 2))
        ),
        lambda x, w, c, w2, c2: functional().conv2d(
            largest(functional().conv2d(x, w, -c), 2, 2).relu(), w2, -c2
        ),
        name="of a pool of a Conv2D",
    )


def convolutions(node, operands, *how):
    """A Conv2D or Conv1D, with a bias and without: stride, padding, dilation and groups."""

    def reference(x, w, *c):
        bias = -c[0] if c else None
        return getattr(functional(), node.__name__.lower())(x, w, bias, *how)

    for c in " p4", "":
        yield Case(
            node,
            operands + c,
            lambda x, w, *c: node(Package(w=w, **dict(zip("b", c, strict=False))), x, *how),
            reference,
            name=f"{operands}{c}, {how}",
        )


def pool(node, name, operands, *how):
    reference = lambda x: getattr(functional(), name)(x, *how)  # noqa: E731
    return Case(node, operands, lambda x: node(x, *how), reference, name=f"{operands}, {how}")


def of_windows():
    """Of other sizes along each axis, dilated, in groups, beside the image; and in one dimension.

    The arguments are those of torch.nn.functional.
    """
    yield from convolutions(Conv2D, "b254 p4132", (1, 2), (2, 0), (1, 2), 2)
    yield from convolutions(Conv2D, "b465 p4123", (2, 1), (1, 3), (3, 2), 4)
    yield from convolutions(Conv2D, "x245 p4223", 3, (0, 1), (2, 1))
    yield from convolutions(Conv1D, "b27 p423")
    yield from convolutions(Conv1D, "b46 p422", 2, 1, 3, 2)
    for operands, *how in ("b154", (2, 3), (1, 2)), ("b254", 3, 2, (1, 0)), ("b245", 2, 3, 1):
        yield pool(MaxPool, "max_pool2d", operands, *how)
        yield pool(AveragePool, "avg_pool2d", operands, *how)
        yield pool(AveragePool, "avg_pool2d", operands, *(*how, 0)[:3], False, False)
    for how in (2, 2, 0, 1, True), (3, (2, 3), 1, 1, True), ((2, 3), 1, (1, 0), (2, 1)):
        yield pool(MaxPool, "max_pool2d", "b156", *how)
    for how in (2, 2, 0, True), (3, (2, 3), 1, True, False), (3, 2, (1, 0), True):
        yield pool(AveragePool, "avg_pool2d", "b156", *how)
    for how in (2,), (3, 2, 1), (3, 2, 1, 2, True):
        yield pool(MaxPool1D, "max_pool1d", "b28", *how)
    for how in (2,), (3, 2, 1, True), (3, 2, 1, True, False):
        yield pool(AveragePool1D, "avg_pool1d", "b28", *how)
    for operands, axes in ("b234", (2, 3)), ("b25", 2):
        yield Case(
            GlobalAveragePool, operands, GlobalAveragePool, lambda x, axes=axes: x.mean(axes)
        )


def heads(x, n):
    return x.unflatten(2, (n, -1)).transpose(1, 2)


def attention(q, k, v, *more):
    """PyTorch's, with a mask of its own shape; a query that looks at nothing gets 0."""
    *mask, n, groups, causal = more
    (B, T), S = q.shape[:2], k.shape[1]
    looks = torch().ones(B, T, S, dtype=bool)
    if mask:
        looks = looks & (mask[0] != 0).reshape(B, *mask[0].shape[1:-1] or [1], S)
    looks = looks & torch().ones(T, S, dtype=bool).tril() if causal else looks
    blind = ~looks.any(2, keepdim=True)
    y = functional().scaled_dot_product_attention(
        heads(q, n),
        heads(k, groups or n),
        heads(v, groups or n),
        (looks | blind)[:, None],
        enable_gqa=True,
    )
    return y.transpose(1, 2).flatten(2) * ~blind


def of_sequences():
    for operands, n in (
        ("b34 b34 b34", 2),
        ("b24 b34 b36", 2),
        ("b14 b34 b32", 1),
        ("x34 b34 b34", 1),
    ):
        for causal in (False, True) if operands[1] == operands[5] else (False,):
            yield Case(
                Attention,
                operands,
                lambda q, k, v, n=n, causal=causal: Attention(q, k, v, n, causal),
                lambda q, k, v, n=n, causal=causal: (
                    functional()
                    .scaled_dot_product_attention(
                        heads(q, n), heads(k, n), heads(v, n), is_causal=causal
                    )
                    .transpose(1, 2)
                    .flatten(2)
                ),
                name=f"{operands}, {n} heads{', causal' * causal}",
            )
    for operands, n, groups, causal in (
        ("b34 b34 b34 m3", 2, None, False),
        ("b34 b34 b34 m33", 2, None, True),
        ("b24 b34 b36 m23", 2, None, False),
        ("b38 b34 b32", 4, 2, False),
        ("b38 b34 b32 m3", 4, 2, True),
        ("b26 b32 b31 m23", 3, 1, False),
        ("b34 b34 b34 m3", 2, 2, True),
    ):
        yield Case(
            Attention,
            operands,
            lambda *x, n=n, groups=groups, causal=causal: Attention(
                *x[:3], n, causal, *x[3:], groups=groups
            ),
            lambda *x, n=n, groups=groups, causal=causal: attention(*x, n, groups, causal),
            name=f"{operands}, {n} heads{f', {groups} groups' * bool(groups)}{', causal' * causal}",
        )
    for operands in "p43 y4", "p43 y42", "p41 y423", "p13 y12":
        yield Case(Embedding, operands, Embedding, lambda W, y: functional().embedding(y, W))
    yield Case(
        Embedding,
        "p43 y42",
        lambda W, y: MatMul(Embedding(W, y), Transpose(W)),
        lambda W, y: functional().embedding(y, W) @ W.T,
        name="tied to the scores",
    )

    def gates(z, n):
        return z.chunk(n, 1)

    def lstm(x, z, s):
        (i, f, o, g), (c, _) = gates(x + z, 4), gates(s, 2)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return torch().cat([c, o.sigmoid() * c.tanh()], 1)

    for operands in "y4 b", "y43 b3":
        yield Case(NotEqual, operands, lambda y, x: x * NotEqual(y, 2), lambda y, x: x * (y != 2))
    yield Case(LSTMCell, "b8 b8 b4", LSTMCell, lstm)

    def gru(x, z, h):
        (xr, xu, xn), (zr, zu, zn) = gates(x, 3), gates(z, 3)
        r, u = (xr + zr).sigmoid(), (xu + zu).sigmoid()
        return (1 - u) * (xn + r * zn).tanh() + u * h

    yield Case(GRUCell, "b6 b6 b2", GRUCell, gru)
    yield Case(Zeros, "b3 b2", lambda x, y: y + Zeros(x, 2), lambda x, y: y + 0 * x.sum())
    for operands in "y4 b4", "y43 b34":
        yield Case(
            OneHot,
            operands,
            lambda y, x: x * OneHot(y, 4),
            lambda y, x: x * functional().one_hot(y, 4),
        )


def normalized(x):
    return functional().layer_norm(x, x.shape[-1:])


def of_normalizations():
    for operands in "b4 p4 p4", "b34 p4 p4", "b1 p1 p1", "x34 p4 p4":
        yield Case(
            LayerNorm,
            operands,
            lambda x, w, c: LayerNorm(Package(w=w, b=c), x),
            lambda x, w, c: normalized(x) * w - c,
        )
    for operands in "b4 p4", "b34 p4", "x34 p4":
        yield Case(
            RMSNorm,
            operands,
            lambda x, w: RMSNorm(w, x),
            lambda x, w: functional().rms_norm(x, x.shape[-1:], w, 1e-5),
        )
    for operands in "b4 p4 p4", "b234 p2 p2", "x34 p3 p3":
        yield Case(
            BatchNorm,
            operands,
            lambda x, w, c: BatchNorm(Package(w=w, b=c), x),
            lambda x, w, c: functional().batch_norm(
                x, torch().zeros(len(w)).to(x), torch().ones(len(w)).to(x), w, -c
            ),
        )
    yield Case(Dropout, "b34", lambda x: Dropout(x, 0.4), lambda x: x * 1)
    for operands in "b34", "b234":
        yield Case(Shift, operands, lambda x: Shift(x, 0.4), lambda x: x * 1)
        yield Case(Crop, operands, lambda x: Crop(x, 2), lambda x: x * 1)
        yield Case(Flip, operands, Flip, lambda x: x * 1)
        yield Case(Cutout, operands, lambda x: Cutout(x, 2), lambda x: x * 1)
    for z in "b", "b45", "x45", "p45":
        yield Case(Normal, f"b3 {z}", lambda x, z: x + 0 * Normal(z, 3), lambda x, z: x * 1)


def log_likelihood(s, y):
    return s.log_softmax(-1).gather(-1, y[..., None])[..., 0]


def masked_mean(losses, mask):
    losses, mask = flat(losses), flat(mask)
    return (losses * mask).sum(1) / mask.sum(1).clamp(min=1)


def of_positions(losses, mask):
    """Of which the mean is that of all unmasked positions."""
    return (losses * mask).sum(1) * len(losses) / mask.sum().clamp(min=1)


W = [0.5, 2.0, 0.0, 1.5]


def cross_entropy(s, y, m=None, **how):
    """PyTorch's, (B,), of which the mean is that over all positions; y of -100 do not count."""
    if m is not None:
        y = y.masked_fill(m == 0, -100)
    if "weight" in how:
        how["weight"] = s.new_tensor(how["weight"])
    losses = functional().cross_entropy(s.movedim(-1, 1), y, reduction="none", **how)
    counted = s.new_tensor(W)[y.clamp(min=0)] if "weight" in how else torch().ones_like(losses)
    counted = counted * (y != -100)
    return flat(losses).sum(1) * len(y) / counted.sum() if len(y) else flat(losses).sum(1)


def of_distributions():
    both = dict(weights=W, smoothing=0.1), dict(weight=W, label_smoothing=0.1)
    hows = (dict(weights=W), dict(weight=W)), (dict(smoothing=0.3), dict(label_smoothing=0.3)), both
    for ours, theirs in hows:
        for operands in "b4 y4", "b34 y43":
            yield Case(
                CrossEntropy,
                operands,
                lambda s, y, how=ours: LogLoss(Softmax(s), y, mean="positions", **how),
                lambda s, y, how=theirs: cross_entropy(s, y, **how),
                name=f"{operands}, {', '.join(ours)}",
            )
        yield Case(
            CrossEntropy,
            "b34 y43 m3",
            lambda s, y, m, how=ours: LogLoss(Softmax(s), y, m, "positions", **how),
            lambda s, y, m, how=theirs: cross_entropy(s, y, m, **how),
            name=f"{', '.join(ours)}, masked",
        )
    yield Case(
        Occurrences,
        "b34 y43 m3",
        lambda s, y, m: LogLoss(Softmax(s), y, m, weights=W),
        lambda s, y, m: cross_entropy(s, y, m, weight=W),
    )
    yield Case(
        CrossEntropy,
        "b34 x34 m3",
        lambda s, y, m: LogLoss(Softmax(s), Softmax(y), m, "rows", W, 0.1),
        lambda s, y, m: masked_mean(
            functional().cross_entropy(
                s.mT, y.softmax(-1).mT, s.new_tensor(W), reduction="none", label_smoothing=0.1
            ),
            m,
        ),
        name="of a distribution",
    )
    yield Case(
        CrossEntropy,
        "b4 b4",
        lambda s, y: CrossEntropy(Softmax(s), Softmax(y)),
        lambda s, y: functional().cross_entropy(s, y.softmax(-1), reduction="none"),
        name="of a distribution that varies",
    )


def of_losses():
    for operands in "b34 y43", "b234 y423", "b31 y13":
        yield Case(
            LogLoss,
            operands,
            lambda s, y: LogLoss(Softmax(s), y),
            lambda s, y: -log_likelihood(s, y).flatten(1).mean(1),
            name=f"{operands}, positions",
        )
    for operands in "b34 y43 m3", "b234 y423 m23", "b4 y4 m":
        yield Case(
            LogLoss,
            operands,
            lambda s, y, m: LogLoss(Softmax(s), y, m),
            lambda s, y, m: masked_mean(-log_likelihood(s, y), m),
            name=f"{operands}, masked",
        )
    yield Case(
        LogLoss,
        "b34 y43 m3",
        lambda s, y, m: LogLoss(Softmax(s), y, m, mean="positions"),
        lambda s, y, m: of_positions(-log_likelihood(s, y), m),
        name="the mean over positions",
    )
    yield Case(
        LogLoss,
        "b34 y43 m3",
        LogLoss,
        lambda Q, y, m: masked_mean(-Q.gather(-1, y[..., None])[..., 0].log(), m),
        0.1,
        "of probabilities, masked",
    )
    yield from of_distributions()
    yield Case(
        BinaryLogLoss,
        "b y2",
        lambda s, y: BinaryLogLoss(s * 5, y),
        lambda s, y: functional().binary_cross_entropy_with_logits(
            5 * s, y.to(s), reduction="none"
        ),
    )


CASES = [
    *of_tensors(),
    *of_letters(),
    *of_images(),
    *of_windows(),
    *of_sequences(),
    *of_normalizations(),
    *of_losses(),
    Case(Codes, "p34 y32", lambda W, y: Embedding(W, Codes(y * 1.0)), lambda W, y: W[y]),
    Case(MatMul, "b223 b234", operator.matmul),
    Case(MatMul, "b223 p34", operator.matmul),
    Case(MatMul, "b223 p234", operator.matmul),
    Case(MatMul, "p223 b234", operator.matmul),
    Case(MatMul, "b223 b134", operator.matmul),
    *of_numbers(Silu, lambda x: functional().silu(x)),
    *of_numbers(Gelu, lambda x: functional().gelu(x, approximate="tanh")),
    *(
        Case(
            Gelu,
            f"{n}",
            lambda x: Gelu(x, "none"),
            lambda x: functional().gelu(x),
            name=f"{n}, exact",
        )
        for n in ("b3", "p23", "p")
    ),
    *of_numbers(Softplus, lambda x: functional().softplus(x)),
    *of_numbers(Elu, lambda x: functional().elu(x)),
    Case(Elu, "b3", lambda x: Elu(x, 0.3), lambda x: functional().elu(x, 0.3), name="0.3"),
    *(
        Case(
            Clip,
            "b23",
            lambda x, ends=ends: Clip(x, *ends),
            lambda x, ends=ends: x.clamp(*ends),
            name=f"{ends}",
        )
        for ends in ((-0.5, 1), (None, 0.5), (0, None))
    ),
    Case(Clip, "p", lambda x: Clip(x, -1, 1.5), lambda x: x.clamp(-1, 1.5)),
    *of_pairs(Maximum, Maximum, pairs=FEW_PAIRS, theirs=CHOICES["Maximum"]),
    *of_pairs(Minimum, Minimum, pairs=FEW_PAIRS, theirs=CHOICES["Minimum"]),
    Case(Where, "m3 b3 x3", Where, CHOICES["Where"]),
    Case(Where, "m b23 p3", Where, lambda m, x, y: CHOICES["Where"](m[:, None, None], x, y)),
    Case(Where, "m3 p b", Where, lambda m, x, y: CHOICES["Where"](m, x, y[:, None])),
    Case(Where, "m23 b23", lambda m, x: Where(m, x, 0), lambda m, x: CHOICES["Where"](m, x, 0.0)),
    *of_numbers(LeakyRelu, lambda x: functional().leaky_relu(x)),
    *(
        Case(
            LeakyRelu,
            "b3",
            lambda x: LeakyRelu(x, 0.3),
            lambda x: functional().leaky_relu(x, 0.3),
            name="0.3",
        ),
    ),
    *of_numbers(Exp, lambda x: x.exp()),
    *(
        Case(node, operands, node, lambda x, name=name: getattr(x, name)(), 0.1)
        for node, name in ((Log, "log"), (Sqrt, "sqrt"))
        for operands in ("b", "b3", "b23", "p3", "p")
    ),
    Case(Affine, "b23 p34 p4", affine, lambda x, w, c: x @ w - c),
    Case(Affine, "x23 p34 p4", affine, lambda x, w, c: x @ w - c),
    Case(Affine, "b3 p32 p2", affine, lambda x, w, c: x @ w - c),
    Case(Affine, "b3 p31 p1", affine, lambda x, w, c: x @ w - c),
    Case(Affine, "x3 p32 p2", affine, lambda x, w, c: x @ w - c),
    *of_numbers(Sigmoid, lambda x: x.sigmoid()),
    *of_numbers(LogSigmoid, lambda x: functional().logsigmoid(x)),
    *of_numbers(Tanh, lambda x: x.tanh()),
    *of_numbers(Relu, lambda x: x.relu()),
    *of_numbers(Square, lambda x: x * x),
    Case(Softmax, "b4", Softmax, lambda s: s.softmax(1)),
    Case(Softmax, "b1", Softmax, lambda s: s.softmax(1)),
    *(Case(LogSoftmax, n, LogSoftmax, lambda s: s.log_softmax(-1)) for n in ("b4", "b1", "b234")),
    *(
        Case(
            LogOthers,
            n,
            lambda s: Log(1 - Softmax(s)),
            lambda s: (1 - s.softmax(-1)).log(),
        )
        for n in ("b4", "b2", "b234")
    ),
    *(
        Case(
            LogLoss,
            operands,
            lambda s, y: LogLoss(Softmax(s), y),
            lambda s, y: -picked(s.log_softmax(1), y),
        )
        for operands in ("b4 y4", "b1 y1")
    ),
    Case(LogLoss, "b4 y4", LogLoss, lambda Q, y: -picked(Q, y).log(), 0.1, "of probabilities"),
    Case(
        LogLoss,
        "b4 y4",
        with_other_uses,
        reference_with_other_uses,
        name="of a Softmax with other uses, and scores too",
    ),
    *(
        Case(SquareLoss, operands, SquareLoss, lambda x, y: flat((x - y) ** 2).sum(1))
        for operands in ("b b", "b3 b3", "b23 b23", "b3 x3", "x3 b3")
    ),
    *(Case(Flatten, operands, Flatten, flat) for operands in ("b", "b3", "b23")),
    *of_pairs(Add, operator.add, pairs=FEW_PAIRS),
    *of_pairs(Subtract, operator.sub),
    *of_pairs(Multiply, operator.mul),
    *of_pairs(Divide, operator.truediv, low=0.5, pairs=FEW_PAIRS),
    *of_pairs(Power, operator.pow, low=0.5, pairs=FEW_PAIRS),
    *of_formulas(),
    *of_indices(),
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def nodes_of_the_package():
    """Every class of node that a module of dpedf.ops defines."""
    for found in pkgutil.walk_packages(ops.__path__, "dpedf.ops."):
        for name, thing in vars(importlib.import_module(found.name)).items():
            node = inspect.isclass(thing) and issubclass(thing, CompNode)
            if node and thing.__module__ == found.name and thing not in ABSTRACT:
                yield pytest.param(thing, id=name)


@pytest.mark.parametrize("node", list(nodes_of_the_package()))
def test_every_node_has_a_case(node):
    programs = [case.program(2)[0] for case in CASES if case.node is node]
    assert programs, f"no case for {node.__name__}, expected one in CASES of tests/test_ops.py"
    for ell in programs:
        assert node in {type(n) for n in CompNodes(ell)}


@each_case
def test_gradients_agree_with_finite_differences(case):
    ell, leaves = case.program(3)
    check.gradients(ell, samples=1000)


@each_case
def test_values_and_gradients_agree_with_pytorch(case):
    pytest.importorskip("torch", reason="the second reference is PyTorch")
    compare_with_pytorch(case=case)


@each("B", [0, 1, 5])
def compare_with_pytorch(case, B):
    ell, leaves = case.program(B)
    Forward(ell)
    Backward(ell, 4)

    tensors = [torch().tensor(leaf.value) for leaf in leaves]
    learnt = [k for k, leaf in enumerate(leaves) if isinstance(leaf, Parameter)]
    for k in learnt:
        tensors[k].requires_grad_()
    *operands, w = tensors
    z = case.reference(*operands)
    torch().sum(w * z / 4).backward()

    assert ell.z.value.shape == z.shape
    np.testing.assert_allclose(ell.z.value, z.detach(), rtol=1e-10, atol=1e-10)
    for k in learnt:
        expected = 0 if tensors[k].grad is None else tensors[k].grad
        np.testing.assert_allclose(leaves[k].grad, expected, rtol=1e-10, atol=1e-10)


# But for what SquareLoss computes of its x, which its y needs as well.
FROM_INPUTS = [c for c in CASES if "x3" in c.operands and c.name != "SquareLoss: x3 b3"]


@pytest.mark.parametrize("case", FROM_INPUTS, ids=lambda case: case.name)
def test_no_gradient_is_computed_for_an_input(case, monkeypatch):
    ell, leaves = case.program(3)
    Forward(ell)
    monkeypatch.setattr(Input, "addgrad", lambda x, delta: pytest.fail("a gradient for an input"))
    Backward(ell)


def move(nodes, put=put):
    """The values and gradients of inputs and parameters go to the device."""
    for n in nodes:
        n.value = put(n.value)
        if isinstance(n, Parameter):
            n.differentiate_into(put(n.grads))


def move_state(ell, put=put):
    """The running values of computed nodes go there, too, in the dtype of the graph."""
    for n in CompNodes(ell):
        for name, array in getattr(n, "state", {}).items():
            n.state[name] = put(array.astype(ell.w.value.dtype.name))


def passed(ell, leaves):
    """Everything that a pass left, by name, and the gradients of parameters, by number."""
    left = {k: leaf.grad for k, leaf in enumerate(leaves) if isinstance(leaf, Parameter)}
    for n, name in program(ell).names.items():
        left |= {f"{name}.value": n.value, f"{name}.grad": n.grad}
    return {name: array for name, array in left.items() if array is not None}


def watch_gradients(ell):
    """From now on, the list of (node, its grad as its backward found it)."""
    came = []
    for n in CompNodes(ell):

        def backward(n=n, original=n.backward):
            came.append((n, n.grad.copy()))
            original()

        n.backward = backward
    return came


@each_case
@each("dtype", [np.float32, np.float64])
@each("B", [0, 1, 4])
def test_a_device_gives_the_same_bits_in_the_same_dtype_and_so_does_a_second_pass(case, B, dtype):
    """And no backward changes what its node got, which may be another's as well."""
    (host, here), (device, there) = case.program(B, dtype), case.program(B, dtype)
    for n in CompNodes(device):
        n.value = None  # of the host, where the shape was found
    move(there)
    move_state(host, lambda array: array)
    move_state(device)
    values, came = [leaf.value.copy() for leaf in here], watch_gradients(host)
    for ell in host, device:
        Forward(ell)
        Backward(ell, 3)
    left = {name: array.copy() for name, array in passed(host, here).items()}
    found = passed(device, there)
    assert left.keys() == found.keys()
    for name, array in found.items():
        assert type(array) is DeviceArray, name
        own = case.node in OF_LABELS and left[name].dtype in (np.float32, np.intp)
        assert array.dtype == left[name].dtype == (left[name].dtype if own else dtype), name
        assert array.shape == left[name].shape, name
        assert get(array).tobytes() == left[name].tobytes(), name
    for n, grad in came:
        assert np.array_equal(n.grad, grad), type(n).__name__
    Forward(host)
    Backward(host, 3)
    for name, array in passed(host, here).items():
        assert array.tobytes() == left[name].tobytes(), name
    for leaf, value in zip(here, values, strict=True):
        assert np.array_equal(leaf.value, value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("model", [models.mlp, models.slides])
def test_a_device_trains_a_model_to_the_same_bits(model, dtype):
    x, y = Input((2, 3), dtype), Input((), np.uint8, 4)
    random, trained = np.random.default_rng(0), []
    images, labels = random.normal(size=(5, 2, 3)).astype(dtype), np.uint8([0, 3, 1, 1, 2])
    for place in np.array, put:
        Q, ell = model(x, y, sizes=[6, 5, 4])
        phi = Phi(ell, seed=1, dtype=dtype)
        phi.value = place(phi.value)
        for p, view in zip(phi.parameters, phi.views(phi.value), strict=True):
            p.value = view
        phi.differentiate_into(place(phi.grad[np.newaxis]))
        for rows in slice(0, 3), slice(3, 5), slice(5, 5):
            x.value, y.value = place(images[rows]), place(labels[rows])
            Forward(ell, train=True)
            Backward(ell, 3)
            SGD([phi], 0.5)
        trained.append(phi.value)
    host, device = trained
    assert type(device) is DeviceArray and device.dtype == dtype
    assert get(device).tobytes() == host.tobytes()


WAYS_TO_THE_HOST = {
    "np.asarray": lambda x: np.asarray(x) * 2,
    "np.array of a list": lambda x: np.array([x, x]),
    "float": lambda x: float(x.sum()),
    "int": lambda x: int(x.sum()),
    "bool": lambda x: x if x.max() > 0 else -x,
    "math": lambda x: math.log(x.sum()),
    "item": lambda x: x.max().item(),
    "tolist": lambda x: x.tolist(),
    "text": lambda x: f"{x}",
    "iteration": lambda x: [row for row in x],
    "a host array": lambda x: x + np.ones(3),
    "a host array on the left": lambda x: np.ones(3) * x,
    "a NumPy number": lambda x: np.float64(2) * x,
    "a host array in a list": lambda x: np.concatenate([x, np.ones((4, 3))]),
    "a host index": lambda x: x[np.array([0, 1])],
    "a host output": lambda x: np.exp(x, out=np.empty((4, 3))),
    "a host array as output of a product": lambda x: np.matmul(x, x.T, out=np.empty((4, 4))),
    "into a host array": lambda x: np.empty((4, 3)).__setitem__(..., x),
    "from a host array": lambda x: x.__setitem__(..., np.ones((4, 3))),
    "creation without like": lambda x: np.arange(4) + x[:, 0],
    "np.add.at": lambda x: np.add.at(x, 0, 1.0),
    "np.add.reduce": lambda x: np.add.reduce(x),
    "where": lambda x: np.add(x, x, where=x > 0),
    "initial": lambda x: x.max(axis=1, initial=0),
    "a mask": lambda x: x[x > 0],
    "nonzero": lambda x: np.nonzero(x),
    "allclose": lambda x: np.allclose(x, x),
    "vecdot": lambda x: np.vecdot(x, x),
}


@pytest.mark.parametrize("way", WAYS_TO_THE_HOST.values(), ids=WAYS_TO_THE_HOST)
def test_the_strict_device_catches_a_node_that_uses_the_host(way):
    class Faulty(CompNode):
        def __init__(self, x):
            self.x = x

        def forward(self):
            self.value = way(self.x.value)

    x = Input()
    node = Faulty(x)
    x.value = put(np.arange(12.0).reshape(4, 3))
    with pytest.raises(TypeError, match="a device array"):
        Forward(node)


def test_the_strict_device_does_what_cupy_does_and_no_more():
    cupy = pytest.importorskip("cupy", reason="compares with CuPy, which need not find a GPU")
    for name in strict.METHODS | strict.PROPERTIES:
        assert hasattr(cupy.ndarray, name), name
    for name, thing in vars(np).items():
        dispatched = isinstance(thing, np.ufunc) or hasattr(thing, "_implementation")
        if dispatched and "date" not in name and "busday" not in name:
            lacking = getattr(cupy, name, None) in (None, thing)
            assert lacking == (name in strict.MISSING), name


OPERATIONS = [operator.add, operator.sub, operator.mul, operator.truediv]


@settings(max_examples=150)
@given(
    mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3),
    st.tuples(st.booleans(), st.booleans()),
    st.integers(0, 3),
    st.sampled_from(OPERATIONS),
)
def test_operators_work_example_by_example_as_numpy_does_without_b(found, batched, B, operation):
    random, words = np.random.default_rng(0), []
    for shape, b in zip(found.input_shapes, batched, strict=True):
        words.append("b" * b + "p" * (not b) + "".join(map(str, shape)))
    ell, (x, y, w) = Case(Add, " ".join(words), operation, low=0.5).program(B)
    for p in x, y:
        p.value = random.uniform(0.5, 2, p.value.shape)
    Forward(ell)
    if any(batched):
        xs, ys = (p.value if b else [p.value] * B for p, b in zip((x, y), batched, strict=True))
        expected = [operation(*pair) for pair in zip(xs, ys, strict=True)]
        expected = np.reshape(expected, (B, *found.result_shape))
    else:
        expected = operation(x.value, y.value)
    assert np.array_equal(ell.z.value, expected)
    if B:
        check.gradients(ell, samples=20)
    else:
        Backward(ell)
        assert not x.grad.any() and not y.grad.any()


@pytest.mark.parametrize("number", [3, 3.0, True, np.int64(3), np.uint8(3), np.float64(3)])
def test_numbers_of_any_kind_leave_a_graph_in_float32(number):
    p = Parameter(np.float32([1, 2, 3]))
    for operation in [*OPERATIONS, operator.pow]:
        for z, expected in (
            (operation(p, number), operation(p.value, float(number))),
            (operation(number, p), operation(float(number), p.value)),
        ):
            Forward(z)
            Backward(z)
            assert z.value.dtype == z.grad.dtype == p.grad.dtype == np.float32
            assert np.array_equal(z.value, expected)


@pytest.mark.parametrize("operation", [*OPERATIONS, operator.pow, operator.matmul])
@pytest.mark.parametrize("other", [np.ones(3), [1, 2, 3], "3", None, 3j])
def test_what_is_no_node_and_no_number_is_refused(operation, other):
    p = Parameter(np.ones(3))
    for operands in (p, other), (other, p):
        with pytest.raises(TypeError) as caught:
            operation(*operands)
        said = "Parameter beside a ndarray, expected a node or a number: put arrays into an Input"
        assert not isinstance(other, np.ndarray) or str(caught.value) == said


@pytest.mark.parametrize("two", [2, 2.0, np.int32(2), np.float64(2)])
def test_a_power_of_two_is_a_square(two):
    x = Parameter(np.ones(3))
    assert type(x**two) is Square
    assert type(two**x) is Power


def test_x_to_the_0_is_1_and_flat_also_at_0():
    x = Parameter(np.array([-1.0, 0.0, 2.0]))
    z = x**0
    Forward(z)
    Backward(z)
    assert np.array_equal(z.value, [1, 1, 1])
    assert np.array_equal(x.grad, [0, 0, 0])


def test_x_to_the_1_has_slope_1_also_at_0():
    x = Parameter(np.array([-1.0, 0.0, 2.0]))
    z = x**1
    Forward(z)
    Backward(z, 1)
    assert np.array_equal(x.grad, [1, 1, 1])


@pytest.mark.parametrize("zero", [0, Parameter(np.zeros(3))])
def test_0_to_the_y_is_0_and_flat(zero):
    y = Parameter(np.array([1.0, 1.5, 2.0]))
    z = zero**y
    with np.errstate(all="raise"):
        Forward(z)
        Backward(z)
    assert np.array_equal(z.value, [0, 0, 0])
    assert np.array_equal(y.grad, [0, 0, 0])


def test_x_twice_and_y_squared_is_a_sum_of_contributions():
    x, y = Parameter(np.array(2.0)), Parameter(np.array(3.0))
    f = (x + x + y) ** 2
    Forward(f)
    Backward(f, 1)
    assert (f.value, x.grad, y.grad) == (49, 28, 14)


def extreme():
    """Scores of +-1e4 in float32, labels, and their softmax and log loss in float64."""
    random = np.random.default_rng(0)
    s = random.choice([-1e4, 0, 1e4], (64, 10)) + random.normal(size=(64, 10))
    s, y = s.astype(np.float32), random.integers(0, 10, 64)
    shifted = s.astype(np.float64) - s.max(axis=1, keepdims=True)
    Z = np.exp(shifted).sum(axis=1, keepdims=True)
    return s, y, np.exp(shifted) / Z, (np.log(Z) - shifted)[np.arange(64), y]


def scores_and_labels(s, y):
    p, labels = Parameter(s), Input()
    labels.value = y
    return p, Rows(p), labels


def test_log_loss_of_softmax_is_right_for_extreme_scores():
    s, y, Q, expected = extreme()
    p, rows, labels = scores_and_labels(s, y)
    ell = LogLoss(Softmax(rows), labels)
    with np.errstate(all="raise", under="ignore"):
        Forward(ell)
        Backward(ell)
    assert ell.value.dtype == p.grad.dtype == np.float32
    np.testing.assert_allclose(ell.value, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(p.grad * 64, Q - np.eye(10)[y], atol=1e-6)


def test_log_loss_of_softmax_is_right_where_softmax_has_other_uses():
    s, y, Q, expected = extreme()
    p, rows, labels = scores_and_labels(s, y)
    zero = Input()
    zero.value = np.zeros_like(s)
    softmax = Softmax(rows)
    ell = SquareLoss(softmax, zero) + LogLoss(softmax, labels)  # sum_j Q[b,j]**2 - log Q[b,y[b]]
    with np.errstate(all="raise", under="ignore"):
        Forward(ell)
        Backward(ell)
    squares = (Q**2).sum(axis=1)
    slope = Q - np.eye(10)[y] + 2 * Q * (Q - squares[:, np.newaxis])
    np.testing.assert_allclose(ell.value, expected + squares, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(p.grad * 64, slope, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fractions_are_no_labels(dtype):
    with pytest.raises(ValueError, match=f"labels of {np.dtype(dtype)}, expected integers"):
        LogLoss(Softmax(Input((3,))), Input((), dtype))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_labels_may_be_integers_of_any_size(dtype):
    s, y, Q, expected = extreme()
    p, rows, labels = scores_and_labels(s, y.astype(dtype))
    ell = LogLoss(Softmax(rows), labels)
    Forward(ell)
    Backward(ell)
    np.testing.assert_allclose(p.grad * 64, Q - np.eye(10)[y], atol=1e-6)


def softmax_by_rows(s):
    """A Softmax whose rows lie one after the other in memory."""
    Q = Softmax(s)

    def forward():
        Softmax.forward(Q)
        Q.value = np.ascontiguousarray(Q.value)

    Q.forward = forward
    return Q


@pytest.mark.parametrize("softmax", [Softmax, softmax_by_rows])
def test_log_loss_takes_a_softmax_in_any_memory_order(softmax):
    s, y, Q, expected = extreme()
    p, rows, labels = scores_and_labels(s, y)
    ell = LogLoss(softmax(rows), labels)
    Forward(ell)
    Backward(ell)
    np.testing.assert_allclose(ell.value, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(p.grad * 64, Q - np.eye(10)[y], atol=1e-6)


@pytest.mark.parametrize("order", ["C", "F"])
def test_log_loss_takes_probabilities_in_any_memory_order(order):
    y = np.array([0, 2, 1, 1])
    Q = np.random.default_rng(0).uniform(0.1, 1, (4, 3))
    p, rows, labels = scores_and_labels(np.array(Q, order=order), y)
    ell = LogLoss(rows, labels)
    Forward(ell)
    Backward(ell, 1)
    np.testing.assert_allclose(ell.value, -np.log(Q[np.arange(4), y]), rtol=1e-12)
    np.testing.assert_allclose(p.grad, -np.eye(3)[y] / Q, rtol=1e-12)


@pytest.mark.parametrize(
    "indices", ["bii->bi", "b...->b", "bi,ij->bk", "bi,ij->jj", "bi->bi", "bI,Ij->bj", "bi,ij->j"]
)
def test_einsum_refuses_what_it_cannot_mean(indices):
    operands = [Input((3,)), Parameter(np.zeros((3, 3)))]
    with pytest.raises(ValueError, match="Einsum"):
        Einsum(indices, *operands)


def test_einsum_keeps_the_batch_index_first():
    x = Input((3,))
    with pytest.raises(ValueError, match="expected b first"):
        Einsum("ib,bj->ij", Parameter(np.zeros((2, 3))), x)


@pytest.mark.parametrize("size, stride", [(2, 2), (3, 1)])
def test_a_tie_in_a_pool_gives_the_gradient_to_one_winner(size, stride):
    x = Parameter(np.zeros((2, 1, 5, 7)))
    pool = MaxPool(Rows(x), size, stride)
    ell = Weighed(pool, Input())
    Forward(pool)
    ell.w.value = np.ones_like(pool.value)
    Forward(ell)
    Backward(ell, 1)
    assert x.grad.sum() == pool.value.size
    first = np.zeros((5, 7))
    first[: 5 - size + 1 : stride, : 7 - size + 1 : stride] = 1
    assert (x.grad == first).all()


def test_a_mask_without_any_position_has_loss_0_and_no_gradient():
    s, y, mask = Parameter(np.zeros((2, 3, 4))), Input(), Input()
    y.value, mask.value = np.zeros((2, 3), int), np.array([[0, 0, 0], [0, 1, 0]])
    ell = LogLoss(Softmax(Rows(s)), y, mask)
    Forward(ell)
    Backward(ell)
    assert ell.value[0] == 0 and ell.value[1] == pytest.approx(math.log(4))
    assert not s.grad[0].any() and not s.grad[1, [0, 2]].any() and s.grad[1, 1].any()


def test_a_positions_label_of_probability_0_does_not_reach_a_masked_mean():
    Q, y, mask = Input(), Input(), Input()
    Q.value, y.value = np.array([[[1.0, 0], [0.5, 0.5]]]), np.array([[1, 1]])
    mask.value = np.array([[0, 1]])
    with np.errstate(divide="ignore"):
        p = Parameter(np.zeros((1, 2, 2)))
        ell = LogLoss(Rows(p) + Q, y, mask)
        Forward(ell)
        Backward(ell)
    assert ell.value == pytest.approx(math.log(2))
    assert p.grad.tolist() == [[[0, 0], [0, -2]]]


@pytest.mark.parametrize("s", [-1000.0, 1000.0])
def test_a_binary_log_loss_is_stable(s):
    scores, y = Parameter(np.array([s, s])), Input()
    y.value = np.array([0, 1])
    ell = BinaryLogLoss(Rows(scores), y)
    Forward(ell)
    Backward(ell, 1)
    assert ell.value.tolist() == [max(s, 0), max(-s, 0)]
    assert scores.grad.tolist() == [float(s > 0), float(s > 0) - 1]


def exact_gelu(x):
    return Gelu(x, "none")


@pytest.mark.parametrize("activation", [Elu, exact_gelu, Gelu, Silu, Sigmoid, Softplus])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_activation_warns_of_no_number(activation, dtype):
    x = Parameter(np.array([[-1e4, -200.0, -90, -1, 0, 1, 90, 200, 1e4]], dtype))
    ell = Sum(activation(Rows(x)))
    with np.errstate(all="raise", under="ignore"):
        Forward(ell)
        Backward(ell)
    assert np.isfinite(ell.value).all() and np.isfinite(x.grad).all()


@each("case", CASES)
def test_a_second_backward_finds_what_forward_kept(case):
    """No backward changes what it computes with, such as the weights of attention."""
    ell, leaves = case.program(3)
    Forward(ell, train=True)
    left = []
    for _ in range(2):
        Backward(ell)
        left.append([array.copy() for array in passed(ell, leaves).values()])
    for first, second in zip(*left, strict=True):
        assert np.array_equal(first, second)


def test_two_nodes_of_attention_keep_weights_of_their_own():
    random = np.random.default_rng(0)
    q, k, v = (Parameter(random.normal(size=(2, 4, 6))) for _ in range(3))
    for p in q, k, v:
        p.batched = True
    first, second = Attention(q, k, v, 2), Attention(q, k, v, 2, causal=True)
    Forward(ell := Sum(first + second))
    assert not np.shares_memory(first.a, second.a)
    before = first.a.copy()
    Backward(ell)
    assert np.array_equal(first.a, before) and (first.a != second.a).any()
    for p in q, k, v:
        p.value *= -1  # as an update would, in place
    assert np.array_equal(first.a, before)


@pytest.mark.parametrize("key", [np.nan, np.inf])
def test_positions_before_a_key_that_is_no_number_are_those_without_it(key):
    x = np.random.default_rng(0).normal(size=(2, 6, 4))
    q, k, v = (Input() for _ in range(3))

    def forward(T):
        q.value, k.value, v.value = x[:, :T], x[:, :T].copy(), x[:, :T]
        k.value[:, 4:] = key
        y = Attention(q, k, v, 2, causal=True)
        with np.errstate(invalid="ignore"):
            Forward(y)
        return y.value

    np.testing.assert_allclose(forward(6)[:, :4], forward(4), 1e-12)
    assert np.isnan(forward(6)[:, 4:]).any()


def test_parts_of_several_types_are_joined_in_one_that_holds_them():
    y, x = Input(), Input()
    y.value, x.value = np.array([1, 0]), np.array([[0.5, 0.7], [1.5, 2.7]], np.float32)
    for parts in [OneHot(y, 3), x], [x, OneHot(y, 3)]:
        joined = Concat(parts)
        Forward(joined)
        assert joined.value.dtype == np.float32
        assert joined.value.sum() == pytest.approx(x.value.sum() + 2)


def test_labels_in_sums_and_errors_leave_a_graph_in_float32():
    y, x = Input(), Input()
    y.value, x.value = np.array([[1, 0], [2, 2]]), np.ones((2, 3), np.float32)
    for ell in Sum(OneHot(y, 3), 0), Mean(OneHot(y, 3)), SquareLoss(x, Sum(OneHot(y, 3), 0)):
        Forward(ell)
        assert ell.value.dtype == np.float32
    targets = Input()
    targets.value = np.array([[1, 0, 2], [2, 2, 2]])
    ell = SquareLoss(x, targets)
    Forward(ell)
    assert ell.value.dtype == np.float32 and ell.value.tolist() == [2, 3]


# At infinity, at nan, and where one number is far larger or smaller than others.

NAN, INF = np.nan, np.inf
EDGES = {  # (node of x, PyTorch's, x)
    "what relu shuts out gets no gradient, were it infinite": (
        lambda x: Sqrt(Relu(x)),
        lambda t, x: x.relu().sqrt(),
        [[-4.0, 0.25, -0.0, 9.0]],
    ),
    "relu sends back the gradient of nan": (Relu, lambda t, x: x.relu(), [[NAN, 1.0, -1.0]]),
    "who loses in a pool gets no gradient, were it infinite": (
        lambda x: Sqrt(MaxPool(Reshape(x, (1, 4, 4)), 2)),
        lambda t, x: t.nn.functional.max_pool2d(x.reshape(-1, 1, 4, 4), 2).sqrt(),
        [[0.0, -1, -2, -3, -4, -5, -6, -7, 1, 2, 3, 4, 5, 6, 7, 8]],
    ),
    "nor in one whose windows overlap": (
        lambda x: Sqrt(MaxPool(Reshape(x, (1, 4, 4)), 2, 1)),
        lambda t, x: t.nn.functional.max_pool2d(x.reshape(-1, 1, 4, 4), 2, 1).sqrt(),
        [[0.0, -1, -2, -3, -4, -5, -6, -7, 1, 2, 3, 4, 5, 6, 7, 8]],
    ),
    "a pool sends the gradient of nan to it": (
        lambda x: MaxPool(Reshape(x, (1, 2, 4)), 2),
        lambda t, x: t.nn.functional.max_pool2d(x.reshape(-1, 1, 2, 4), 2),
        [[1.0, NAN, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]],
    ),
    "leaky relu of infinity": (
        lambda x: LeakyRelu(x, 0),
        lambda t, x: t.nn.functional.leaky_relu(x, 0.0),
        [[INF, 1.0, -1.0, NAN]],
    ),
    "gelu of large numbers": (
        Gelu,
        lambda t, x: t.nn.functional.gelu(x, approximate="tanh"),
        [[1e13, -1e13, 1e35, -1e35, 30, -30, 12, -12]],
    ),
    "exact gelu, also where it is small": (
        lambda x: Gelu(x, "none"),
        lambda t, x: x * t.special.erfc(-x * 0.5**0.5) / 2,
        [
            [INF, -INF, NAN, 1e13, -1e13, 30, -30, 12, -12],
            [-8, -4, -0.0, 1e-9, 1, 4, 5.66, 0.7, -5.66],
        ],
    ),
    "softplus": (
        Softplus,
        lambda t, x: t.nn.functional.softplus(x, threshold=800),
        [[INF, -INF, NAN, 90, -90, 700, 0, 1e-9, 30]],
    ),
    "elu": (
        lambda x: Elu(x, 0.5),
        lambda t, x: t.nn.functional.elu(x, 0.5),
        [[INF, -INF, NAN, 1e4, -1e4, -0.0, 0, -1e-9, 1e-9]],
    ),
    "what is cut off gets no gradient, were it infinite": (
        lambda x: Sqrt(Clip(x, 0)),
        lambda t, x: x.clamp(0).sqrt(),
        [[-4.0, 0.25, INF, NAN, 1]],
    ),
    "both ends belong to a clip": (
        lambda x: Clip(x, -1, 0.5),
        lambda t, x: x.clamp(-1, 0.5),
        [[-1, 0.5, -2, 2, -INF, INF, NAN, 0.25]],
    ),
    "the larger of nan, of equal ones and of infinities": (
        lambda x: Maximum(Slice(x, slice(0, 5)), Slice(x, slice(5, 10))),
        lambda t, x: t.maximum(x[:, :5], x[:, 5:]),
        [[NAN, 1, 2, INF, -INF, 1, NAN, 2, INF, 0], [0.0, 1, NAN, INF, 3, -0.0, 2, NAN, 5, -INF]],
    ),
    "the smaller one": (
        lambda x: Minimum(Slice(x, slice(0, 5)), Slice(x, slice(5, 10))),
        lambda t, x: t.minimum(x[:, :5], x[:, 5:]),
        [[NAN, 1, 2, INF, -INF, 1, NAN, 2, INF, 0], [0.0, 1, NAN, INF, 3, -0.0, 2, NAN, 5, -INF]],
    ),
    "who loses gets no gradient, were it infinite": (
        lambda x: Sqrt(Maximum(x, 0)) + Sqrt(Where(x, x, 0)),
        lambda t, x: t.maximum(x, t.zeros_like(x)).sqrt() + t.where(x != 0, x, 0.0).sqrt(),
        [[4.0, 0.25, 9.0, 1.0]],
    ),
    "layer norm of a large number": (
        lambda x: LayerNorm(Package(w=Parameter(np.ones(4)), b=Parameter(np.zeros(4))), x),
        lambda t, x: t.nn.functional.layer_norm(x, (4,)),
        [[1e20, 0, 0, 0], [1, 2, 3, 5], [-1e38, 1e38, 0, 0]],
    ),
    "rms norm of a large number": (
        lambda x: RMSNorm(Parameter(np.ones(4)), x),
        lambda t, x: t.nn.functional.rms_norm(x, (4,), eps=1e-5),
        [[1e20, 0, 0, 0], [1, 2, 3, 5], [-1e38, 1e38, 0, 0]],
    ),
    "a cell of small numbers": (
        lambda x: Slice(LSTMCell(x, 0 * x, Slice(0 * x, slice(0, 2))), 0),
        lambda t, x: x[:, 0].sigmoid() * x[:, 3].tanh(),
        [[0.5, 0.1, -0.3, 1e-5], [0, 0, 0, 1e-12]],
    ),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", EDGES)
def test_values_and_gradients_at_the_edges_are_those_of_pytorch_in_float64(name, dtype):
    torch = pytest.importorskip("torch", reason="the reference is PyTorch")
    node, theirs, rows = EDGES[name]
    x, w = Input((len(rows[0]),), dtype), Input()
    z = node(x)
    for p in Parameters(z):
        p.value = p.value.astype(dtype)
        p.differentiate_into(p.grads.astype(dtype))
    x.value = np.array(rows, dtype)
    leaf = torch.tensor(x.value.astype(float), requires_grad=True)
    y = theirs(torch, leaf)
    w.value = 1 + np.arange(y.numel(), dtype=dtype).reshape(y.shape)
    y.backward(torch.tensor(w.value.astype(float)))
    with np.errstate(all="ignore"), gradients_collected(z) as grads:
        ell = Weighed(z, w)
        Forward(ell)
        Backward(ell, B=1)
    rtol = 32 * np.finfo(dtype).eps
    np.testing.assert_allclose(z.value, y.detach(), rtol, 1e-37)
    largest = np.abs(leaf.grad[leaf.grad.isfinite()].numpy()).max(initial=0)
    np.testing.assert_allclose(grads[x], leaf.grad, rtol, rtol * largest)


@pytest.mark.parametrize("rows", [1_000_003, 2049])
@pytest.mark.parametrize("batched", [False, True])
def test_many_equal_numbers_of_float32_add_up(rows, batched):
    """NumPy adds those of all indices but the last one by one, and is off by 1 %."""
    x, c = Input(), Parameter(np.zeros(3, np.float32))
    x.value = np.full((1, rows, 3) if batched else (rows, 3), 0.1, np.float32)
    ell = Sum(x, 0) * c if batched else x * c
    Forward(ell)
    Backward(ell, B=1)
    np.testing.assert_allclose(c.grad, rows * np.float64(np.float32(0.1)), 2e-5)
    if batched:
        mean = Mean(x, 0)
        Forward(mean)
        np.testing.assert_allclose(mean.value, 0.1, 2e-5)


@pytest.mark.parametrize("slope", [2, -0.1])
def test_a_leaky_relu_refuses_a_slope_that_is_none(slope):
    with pytest.raises(ValueError, match="expected 0 <= slope <= 1"):
        LeakyRelu(Input((3,)), slope)


def test_a_batch_norm_refuses_what_has_no_rows():
    with pytest.raises(ValueError, match="without b"):
        BatchNorm(Package(w=Parameter(np.ones(3)), b=Parameter(np.zeros(3))), Parameter(np.ones(3)))


@pytest.mark.parametrize("s", [9.0, 12.0, 17.0])
def test_a_binary_log_loss_is_exact_where_it_is_small(s):
    scores, y = Input(), Input()
    scores.value, y.value = np.array([s, -s], np.float32), np.array([1, 0])
    ell = BinaryLogLoss(scores, y)
    Forward(ell)
    np.testing.assert_allclose(ell.value, math.log1p(math.exp(-s)), rtol=1e-6)


def test_a_look_at_a_part_of_a_program_leaves_its_names_and_numbers():
    x = Input((3,))
    early = Tanh(x)
    part = Square(Tanh(x))
    ell = Sum(part * early)
    Forward(ell)
    before = dict(program(ell).names), dict(program(ell).numbers)
    Forward(part)
    assert program(part).names[part] == "ell" and program(ell).names[part] == "z3"
    Forward(ell)
    assert (program(ell).names, program(ell).numbers) == before
