"""What nodes take as operands and arguments, against NumPy and PyTorch, and what they refuse."""

import inspect
import itertools
import operator
from contextlib import nullcontext

import numpy as np
import pytest
import slides
from collected import given
from products import each
from sliced import in_slices
from strict import get, put
from test_ops import CASES, nodes_of_the_package

from dpedf.edf import Backward, Forward, Input, Package, Parameter
from dpedf.ops import (
    Affine,
    AveragePool,
    Clip,
    Concat,
    Conv2D,
    Dropout,
    Einsum,
    Elu,
    Embedding,
    Exp,
    Gelu,
    LeakyRelu,
    Log,
    LogLoss,
    LogSumExp,
    Maximum,
    MaxPool,
    Mean,
    NotEqual,
    OneHot,
    Pad,
    Relu,
    Reshape,
    Sigmoid,
    Silu,
    Slice,
    Softmax,
    Sqrt,
    Square,
    SquareLoss,
    Stack,
    Sum,
    Tanh,
    Transpose,
    Where,
)
from dpedf.program import during

x = Input((2, 3), np.float32)
w = Parameter(np.ones((2, 3), np.float32))


def gradient(z, p, B=1):
    """That of the sum of z."""
    Forward(z)
    Backward(z, B)
    return p.grad


REFUSED = {
    "Slice by a part of type list, expected whole numbers, slices or ...": lambda: Slice(x, [0, 1]),
    "Slice by a part of type ndarray": lambda: Slice(w, (0, np.array([0, 2]))),
    "Slice by a part of type ndarray, ": lambda: Slice(Input(), np.array([True, False])),
    "Slice by a part of type bool": lambda: Slice(x, True),
    "Slice by a part of type NoneType": lambda: Slice(x, None),
    "Slice by a part of type slice": lambda: Slice(x, slice(0, 2.0)),
    "Slice by a part of type Input": lambda: Slice(x, x),
    "Slice of x (B, 2, 3): index 2 is out of bounds": lambda: Slice(x, np.int64(2)),
    "Slice of x (B, 2, 3): index -3 is out of bounds": lambda: Slice(x, -3),
    "Slice of x (B, 2, 3): too many indices": lambda: Slice(x, (..., 0, 0, 0)),
    "Slice of x (B, 2, 3): an index can only have": lambda: Slice(x, (..., 0, ...)),
    "Concat: expected a list of nodes, all with b or all without": lambda: Concat([x, w], 0),
    "Concat: expected a list of nodes, ": lambda: Concat([Parameter(np.ones((4, 3))), x], 0),
    "Concat: expected a list of nodes, , ": lambda: Concat(x),
    "Concat: expected a list of nodes, , , ": lambda: Concat([]),
    "Concat: expected a list of nodes, , , , ": lambda: Concat([w, np.ones((2, 3))]),
    "Concat by (0, 1), expected one whole number": lambda: Concat([x, x], (0, 1)),
    "Stack by (0, 1), expected one whole number": lambda: Stack([x, x], (0, 1)),
    "Stack of x0 (B, 2, 3): expected an axis in -3..2, not 3": lambda: Stack([x], 3),
    "Stack of x0 (B, 2, 3), x1 (B, 3): expected values of one shape": lambda: Stack(
        [x, Input((3,))]
    ),
    "Stack: expected a list of nodes, all with b or all without": lambda: Stack([x, w]),
    "Pad of x (B, 2, 3): expected a pair (before, after) for each of 2 axes": lambda: Pad(
        x, [(1, 1)]
    ),
    "Pad of x (2, 3): expected a pair (before, after) for each of 2 axes": lambda: Pad(
        w, [(0, 1)] * 3
    ),
    "Pad by 1, expected pairs (before, after), at least 0": lambda: Pad(x, 1),
    "Pad by [1, 2], expected pairs": lambda: Pad(x, [1, 2]),
    "Pad by [(0, -1), (0, 0)], expected pairs": lambda: Pad(x, [(0, -1), (0, 0)]),
    "Pad of value = 'a', expected a number": lambda: Pad(x, [(1, 1), (0, 0)], "a"),
    "Clip of min = 'a', expected a number": lambda: Clip(x, "a"),
    "Clip between nodes, expected numbers: Maximum and Minimum take nodes": lambda: Clip(x, max=x),
    "Clip between nodes, expected numbers": lambda: Clip(x, x),
    "Elu of alpha = 'a', expected a number": lambda: Elu(x, "a"),
    "Pad by (0.5, 1), expected whole numbers": lambda: Pad(x, [(0.5, 1), (0, 0)]),
    "Clip of min = None, max = None, expected numbers": lambda: Clip(x),
    "Clip of min = 2, max = 1, expected numbers, min <= max": lambda: Clip(x, 2, 1),
    "Clip of min = nan, max = 1, expected numbers": lambda: Clip(x, np.nan, 1),
    "Gelu of approximate = 'erf', expected": lambda: Gelu(x, "erf"),
    "Maximum of x (B, 2, 3): expected a node, found ndarray": lambda: Maximum(x, np.ones(3)),
    "OneHot by (2, 3), expected one whole number": lambda: OneHot(x, (2, 3)),
    "Sum: expected a node, found ndarray: put arrays into an Input": lambda: Sum(np.ones(3)),
    "LogLoss of Q (B, 2, 3): expected a node, found ndarray": lambda: LogLoss(
        Softmax(x), np.zeros(2)
    ),
    "LogLoss of Q (B, 2, 3), y (B, 2): expected a node, found ndarray": (
        lambda: LogLoss(Softmax(x), NotEqual(Slice(x, (..., 0)), 0), np.ones((5, 2)))
    ),
    "SquareLoss of x (B, 2, 3): expected a node, found NoneType": lambda: SquareLoss(x, None),
    "Concat by 1.0, expected whole numbers": lambda: Concat([x, x], 1.0),
    "Reshape by (6.0,), expected whole numbers": lambda: Reshape(x, (6.0,)),
    "Sum by 0.5, expected whole numbers": lambda: Sum(x, 0.5),
    "Mean by True, expected whole numbers": lambda: Mean(x, True),
    "Sum of x (B, 2, 3): duplicate value": lambda: Sum(x, (0, -2)),
    "Transpose by (0, '1'), expected whole numbers": lambda: Transpose(x, (0, "1")),
    "AveragePool by 1.5, expected a stride of 1": lambda: AveragePool(x, 2, 1.5),
    "Conv2D by (1, 2, 3), expected a stride of 1 or more, one whole number or two": (
        lambda: Conv2D(None, x, (1, 2, 3))
    ),
    "MatMul of x (), y (2, 3): expected x and y with an index": lambda: Sum(w) @ w,
    "MatMul of x (2, 3), y (B,): expected x and y with an index": lambda: w @ Input(()),
    "Embedding of W (2, 3), x (B, 2, 3): with labels of float32": (lambda: Embedding(w, x)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_an_argument_that_means_nothing_is_refused_where_the_node_is_made(message):
    with pytest.raises(ValueError) as caught:
        REFUSED[message]()
    line = str(caught.value)
    assert line.startswith(message.rstrip(", ")) and "\n" not in line


def test_axes_have_one_name_in_all_nodes_and_none_is_b():
    for (node,) in (param.values for param in nodes_of_the_package()):
        words = {*inspect.signature(node.__init__).parameters}
        assert words.isdisjoint({"axes", "dim", "dims", "dimension"}), node
    many = {node: node(x, axis=(-1, 0)).value.shape for node in (Sum, Mean, LogSumExp, Transpose)}
    assert many == {Sum: (0,), Mean: (0,), LogSumExp: (0,), Transpose: (0, 3, 2)}
    for axis, joined, stacked in (0, (0, 4, 3), (0, 2, 2, 3)), (-1, (0, 2, 6), (0, 2, 3, 2)):
        assert Concat([x, x], axis=axis).value.shape == joined
        assert Stack([x, x], axis=axis).value.shape == stacked
    for make in (lambda axis: Sum(x, axis), lambda axis: Concat([x, x], axis)):
        for axis in 2, -3:
            with pytest.raises(ValueError, match=f"expected an axis in -2..1, not {axis}$"):
                make(axis)


def test_integers_that_are_arranged_remain_integers():
    labels = given(np.array([[1, 0], [2, 5]], np.uint8))
    for z, expected in (
        (Stack([labels, labels]), np.uint8),
        (Pad(labels, [(1, 2)]), np.uint8),
        (Pad(labels, [(1, 2)], 9), np.uint8),
        (Pad(labels, [(1, 2)], -100), np.int16),
        (Pad(labels, [(1, 2)], 0.5), np.float32),
        (Clip(labels, 1, 2), np.float32),
        (Maximum(labels, 1), np.float32),
        (Where(labels, labels, 1), np.float32),
        (Where(labels, 1, 0), np.float32),
        (Stack([labels, given(np.ones((2, 2), np.float32))]), np.float32),
    ):
        Forward(z)
        assert z.value.dtype == expected
    Forward(z := Pad(labels, [(1, 2)], -100))
    assert z.value.tolist() == [[-100, 1, 0, -100, -100], [-100, 2, 5, -100, -100]]


def test_the_logarithm_of_a_stack_of_probabilities_is_right_at_any_scores():
    s = given(np.array([[1000.0, 0], [0, 3]]))
    Forward(logs := Log(Stack([Softmax(s), Softmax(-s)])))
    assert logs.value[0].tolist() == [[0, -1000], [-1000, 0]]


INDICES = [
    *(np.int64(1), np.uint8(0), ..., (..., 0), (0, ...), (..., 1, slice(None)), (slice(1), ..., 2)),
    *(slice(None, None, -1), slice(5, None, -2), (slice(2, 0, -1), -1), slice(np.int64(1), None)),
    *((), slice(7, 9), (..., slice(None, None, 2))),
]


@each("index", INDICES)
@each("batched", [True, False])
@each("device", [np.array, put])
def test_a_slice_is_that_of_numpy_and_so_is_its_gradient(index, batched, device):
    values = np.random.default_rng(0).normal(size=(2, 4, 3))
    p = Parameter(device(values))
    p.batched = batched
    z = Slice(p, index)
    grad = gradient(z * z, p)
    there = index if isinstance(index, tuple) else (index,)
    there = (slice(None), *there) if batched else there
    expected = np.zeros_like(values)
    expected[there] = 2 * values[there]
    for found, right in (z.value, values[there]), (grad, expected):
        assert np.array_equal(get(found) if device is put else found, right)


@each(
    "make, reference",
    [
        (lambda p: Reshape(p, 6), lambda v: v.reshape(6)),
        (lambda p: Reshape(p, np.int64(-1)), lambda v: v.reshape(-1)),
        (lambda p: Reshape(p, np.array([3, 2])), lambda v: v.reshape(3, 2)),
        (lambda p: Sum(p, np.int64(0)), lambda v: v.sum(0)),
        (lambda p: Mean(p, [1, 0]), lambda v: v.mean()),
        (lambda p: Sum(p, np.array([-1])), lambda v: v.sum(-1)),
        (lambda p: Sum(p, ()), lambda v: v),
        (lambda p: Transpose(p, np.array([1, 0])), lambda v: v.T),
        (lambda p: Concat([p, p], np.int8(-2)), lambda v: np.concatenate([v, v])),
    ],
)
def test_axes_and_sizes_are_taken_as_numpy_takes_them(make, reference):
    values = np.random.default_rng(0).normal(size=(2, 3))
    z = make(Parameter(values))
    Forward(z)
    np.testing.assert_allclose(z.value, reference(values), rtol=1e-14)
    assert z.value.shape == np.shape(reference(values))


def test_one_size_may_stand_for_both_axes_or_be_said_of_each():
    images = given(np.random.default_rng(0).normal(size=(2, 1, 5, 5)))
    Phi = Package(w=Parameter(np.ones((1, 1, 2, 2))), b=Parameter(np.zeros(1)))
    for once, twice in (
        (Conv2D(Phi, images, 2, 1), Conv2D(Phi, images, (2, 2), [1, 1])),
        (MaxPool(images, 3, 2), MaxPool(images, (3, 3), np.array([2, 2]))),
    ):
        Forward(once)
        Forward(twice)
        assert np.array_equal(once.value, twice.value)


OF_ONE_NUMBER = {
    **{node: f"t.{node.__name__.lower()}()" for node in (Exp, Log, Sqrt, Square, Sigmoid, Tanh)},
    Relu: "t.relu()",
    Silu: "F.silu(t)",
    Gelu: "F.gelu(t, approximate='tanh')",
    LeakyRelu: "F.leaky_relu(t)",
    Sum: "t",
    Mean: "t",
    LogSumExp: "t",
    (lambda p: Reshape(p, (1, 1))): "t.reshape(1, 1)",
    (lambda p: Slice(p, ())): "t",
    (lambda p: Slice(p, ...)): "t",
    Transpose: "t",
    (lambda p: Einsum(",->", p, p)): "t * t",
    (lambda p: p**p): "t**t",
    (lambda p: 2**p): "2**t",
    (lambda p: (-2) ** p): "(-2) ** t",
    (lambda p: p**-1 / p - p): "t**-1 / t - t",
    (lambda p: p**2): "t**2",
}


@each("node", OF_ONE_NUMBER)
@each("number", [0.7, 2.0])
@np.errstate(invalid="ignore")
@each("wrap", [lambda p: p, Sum, lambda p: Reshape(p, ())])
def test_a_node_without_any_index_is_that_of_pytorch(node, number, wrap):
    torch = pytest.importorskip("torch")
    p = Parameter(np.array(number) if wrap not in (Sum,) else np.array([number]))
    t = torch.tensor(number, dtype=torch.float64, requires_grad=True)
    z = node(wrap(p))
    grad = gradient(z, p)
    expected = eval(OF_ONE_NUMBER[node], {"t": t, "F": torch.nn.functional})
    expected.sum().backward()
    np.testing.assert_allclose(z.value, expected.detach(), rtol=1e-12)
    np.testing.assert_allclose(grad.reshape(()), t.grad, rtol=1e-12)


SPECIAL = [-np.inf, -3, -2, -1, -0.5, -0.0, 0.0, 0.5, 1, 2, 3, np.inf, np.nan]
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
OPERATORS |= {"**": operator.pow}
# NumPy and PyTorch take x**0.5 for a root and PyTorch x**-0.5 for one over it, of -inf and -0.0.
ROOTS = [(x, y) for x in (-np.inf, -0.0) for y in (0.5, -0.5)]


@each("operation", OPERATORS.values())
@each("dtype", [np.float32, np.float64])
@each("number", [None, *SPECIAL])
@each("side", [0, 1])
@np.errstate(all="ignore")
def test_operators_of_special_numbers_are_those_of_pytorch(operation, dtype, number, side):
    """The values and gradients of all pairs, of two nodes or of a number on one side."""
    torch = pytest.importorskip("torch")
    pairs = itertools.product(SPECIAL, SPECIAL if number is None else [number])
    pairs = [pair if side else pair[::-1] for pair in pairs]
    pairs = [pair for pair in pairs if operation is not operator.pow or pair not in ROOTS]
    operands = [Parameter(np.array(values, dtype)) for values in zip(*pairs, strict=True)]
    tensors = [torch.tensor(node.value, requires_grad=True) for node in operands]
    found, right = [*operands], [*tensors]
    if number is not None:
        found[side] = right[side] = number
    z, expected = operation(*found), operation(*right)
    Forward(z)
    Backward(z, 1)
    expected.sum().backward()
    compare = {"rtol": 1e-6 if dtype == np.float32 else 1e-14, "atol": 0}
    assert z.value.dtype == dtype
    np.testing.assert_allclose(z.value, expected.detach(), **compare)
    for node, tensor in zip(found, right, strict=True):
        if isinstance(node, Parameter):
            np.testing.assert_allclose(node.grad, tensor.grad, **compare)


FLOATS = np.random.default_rng(1).uniform(0.5, 2, (4, 3))
LABELS = np.array([0, 3, 1, 200])
ARITHMETIC = {
    "s - (2 * y - 1)": lambda s, y: s - (2 * y - 1),
    "y * s + s * y": lambda s, y: y * s + s * y,
    "s / (y + 1) - y / 3": lambda s, y: s / (y + 1) - y / 3,
    "y / s - y**2": lambda s, y: y / s - y**2,
    "s**y - y": lambda s, y: s**y - y,
    "-y - s": lambda s, y: -y - s,
}


@each("text", ARITHMETIC)
@each("dtype", [np.float32, np.float64])
@each("kind", [np.uint8, np.int8, np.int32, np.int64, np.uint64, bool])
@each("device", [np.array, put])
def test_integers_count_in_the_type_of_the_floats_beside_them(text, dtype, kind, device):
    """And never wrap around, as those of NumPy do."""
    values, labels = FLOATS[:, 0].astype(dtype), LABELS.astype(kind)
    p, y = Parameter(device(values)), given(device(labels))
    p.batched = True
    z = ARITHMETIC[text](p, y)
    Forward(z)
    Backward(z, 1)
    expected = ARITHMETIC[text](values.astype(float), labels.astype(float))
    found = get(z.value) if device is put else z.value
    assert found.dtype == z.grad.dtype == p.grad.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=3e-6 if dtype == np.float32 else 2e-7)


def run_on(case, dtype):
    """z and the gradients of parameters, of a case on inputs of integers that are of dtype."""
    random, leaves = np.random.default_rng(7), []
    for (kind, *_), value in zip(case.operands, case.values(4, np.float32), strict=True):
        if kind in "bx":
            leaves.append(given(random.integers(1, 4, value.shape).astype(dtype)))
        else:
            leaves.append(Parameter(value) if kind == "p" else given(value))
    z = case.make(*leaves)
    Forward(z, train=True)
    Backward(z, 1)
    return z, [leaf.grad for leaf in leaves if isinstance(leaf, Parameter)]


@each("case", [case for case in CASES if any(kind in "bx" for kind, *_ in case.operands)])
@each("kind", [np.uint8, np.int64])
@np.errstate(invalid="ignore", divide="ignore")
def test_every_node_computes_with_integers_as_with_the_floats_that_they_are(case, kind):
    (z, grads), (right, expected) = run_on(case, kind), run_on(case, np.float32)
    assert right.value.dtype == np.float32
    assert z.value.dtype == np.float32 or z.value.dtype.kind in "iu"  # only arranged, or counted
    assert np.array_equal(z.value, right.value, equal_nan=True)
    for grad, other in zip(grads, expected, strict=True):
        assert grad.dtype == np.float32 and np.array_equal(grad, other, equal_nan=True)


def test_rows_of_several_numbers_are_refused_not_repeated():
    p, x, y = Parameter(np.ones(2)), given(np.ones((3, 2))), given(np.ones((1, 2)))
    for z in x * p - y, SquareLoss(x * p, y), x @ (y * p):
        with pytest.raises(ValueError, match=r"the shape \(1, 2\), expected \(3, 2\)"):
            Forward(z)
    y.value = np.zeros((3, 2))
    Forward(z)


@each("node", [lambda y: Embedding(Parameter(np.ones((3, 2))), y), lambda y: OneHot(y, 3)])
@each("wrong", [3, 200, -1, -3])
@each("B", [1, 5])
def test_a_label_that_there_is_not_is_refused(node, wrong, B):
    labels = np.arange(B) % 3
    Forward(z := node(y := given(labels)))
    labels[-1] = wrong
    with pytest.raises(ValueError, match=rf"(Embedding|OneHot) with label {wrong}, expected 0..2"):
        Forward(z)
    y.value = labels[:-1]
    Forward(z)


@each("kind", [np.uint8, np.int64, bool])
def test_labels_of_any_integers_choose_rows(kind):
    W = Parameter(np.array([[1.0, 2], [3, 4]]))
    z = Embedding(W, given(np.array([1, 0, 1, 1], kind)))
    assert gradient(z, W).tolist() == [[1, 1], [3, 3]]
    assert z.value[:, 0].tolist() == [3, 1, 3, 3]


@each("affine", [Affine, slides.Affine])
@each("V", [None, 1, 2, 3])
def test_a_weight_may_be_computed_and_its_gradient_is_summed_over_rows(affine, V):
    """y = x W^T W, as an autoencoder of tied weights has it; and a delta with b is summed."""
    random = np.random.default_rng(0)
    W, x = Parameter(random.normal(size=(3, 4))), given(random.normal(size=(6, 4)))
    c, d = Parameter(np.zeros(3)), Parameter(np.zeros(4))
    y = affine(Package(w=W, b=d), affine(Package(w=Transpose(W), b=c * 2), x))
    ell = SquareLoss(y, x)
    with during(slices=in_slices(6, V)) if V else nullcontext():
        Forward(ell)
        Backward(ell)
    v, w = x.value, W.value
    error = 2 / 6 * (v @ w.T @ w - v)
    expected = w @ (v.T @ error + error.T @ v)
    np.testing.assert_allclose(W.grad, expected, rtol=1e-12)
    np.testing.assert_allclose(c.grad, -2 * (error @ w.T).sum(axis=0), rtol=1e-12)


def test_a_product_never_sums_over_rows():
    with pytest.raises(ValueError, match="an index after b"):
        Forward(given(np.ones(3)) @ Parameter(np.ones((3, 2))))


def test_dropout_of_one_number_keeps_it_or_not():
    p = Parameter(np.array(3.0))
    z = Dropout(p * 1, 0.5)
    found = set()
    for step in range(20):
        with during(step=step, B=1):
            Forward(z, train=True)
            Backward(z, 1)
        assert p.grad * 3 == z.value
        found.add(float(z.value))
    assert found == {0.0, 6.0}
