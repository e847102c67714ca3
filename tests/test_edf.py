"""The framework: what the slides' classes need of it, and what data parallelism does."""

import pickle
import re
import subprocess
import sys
from collections import OrderedDict, deque
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
from slides import Affine, LogLoss, Sigmoid, Softmax  # the classes of the slides

from dpedf import ops
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
from dpedf.kernels.gemm import JOINED
from dpedf.phi import name_parameters
from dpedf.program import context, held, program


def perceptron(affine=ops.Affine, sigmoid=ops.Sigmoid, softmax=ops.Softmax, loss=ops.LogLoss):
    """The model of the slides, with some data: (ell, x, y)."""
    random, x, y = np.random.default_rng(0), Input(), Input()

    def package(I, J):
        return Package(w=Parameter(random.normal(size=(I, J))), b=Parameter(random.normal(size=J)))

    x.value, y.value = random.normal(size=(12, 4)), random.integers(0, 3, 12)
    L1 = sigmoid(affine(package(4, 5), x))
    Q = softmax(affine(package(5, 3), L1))
    return loss(Q, y), x, y


def gradients(ell, B=None):
    Forward(ell)
    Backward(ell, B)
    return [p.grad.copy() for p in Parameters(ell)]


def rows(value):
    """An Input of this value."""
    x = Input()
    x.value = np.asarray(value)
    return x


class Sum(CompNode):
    """z[b] = sum of all that x holds, x: nodes in lists, tuples and packages"""

    def __init__(self, *x):
        self.x = x

    def forward(self):
        self.value = sum(n.value for n in held(self.x))

    def backward(self):
        for n in held(self.x):
            if n.varies:
                n.addgrad(self.grad)


def test_the_slides_classes_give_the_gradients_of_dpedf_ops():
    theirs, x, y = perceptron(Affine, Sigmoid, Softmax, LogLoss)
    ours, x, y = perceptron()
    for p, q in zip(gradients(theirs), gradients(ours), strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(theirs.value, ours.value, rtol=1e-12)


def test_the_slides_classes_learn():
    ell, x, y = perceptron(Affine, Sigmoid, Softmax, LogLoss)
    losses = []
    for _ in range(200):
        Forward(ell)
        Backward(ell)
        SGD(Parameters(ell), 1.0)
        losses.append(ell.value.mean())
    assert losses[-1] < 0.5 * losses[0]


def test_the_gradient_is_that_of_the_mean_over_b():
    ell, x, y = perceptron()
    whole = gradients(ell)
    for grad, fixed in zip(whole, gradients(ell, B=24), strict=True):
        np.testing.assert_allclose(grad, 2 * fixed, rtol=1e-12)
    assert np.array_equal(ell.grad, np.full(12, 1 / 24))


def test_a_parameter_used_twice_gets_both_contributions():
    p, x = Parameter(np.array([2.0, 3.0])), rows([[1.0, 1.0], [5.0, 7.0]])
    z = ops.SquareLoss(p * x + p, rows(np.zeros((2, 2))))
    Forward(z)
    Backward(z)
    slope = 2 * p.value * (x.value + 1) ** 2
    np.testing.assert_allclose(p.grad, slope.mean(axis=0), rtol=1e-12)


def test_a_computed_node_used_twice_gets_both_contributions():
    p = Parameter(np.array([2.0, 3.0]))
    a = ops.Square(p)
    z = a + a * 3
    Forward(z)
    Backward(z, 1)
    assert np.array_equal(a.grad, [4, 4])
    assert np.array_equal(p.grad, [16, 24])


def test_tied_affine_layers_add_up():
    random = np.random.default_rng(0)
    w, b, x = random.normal(size=(3, 3)), random.normal(size=3), rows(random.normal(size=(4, 3)))

    def network(Phi1, Phi2):
        zero = rows(np.zeros((4, 3)))
        return ops.SquareLoss(ops.Affine(Phi2, ops.Tanh(ops.Affine(Phi1, x))), zero)

    one, two = (Package(w=Parameter(w), b=Parameter(b)) for _ in range(2))
    first_w, first_b, second_w, second_b = gradients(network(one, two))
    tied_w, tied_b = gradients(network(one, one))
    np.testing.assert_allclose(tied_w, first_w + second_w, rtol=1e-12)
    np.testing.assert_allclose(tied_b, first_b + second_b, rtol=1e-12)


@pytest.mark.parametrize("cuts", [[0, 12], [0, 3, 3, 5, 12], [0, 0, 1, 12, 12]])
def test_shards_add_up(cuts):
    ell, x, y = perceptron()
    whole, images, labels = gradients(ell), x.value, y.value
    total = [np.zeros_like(grad) for grad in whole]
    for start, end in zip(cuts, cuts[1:], strict=False):
        x.value, y.value = images[start:end], labels[start:end]
        for t, grad in zip(total, gradients(ell, B=12), strict=True):
            t += grad
    for t, grad in zip(total, whole, strict=True):
        np.testing.assert_allclose(t, grad, rtol=1e-12, atol=1e-12)


def test_an_empty_shard_has_no_gradient():
    ell, x, y = perceptron()
    gradients(ell)
    x.value, y.value = x.value[:0], y.value[:0]
    for grad in gradients(ell, B=12) + gradients(ell):
        assert not grad.any()


def readied(ell):
    """What Backward calls ready with: (p, its gradient then)."""
    calls = []
    Forward(ell)
    Backward(ell, ready=lambda p: calls.append((p, p.grad.copy())))
    return calls


def test_ready_is_called_once_for_each_parameter_when_its_gradient_is_complete():
    ell, x, y = perceptron()
    calls = readied(ell)
    assert len(calls) == len(Parameters(ell)) == 4
    assert {p for p, grad in calls} == set(Parameters(ell))
    for p, grad in calls:
        assert np.array_equal(p.grad, grad)


def test_what_is_ready_in_a_chain_is_a_suffix_of_program_order():
    ell, x, y = perceptron()
    assert [p for p, grad in readied(ell)] == Parameters(ell)[::-1]


def test_a_parameter_is_ready_before_earlier_layers_run_backward():
    ell, x, y = perceptron()
    L1 = next(n for n in CompNodes(ell) if isinstance(n, ops.Sigmoid))
    Forward(ell)
    ran = []
    backward = L1.backward
    L1.backward = lambda: (ran.append("L1"), backward())
    Backward(ell, ready=lambda p: ran.append(p))
    w1, b1, w2, b2 = Parameters(ell)
    assert ran == [b2, w2, "L1", b1, w1]


def test_a_tied_parameter_is_ready_after_its_first_use():
    p, q = Parameter(np.array([2.0, 3.0])), Parameter(np.array([5.0, 7.0]))
    calls = readied(ops.Square(p) * q + p * 3)
    assert [r for r, grad in calls] == [q, p]
    for r, grad in calls:
        assert np.array_equal(r.grad, grad)


class Gate(CompNode):
    """y = x, whose backward stops while it is not `open`"""

    open = True

    def __init__(self, x):
        self.x = x

    def forward(self):
        self.value = self.x.value

    def backward(self):
        if self.open:
            self.x.addgrad(self.grad)


def test_ready_is_called_where_no_gradient_arrives_too():
    p, q = Parameter(np.ones(3)), Parameter(np.ones(3))
    gate = Gate(ops.Square(p))
    gate.open = False
    calls = dict(readied(gate + q))
    assert calls.keys() == {p, q}
    assert np.array_equal(calls[p], np.zeros(3))


def test_a_parameter_that_nothing_reaches_has_no_gradient_after_one_that_had():
    p, q = Parameter(np.ones(3)), Parameter(np.ones(3))
    gate = Gate(ops.Square(p))
    ell = gate + q
    Forward(ell)
    Backward(ell)
    assert p.grad.any()
    gate.open = False
    Backward(ell)
    assert not p.grad.any() and q.grad.any()


def test_a_loss_of_inputs_alone_has_nothing_to_learn():
    x, y = rows([[1.0, 2.0]]), rows([[3.0, 5.0]])
    ell = ops.SquareLoss(x, y)
    Forward(ell)
    Backward(ell, ready=lambda p: pytest.fail("there is no parameter"))
    assert ell.value == 13
    assert Parameters(ell) == []
    assert x.grad is None and y.grad is None and ell.grad is None


USES = {
    "Affine": lambda P, z: ops.Affine(P, z),
    "the slides' Affine": lambda P, z: Affine(P, z),
    "a product": lambda P, z: P.b * z,
    "a product of matrices": lambda P, z: z @ P.w,
    "a loss": lambda P, z: ops.SquareLoss(z * P.b, z),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_what_depends_on_inputs_alone_gets_no_gradient_and_no_work(use):
    z = ops.Square(rows(np.ones((2, 3))) * 2)
    z.backward = lambda: pytest.fail("backward of a node that depends on inputs alone")
    P = Package(w=Parameter(np.ones((3, 3))), b=Parameter(np.full(3, 2.0)))
    assert all(grad.any() for grad in gradients(use(P, z)))
    assert z.grad is None and z.x.grad is None


def test_a_value_that_is_a_number_or_a_parameter_has_no_batch_index():
    p, x = Parameter(np.ones(3)), rows(np.ones((2, 3)))
    a, b = p * 2, p * x
    Forward(b)
    Forward(a)
    assert not p.batched and not a.batched
    assert b.batched and x.batched


@pytest.mark.parametrize("shape", [(3, 4), (7, 3, 4)])
def test_addgrad_takes_the_parameters_shape_or_one_batch_index_more(shape):
    p = Parameter(np.zeros((3, 4)))
    delta = np.random.default_rng(0).normal(size=shape)
    p.addgrad(delta)
    p.addgrad(delta)
    np.testing.assert_allclose(p.grad, 2 * delta.reshape(-1, 3, 4).sum(axis=0), rtol=1e-12)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1), (1, 4), (4, 3), (3, 3), (2, 7, 3, 4)])
def test_addgrad_refuses_other_shapes(shape):
    p = Parameter(np.zeros((3, 4)))
    p.name = "Phi7.w"
    with pytest.raises(ValueError, match=r"Phi7\.w: addgrad of shape .*, expected \(3, 4\)"):
        p.addgrad(np.zeros(shape))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1), (1, 3), (2, 2, 3), (3, 2)])
@pytest.mark.parametrize("uses", [1, 2])
def test_addgrad_of_a_computed_node_refuses_a_shape_that_broadcasts(shape, uses):
    class Sends(CompNode):
        """Sends a delta of some shape after deltas that fit."""

        def __init__(self, x):
            self.x = x

        def forward(self):
            self.value = self.x.value.sum(axis=1)

        def backward(self):
            for _ in range(uses):
                self.x.addgrad(np.ones((2, 3)))
            self.x.addgrad(np.ones(shape))

    x = Input()
    x.value = np.ones((2, 3))
    ell = Sends(x * Parameter(np.ones(3)))
    Forward(ell)
    with pytest.raises(ValueError, match=re.escape(f"addgrad of shape {shape}, expected (2, 3)")):
        Backward(ell)


class Tensor:
    """Like one of PyTorch: it has a shape, and NumPy can make an array of it."""

    shape, ndim, dtype = (2, 3), 2, "float32"

    def __array__(self):
        return np.ones((2, 3), np.float32)


WRONG = [[1.0, 2, 3]], 1.0, np.ma.ones((2, 3)), Tensor(), *map(np.ones, [(2, 2), 3, ()])


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_put_into_an_input_has_its_shape_and_is_an_array(wrong):
    x = Input((3,))
    ell = ops.Sum(x * Parameter(np.ones(3)))
    x.value = wrong
    with pytest.raises(ValueError, match="an Input has .*, expected "):
        Forward(ell)
    x.value = np.ones((5, 3))
    Forward(ell)
    assert ell.value.tolist() == [3.0] * 5


HIDING = {
    "dict": lambda node: {0: node},
    "dict, ": lambda node: [{"k": [node]}],
    "dict, , ": lambda node: Package(w={"k": node}),
    "set": lambda node: {node},
    "frozenset": lambda node: (frozenset([node]),),
    "deque": lambda node: deque([node]),
    "ndarray": lambda node: np.array([node, 2], object),
    "mappingproxy": lambda node: MappingProxyType({"k": node}),
    "dict_values": lambda node: {"k": node}.values(),
    "SimpleNamespace": lambda node: SimpleNamespace(deep=[SimpleNamespace(node=node)]),
    "OrderedDict": lambda node: OrderedDict(k=node),
}


@pytest.mark.parametrize("place", HIDING)
def test_nodes_that_a_program_would_not_see_are_refused_where_their_user_is_made(place):
    class Hides(CompNode):
        def __init__(self, node):
            self.nodes = HIDING[place](node)

    found = f"Hides.nodes has nodes in an object of type {place.rstrip(', ')}, expected a list"
    with pytest.raises(ValueError, match=found):
        Hides(Parameter(np.ones(3)))


@pytest.mark.parametrize("name", ["number", "varies", "batched", "owns_grad", "sum_over_rows"])
def test_an_attribute_that_the_framework_sets_is_refused(name):
    class Own(CompNode):
        def __init__(self, x):
            self.x = x
            setattr(self, name, 3)

    with pytest.raises(ValueError, match=rf"Own\.{name} is an attribute that the framework sets"):
        Own(Parameter(np.ones(3)))


def test_a_pass_that_lacks_a_value_says_so():
    read, unread = Input(), Input()
    ell = ops.Sum(ops.Square(read)) + 0 * ops.Sum(Parameter(np.ones(3)))
    with pytest.raises(ValueError, match="an Input has no value, expected an array"):
        Forward(ell)

    class Passes(CompNode):
        def __init__(self, x, unread):
            self.x, self.unread = x, unread

        def forward(self):
            self.value = self.x.value

    read.value = np.ones((2, 3))
    Forward(z := Passes(read, unread))
    assert z.value is read.value


def test_what_is_added_to_a_gradient_is_an_array():
    (x := Input((3,))).value = np.ones((2, 3))
    z = ops.Square(x * (p := Parameter(np.ones(3))))
    Forward(z)
    for node in z, p:
        with pytest.raises(ValueError, match=r"addgrad of shape \(\), expected \("):
            node.addgrad(2.0)


def test_nodes_on_top_of_an_unpickled_graph_run_after_it():
    x = Input((3,))
    graph = pickle.dumps((x, ops.Sum(ops.Square(x * Parameter(np.ones(3))))))
    code = f"""
import pickle
from collections import deque
import numpy as np
from dpedf.edf import CompNodes, Forward
x, ell = pickle.loads({graph!r})
total = (ell * 2.0 + ell) * 1.0
for value in 1.0, 2.0:
    x.value = np.full((2, 3), value)
    Forward(total)
    print(total.value.tolist(), [type(n).__name__ for n in CompNodes(total)])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    names = "['Multiply', 'Square', 'Sum', 'Multiply', 'Add', 'Multiply']"
    assert done.stdout == f"[9.0, 9.0] {names}\n[36.0, 36.0] {names}\n", done.stderr


def test_a_loss_of_one_number_is_differentiated_as_it_is():
    p = Parameter([1.0, 2.0])
    ell = ops.Sum(ops.Square(p))
    Forward(ell)
    Backward(ell)
    assert p.grad.tolist() == [2.0, 4.0]


def test_addgrad_does_not_keep_or_change_what_it_is_given():
    p, delta = Parameter(np.zeros(3)), np.ones(3)
    p.addgrad(delta)
    p.addgrad(delta)
    node = ops.Square(p)
    node.addgrad(delta)
    node.addgrad(delta)
    assert np.array_equal(delta, np.ones(3))
    assert np.array_equal(p.grad, 2 * delta) and np.array_equal(node.grad, 2 * delta)


@pytest.mark.parametrize("I, J", [(4, 3), (3, 1), (1, 4), (2, 6), (12, 1)])
@pytest.mark.parametrize("before", [0, 1, JOINED])
def test_a_product_of_another_shape_is_refused(I, J, before):
    p = Parameter(np.zeros((3, 4)))
    for _ in range(before):
        p.addproduct(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"g \(2, .*, expected shape \(3, 4\)"):
        p.addproduct(np.zeros((2, I)), np.zeros((2, J)))


def test_backward_leaves_the_gradient_whatever_was_assigned_to_it_before():
    p, x = Parameter(np.ones(3)), Input()
    x.value = np.arange(6.0).reshape(2, 3)
    ell = ops.MatMul(x, p)
    for before in None, np.zeros(3), 0.0:
        p.grad = before
        Forward(ell)
        Backward(ell)
        np.testing.assert_allclose(p.grad, x.value.mean(axis=0))


def factors_of_products(times):
    """(x, g) of as many products x^T g, (3, 4), of a few rows each."""
    random = np.random.default_rng(0)
    rows = range(1, 1 + times)
    return [(random.normal(size=(n, 3)), random.normal(size=(n, 4))) for n in rows]


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("times", [1, 2, 5])
def test_products_are_added_when_the_gradient_is_complete(times, before):
    p, factors = Parameter(np.zeros((3, 4))), factors_of_products(times)
    if before:
        p.addgrad(np.full((3, 4), 7.0))
    for x, g in factors:
        p.addproduct(x, g)
    p.sum_over_rows.finish()
    expected = 7 * before + sum(x.T @ g for x, g in factors)
    np.testing.assert_allclose(p.grad, expected, rtol=1e-12)


@pytest.mark.parametrize("times", [JOINED - 1, JOINED, JOINED + 1, JOINED + 2, 3 * JOINED + 2])
def test_products_that_are_joined_are_each_added_once(times):
    """Also where someone looks at what is there so far, as check.nan does."""
    p, factors = Parameter(np.zeros((3, 4))), factors_of_products(times)
    for x, g in factors:
        p.addproduct(x, g)
    expected = sum(x.T @ g for x, g in factors)
    for _ in range(2):
        (found,) = p.sum_over_rows.so_far()
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    p.sum_over_rows.finish()
    np.testing.assert_allclose(p.grad, expected, rtol=1e-12, atol=1e-14)


class Interrupted(CompNode):
    """y = x, whose backward fails while `fails`"""

    fails = True

    def __init__(self, x):
        self.x = x

    def forward(self):
        self.value = self.x.value

    def backward(self):
        if self.fails:
            raise KeyboardInterrupt
        self.x.addgrad(self.grad)


def test_products_of_a_pass_that_was_given_up_are_not_added_in_the_next():
    """Of the three layers, the last has added its product by then, and that of the second waits."""
    x = rows(np.random.default_rng(0).normal(size=(4, 3)))
    P = Package(w=Parameter(np.full((3, 3), 0.1)), b=Parameter(np.zeros(3)))
    node = Interrupted(ops.Affine(P, x))
    ell = ops.SquareLoss(ops.Affine(P, ops.Tanh(ops.Affine(P, node))), rows(np.ones((4, 3))))
    Forward(ell)
    with pytest.raises(KeyboardInterrupt):
        Backward(ell)
    node.fails = False
    found = gradients(ell)
    for grad, expected in zip(found, gradients(ell), strict=True):
        assert grad.any() and np.array_equal(grad, expected)


IN_PLACE = {
    "Slice": (2, lambda x: ops.Slice(x, slice(0, 2))),
    "LSTMCell": (4, lambda x: ops.LSTMCell(rows(np.ones((1, 8))), rows(np.ones((1, 8))), x)),
}


@pytest.mark.parametrize("J, node", IN_PLACE.values(), ids=IN_PLACE)
def test_a_part_is_added_to_a_copy_of_what_another_node_owns(J, node):
    """A sum sends one array to both of its terms; a part is then added to that of the first."""
    p, q = Parameter(np.full((1, J), 2.0)), Parameter(np.full((1, J), 3.0))
    p.batched = q.batched = True
    first, second = ops.Square(p), ops.Square(q)
    part = node(first)
    ell = ops.Sum((first + second) * 2) + ops.Sum(part)
    Forward(ell)
    Backward(ell)
    assert np.array_equal(q.grad, np.full((1, J), 12.0))
    assert np.array_equal(second.grad, np.full((1, J), 2.0)) and (first.grad > 2).any()


def test_program_order_is_that_of_the_source_and_of_what_the_loss_reaches():
    p = Parameter(np.ones(3))
    a = ops.Square(p)
    unused = ops.Square(a)
    b = ops.Tanh(p)
    ell = b + a
    assert CompNodes(ell) == [a, b, ell]
    assert [program(ell).names[n] for n in CompNodes(ell)] == ["z1", "z2", "ell"]
    assert CompNodes(unused) == [a, unused]


def test_a_parameter_stands_before_its_first_user():
    p, q, r = (Parameter(np.ones(3)) for _ in range(3))
    ell = (r * p) + q
    assert Parameters(ell) == [r, p, q]


def test_a_node_may_make_nodes_of_its_own():
    class Twice(CompNode):
        def __init__(self, x):
            self.inner = ops.Tanh(x)

        def forward(self):
            self.value = 2 * self.inner.value

        def backward(self):
            self.inner.addgrad(2 * self.grad)

    p = Parameter(np.ones(3))
    ell = Twice(p)
    Forward(ell)
    Backward(ell, 1)
    np.testing.assert_allclose(p.grad, 2 * (1 - np.tanh(1.0) ** 2) * np.ones(3), rtol=1e-12)


def test_nodes_are_found_in_lists_tuples_and_packages_but_not_in_dicts_and_sets():
    p = [Parameter(np.full(3, float(k))) for k in range(8)]
    ell = Sum(p[3], [p[1], (p[2], [p[0]])], Package(a=p[5], b=p[4]))
    ell.hidden = {"p": p[6]}
    ell.others = {p[7]}
    assert Parameters(ell) == [p[3], p[1], p[2], p[0], p[5], p[4]]
    Forward(ell)
    assert np.array_equal(ell.value, np.full(3, 15.0))


def test_a_package_keeps_w_before_b_and_together_wherever_they_are_used():
    Phi1 = Package(w=Parameter(np.ones(3)), b=Parameter(np.ones(3)))
    Phi2 = Package(w=Parameter(np.ones(3)), b=Parameter(np.ones(3)))
    ell = Phi2.b * Phi1.b + Phi1.w + Phi2.w
    assert Parameters(ell) == [Phi2.w, Phi2.b, Phi1.w, Phi1.b]


def test_packages_are_named_as_they_were_made_or_by_argument():
    Phi1 = Package(w=Parameter(np.ones(3)), b=Parameter(np.ones(3)))
    head = Package("head", w=Parameter(np.ones(3)))
    Phi3 = Package(w=Parameter(np.ones(3)))
    unused = Package(w=Parameter(np.ones(3)))
    Phi4 = Package(w=Parameter(np.ones(3)))
    ell = Phi4.w * Phi3.w * head.w * Phi1.b * Phi1.w
    name_parameters(Parameters(ell))
    named = {p.name: p for p in Parameters(ell)}
    assert [*named] == ["Phi4.w", "Phi3.w", "head.w", "Phi1.w", "Phi1.b"]
    assert named["Phi1.b"] is Phi1.b and named["head.w"] is head.w and named["Phi4.w"] is Phi4.w
    assert unused.w not in Parameters(ell)


def test_a_package_subclass_needs_no_super_and_learns_of_attributes_set_later():
    class Gates(Package):
        def __init__(self):
            self.w = Parameter(np.ones(3))

    first, Phi = Package(w=Parameter(np.ones(3))), Gates()
    Phi.late = Parameter(np.ones(3))
    ell = Sum(Phi, first)
    name_parameters(Parameters(ell))
    assert [p.name for p in Parameters(ell)] == ["Phi2.w", "Phi2.late", "Phi1.w"]
    assert Phi.late.package is Phi


def test_a_package_may_hold_computed_nodes():
    u, b, x = Parameter(np.ones((4, 3))), Parameter(np.ones(3)), rows(np.ones((2, 4)))
    ell = ops.SquareLoss(ops.Affine(Package(w=u * 2, b=b), x), rows(np.zeros((2, 3))))
    Forward(ell)
    Backward(ell)
    np.testing.assert_allclose(u.grad, np.full((4, 3), 2 * 2 * 7.0), rtol=1e-12)


ORDER = """
import sys, numpy as np
from dpedf.edf import CompNodes, Package, Parameter, Parameters
from dpedf.ops import Sigmoid, Square, Tanh
from dpedf.phi import Phi
from dpedf.run.outline import outline
junk = [np.empty(1 + n % 97) for n in range(int(sys.argv[1]))]
del junk[::3]
nodes = []
for k in range(12):
    P = Package(w=Parameter(np.ones(3)), b=Parameter(np.ones(3)))
    nodes.append((Sigmoid, Square, Tanh)[k % 3](P.w * nodes[k // 2] + P.b if nodes else P.w))
ell = nodes[0]
for n in reversed(nodes):
    ell = ell * n
phi = Phi(ell)
assert CompNodes(ell) == sorted(CompNodes(ell), key=lambda n: n.number)
print(*(p.name for p in phi.parameters))
print(outline(ell))
"""


def test_program_order_depends_on_the_source_alone(python):
    printed = []
    for seed in "0", "1", "2":
        ran = python("-c", ORDER, 1000 * int(seed), PYTHONHASHSEED=seed)
        assert ran.returncode == 0, ran.stderr
        printed.append(ran.stdout)
    names = [f"Phi{k}.{part}" for k in range(1, 13) for part in "wb"]
    names.remove("Phi1.b")
    assert printed[0].splitlines()[0].split() == names
    assert printed[0] == printed[1] == printed[2]


def test_a_node_reads_whether_it_is_trained_in_the_context():
    class Trained(CompNode):
        def __init__(self, x):
            self.x = x

        def forward(self):
            self.value = self.x.value * (2 if context.train else 1)

    ell = Trained(rows([1.0]))
    for train, expected in (True, 2), (False, 1):
        Forward(ell, train=train)
        assert ell.value == expected
    Forward(ell, train=True)
    Forward(ell)
    assert ell.value == 1


@pytest.mark.parametrize("B", [0, 1, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_graph_keeps_its_dtype_with_any_number_of_rows(dtype, B):
    ell, x, y = perceptron()
    x.value, y.value = x.value[:B].astype(dtype), y.value[:B]
    for p in Parameters(ell):
        p.value = p.value.astype(dtype)
        p.differentiate_into(p.grads.astype(dtype))
    ell = 0.5 * ell + 1
    Forward(ell)
    Backward(ell, 8)
    SGD(Parameters(ell), 0.1)
    for n in CompNodes(ell):
        assert n.value.dtype == dtype and len(n.value) == B
        if not isinstance(n, ops.Softmax):  # LogLoss goes past it
            assert n.grad.dtype == dtype and len(n.grad) == B
    for p in Parameters(ell):
        assert p.value.dtype == p.grad.dtype == dtype
        assert p.grad.any() == (B > 0)


def test_sgd_steps_against_the_gradient_in_place():
    p = Parameter(np.array([1.0, 2.0]))
    value = p.value
    p.grad[...] = [10.0, 20.0]
    SGD([p], 0.1)
    assert p.value is value
    np.testing.assert_allclose(value, [0.0, 0.0], atol=1e-15)


def test_names_of_attributes_and_parameters_are_the_users():
    """Also those that the framework uses for other things."""
    Phi = Package(query=Parameter(np.ones(3)), value=Parameter(np.ones(3)))
    Psi = Package(forward=Parameter(np.ones(3)), backward=Parameter(np.ones(3)))

    class Part(CompNode):
        def __init__(self, x):
            self.x, self.begin, self.end, self.kind = x, 0, 2, "part"

        def forward(self):
            self.value = self.x.value[:, self.begin : self.end]

        def backward(self):
            part = self.x.own_grad()[:, self.begin : self.end]
            part += self.grad

    class Cell(Package):
        def __init__(self):
            self.w = Parameter(np.full(3, 2.0))

        def forward(self, x):
            return x * self.w

    z = Cell().forward(rows(np.ones((2, 3)))) * Phi.value * Phi.query * Psi.forward * Psi.backward
    ell = ops.SquareLoss(Part(z), rows(np.zeros((2, 2))))
    Forward(ell)
    Backward(ell)
    assert len(Parameters(ell)) == 5
    for p in Parameters(ell):
        np.testing.assert_array_equal(p.grad * p.value, [8, 8, 0])  # d z**2 / dp, with z = 2


def test_a_part_is_added_beside_the_products_that_wait():
    """Which wait on, so that the same ones are added together with and without the part."""
    p, factors = Parameter(np.zeros((3, 4))), factors_of_products(3)
    for x, g in factors:
        p.addproduct(x, g)
    part = p.own_grad()[1]
    assert len(p.sum_over_rows.products) == 2
    part += 7
    p.sum_over_rows.finish()
    expected = sum(x.T @ g for x, g in factors) + 7 * np.eye(3)[:, 1:2]
    np.testing.assert_allclose(p.grad, expected, rtol=1e-12)
