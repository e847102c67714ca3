"""Every node: against finite differences and PyTorch, and the same bits on a strict device."""

import importlib
import inspect
import math
import operator
import pkgutil

import numpy as np
import pytest
import strict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes
from strict import DeviceArray, get, put

from dpedf import check, models, ops
from dpedf.edf import SGD, Backward, CompNode, CompNodes, Forward, Input, Package, Parameter
from dpedf.ops import (
    Add,
    Affine,
    Divide,
    Flatten,
    LogLoss,
    MatMul,
    Multiply,
    Power,
    Relu,
    Sigmoid,
    Softmax,
    Square,
    SquareLoss,
    Subtract,
    Tanh,
)
from dpedf.ops.arithmetic import Operator
from dpedf.phi import Phi

ABSTRACT = {Operator}


class Rows(CompNode):
    """x[b,...] = p[b,...], so that a value with b can be asked for its gradient"""

    def __init__(self, p):
        self.p, self.b = p, Input()

    def forward(self):
        self.value = self.p.value

    def backward(self):
        self.p.addgrad(self.grad)


class Weighed(CompNode):
    """ell[b] = sum_j w[b,j] z[b,j], or w[b,j] z[j] of a z without b

    z.grad[b,j] += ell.grad[b] w[b,j]
    """

    def __init__(self, z, w):
        self.z, self.w = z, w

    def forward(self):
        products = self.w.value * self.z.value
        self.value = products.sum(axis=tuple(range(1, products.ndim)))

    def backward(self):
        delta = (self.w.value.T * self.grad).T
        self.z.addgrad(delta if self.z.batched else delta.sum(axis=0))


class Case:
    """A node of a class, and how PyTorch computes the same.

    operands: a word for each, its kind and its sizes: b rows of numbers, p a parameter,
    x an input, y an input of labels.  make and reference take the operands.
    """

    def __init__(self, node, operands, make, reference=None, low=-2.0, name=""):
        self.node, self.operands, self.low = node, operands.split(), low
        self.make, self.reference = make, reference or make
        self.name = f"{node.__name__}: {name or operands}"

    def program(self, B, dtype=np.float64):
        """ell, the sum of the node's values times the last of the leaves; and the leaves."""
        random, leaves, nodes = np.random.default_rng(7), [], []

        def numbers(*shape):
            return np.asarray(random.uniform(self.low, 2, shape), dtype)

        for kind, *sizes in self.operands:
            shape = [int(size) for size in sizes]
            if kind in "bp":
                leaf = Parameter(numbers(*[B] * (kind == "b"), *shape))
            else:
                leaf = Input()
                leaf.value = random.integers(0, *shape, B) if kind == "y" else numbers(B, *shape)
            leaves.append(leaf)
            nodes.append(Rows(leaf) if kind == "b" else leaf)
        z, w = self.make(*nodes), Input()
        Forward(z)
        w.value = numbers(*z.value.shape) if z.batched else numbers(B, *z.value.shape)
        return Weighed(z, w), [*leaves, w]


PAIRS = [
    *("b b", "b b3", "b3 b", "b3 b3", "b3 b23", "b23 b", "b1 b3", "b3 b1"),
    *("b3 p3", "p3 b3", "b3 p1", "p1 b3", "b3 p", "p b3", "b p3", "p3 b", "b3 p23", "p23 b3"),
    *("p3 p3", "p p23", "p1 p3", "b3 x3", "x3 b3", "p3 x3"),
]


def of_pairs(node, operation, low=-2.0):
    """An operator on operands of shapes that meet."""
    for x, y in map(str.split, PAIRS):
        indices = max(len(x), len(y)) - 1

        def reference(*tensors, words=(x, y), indices=indices):
            shapes = [
                t.shape[:1] + (1,) * (indices + 1 - len(word)) + t.shape[1:]
                if word[0] in "bx"
                else t.shape
                for t, word in zip(tensors, words, strict=True)
            ]
            return operation(*(t.reshape(s) for t, s in zip(tensors, shapes, strict=True)))

        yield Case(node, f"{x} {y}", operation, reference, low)


def of_formulas():
    """Operators with numbers on either side, and with one node on both; as Python has them."""
    formulas = {
        Add: ["x + 2", "2 + x", "x + x", "x + 0.5 + y"],
        Subtract: ["x - 2", "2 - x", "x - x", "y - (x - y)"],
        Multiply: ["x * 2", "2 * x", "-x", "x * x", "-x * -y"],
        Divide: ["x / 2", "2 / x", "x / x", "x / (y / x)"],
        Power: ["x ** 3", "x ** -1", "x ** 0.5", "x ** 0", "x ** 1", "2 ** x", "0 ** x", "x ** x"],
        Square: ["x ** 2", "x ** 2.0", "(x + x + y) ** 2"],
    }
    for node, texts in formulas.items():
        for text in texts:
            formula = eval(f"lambda x, y: {text}")
            yield Case(node, "b3 b3", formula, low=0.5, name=text)


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
    return [Case(node, operands, node, reference) for operands in ("b", "b3", "b23", "p3")]


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


CASES = [
    Case(Affine, "b3 p32 p2", affine, lambda x, w, c: x @ w - c),
    Case(Affine, "b3 p31 p1", affine, lambda x, w, c: x @ w - c),
    Case(Affine, "x3 p32 p2", affine, lambda x, w, c: x @ w - c),
    *of_numbers(Sigmoid, lambda x: x.sigmoid()),
    *of_numbers(Tanh, lambda x: x.tanh()),
    *of_numbers(Relu, lambda x: x.relu()),
    *of_numbers(Square, lambda x: x * x),
    Case(Softmax, "b4", Softmax, lambda s: s.softmax(1)),
    Case(Softmax, "b1", Softmax, lambda s: s.softmax(1)),
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
    *of_pairs(Add, operator.add),
    *of_pairs(Subtract, operator.sub),
    *of_pairs(Multiply, operator.mul),
    *of_pairs(Divide, operator.truediv, low=0.5),
    *of_pairs(Power, operator.pow, low=0.5),
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
@pytest.mark.parametrize("B", [0, 1, 5])
def test_values_and_gradients_agree_with_pytorch(case, B):
    torch = pytest.importorskip("torch", reason="the reference is PyTorch")
    ell, leaves = case.program(B)
    Forward(ell)
    Backward(ell, 4)

    tensors = [torch.tensor(leaf.value) for leaf in leaves]
    learnt = [k for k, leaf in enumerate(leaves) if isinstance(leaf, Parameter)]
    for k in learnt:
        tensors[k].requires_grad_()
    *operands, w = tensors
    z = case.reference(*operands)
    torch.sum(w * z / 4).backward()

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
        n.grad = None if n.grad is None else put(n.grad)


def passed(ell, leaves):
    """Everything that a pass left, by name, and the gradients of parameters, by number."""
    left = {k: leaf.grad for k, leaf in enumerate(leaves) if isinstance(leaf, Parameter)}
    for n in CompNodes(ell):
        left |= {f"{n.name}.value": n.value, f"{n.name}.grad": n.grad}
    return {name: array for name, array in left.items() if array is not None}


@each_case
@pytest.mark.parametrize("B", [0, 1, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_device_gives_the_same_bits_in_the_same_dtype(case, B, dtype):
    (host, here), (device, there) = case.program(B, dtype), case.program(B, dtype)
    for n in CompNodes(device):
        n.value = None  # of the host, where the shape was found
    move(there)
    for ell in host, device:
        Forward(ell)
        Backward(ell, 3)
    expected, found = passed(host, here), passed(device, there)
    assert expected.keys() == found.keys()
    for name, array in found.items():
        assert type(array) is DeviceArray, name
        assert array.dtype == expected[name].dtype == dtype, name
        assert array.shape == expected[name].shape, name
        assert get(array).tobytes() == expected[name].tobytes(), name


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
        phi.differentiate_into(place(phi.grad))
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
    x.value = put(np.arange(12.0).reshape(4, 3))
    with pytest.raises(TypeError, match="a device array"):
        Forward(Faulty(x))


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


@settings(deadline=None, max_examples=150)
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
        with pytest.raises(TypeError):
            operation(*operands)


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


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_labels_may_be_integers_of_any_size(dtype):
    s, y, Q, expected = extreme()
    p, rows, labels = scores_and_labels(s, y.astype(dtype))
    ell = LogLoss(Softmax(rows), labels)
    Forward(ell)
    Backward(ell)
    np.testing.assert_allclose(p.grad * 64, Q - np.eye(10)[y], atol=1e-6)


class PlainSoftmax(Softmax):
    """Rows lie one after the other in memory."""

    def forward(self):
        super().forward()
        self.value = np.ascontiguousarray(self.value)


@pytest.mark.parametrize("softmax", [Softmax, PlainSoftmax])
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


@each_case
def test_a_second_pass_finds_and_leaves_the_same(case):
    ell, leaves = case.program(3)
    values = [leaf.value.copy() for leaf in leaves]
    left = []
    for _ in range(2):
        Forward(ell)
        Backward(ell)
        left.append([array.copy() for array in passed(ell, leaves).values()])
    for leaf, value in zip(leaves, values, strict=True):
        assert np.array_equal(leaf.value, value)
    for first, second in zip(*left, strict=True):
        assert np.array_equal(first, second)
