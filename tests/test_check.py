"""The checks find what they are for, and name it."""

import threading
from pathlib import Path

import numpy as np
import pytest

from dpedf import check
from dpedf.edf import Backward, CompNode, Forward, Input, Parameter, Parameters
from dpedf.errors import RunError, UserError
from dpedf.models import mlp
from dpedf.models.images import conv
from dpedf.ops import (
    Affine,
    Conv2D,
    Embedding,
    Flatten,
    LeakyRelu,
    LogLoss,
    MaxPool,
    Relu,
    Sigmoid,
    Slice,
    Softmax,
    SquareLoss,
    Sum,
    Tanh,
)
from dpedf.phi import Phi, dense
from dpedf.run.outline import outline
from dpedf.source.listing import listing


class WrongTanh(Tanh):
    """Its backward is off by a factor."""

    def backward(self):
        self.x.addgrad(1.001 * self.grad * (1 - np.square(self.value)))


def network(Activation):
    """(ell, Phi) of two Affine layers with this between them, in float64."""
    random, x, y = np.random.default_rng(0), Input(), Input()
    x.value, y.value = random.normal(size=(4, 3)), random.normal(size=(4, 2))
    ell = SquareLoss(Affine(dense(5, 2, name="top"), Activation(Affine(dense(3, 5), x))), y)
    return ell, Phi(ell, dtype=np.float64)


def test_right_gradients_pass_and_leave_phi_as_it_was():
    ell, phi = network(Tanh)
    before = phi.value.copy()
    check.gradients(ell, samples=1000)
    assert np.array_equal(phi.value, before)


def test_a_wrong_backward_is_found_and_the_parameter_named():
    ell, phi = network(WrongTanh)
    with pytest.raises(UserError, match=r"^Phi2\.w\[\d, \d\]: gradient .* by Backward, expected"):
        check.gradients(ell)


@pytest.mark.parametrize("at", [(i, j) for i in range(3) for j in range(2)])
def test_a_wrong_gradient_of_one_number_among_many_is_found(at):
    class Wrong(Affine):
        def backward(self):
            super().backward()
            self.Phi.w.own_grad()[at] += 1e-4

    random, x, y = np.random.default_rng(0), Input(), Input()
    x.value, y.value = random.normal(size=(4, 3)), random.normal(size=(4, 2))
    ell = SquareLoss(Wrong(dense(3, 2), x), y)
    Phi(ell, dtype=np.float64)
    with pytest.raises(UserError, match=rf"^Phi1\.w\[{at[0]}, {at[1]}\]: gradient"):
        check.gradients(ell, samples=6)


def test_a_gradient_that_is_nan_is_wrong():
    class Nan(Tanh):
        def backward(self):
            self.x.addgrad(np.full_like(self.value, np.nan))

    with pytest.raises(UserError, match="gradient nan by Backward"):
        check.gradients(network(Nan)[0])


def test_the_gradients_of_a_classifier_pass():
    x, y = Input((4,), np.float64), Input((), np.int64, 3)
    x.value, y.value = np.random.default_rng(0).normal(size=(6, 4)), np.arange(6) % 3
    Q, ell = mlp(x, y, [4, 5, 3])
    Phi(ell, dtype=np.float64)
    check.gradients(ell)


def test_gradients_of_float32_are_not_checked():
    ell, phi = network(Tanh)
    Phi(ell, dtype=np.float32)
    with pytest.raises(UserError, match=r"Phi2\.w is float32, expected float64"):
        check.gradients(ell)


# Kinks: biases are 0, and patches of images are blank, so that whole channels are at that of relu.


def images(seed, Activation=Relu, Pool=MaxPool, Convolution=Conv2D):
    """The ell of two convolutions on images of which most is blank, and one is all blank."""
    random, x, y = np.random.default_rng(seed), Input((1, 12, 12), float), Input((), int, 4)
    x.value, y.value = np.zeros((4, 1, 12, 12)), np.arange(4)
    x.value[1:, :, 4:8, 5:9] = random.random((3, 1, 4, 4))
    z = Pool(Activation(Convolution(conv(1, 3, 3), x, padding=1)), 2)
    z = Activation(Pool(Convolution(conv(3, 4, 3), z, padding=1), 2))
    ell = LogLoss(Softmax(Affine(dense(36, 4), Flatten(z))), y)
    Phi(ell, seed, np.float64)
    return ell


class Sloped(Relu):
    """Its gradient at 0 is slope times that of y, which is wrong unless slope is in 0..1."""

    slope = 0.5

    def backward(self):
        x = self.x.value
        self.x.addgrad(self.grad * ((x > 0) + self.slope * (x == 0)))


class SlopedTooMuch(Sloped):
    slope = 2


class WrongRelu(Relu):
    def backward(self):
        self.x.addgrad(1.001 * self.grad * (self.x.value > 0))


class ToAll(MaxPool):
    """It sends the gradient of a window to all places that have its largest number."""

    def backward(self):
        y, g = (a.repeat(2, 2).repeat(2, 3) for a in (self.value, self.grad))
        self.x.addgrad(g * (self.x.value == y))


class WrongBias(Conv2D):
    def backward(self):
        super().backward()
        self.Phi.b.own_grad()[...] *= 1.001


class Slope2(LeakyRelu):
    def __init__(self, x):
        super().__init__(x, 0.2)


@pytest.mark.parametrize("seed", [0, 1, 2, 19])
@pytest.mark.parametrize("Activation", [Relu, LeakyRelu, Slope2, Sloped])
def test_a_right_model_passes_wherever_its_relus_and_pools_meet_their_kinks(Activation, seed):
    check.gradients(images(seed, Activation))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "wrong",
    [
        {"Activation": WrongRelu},
        {"Activation": SlopedTooMuch},
        {"Pool": ToAll},
        {"Convolution": WrongBias},
    ],
)
def test_a_wrong_backward_is_found_in_a_model_at_its_kinks(wrong, seed):
    with pytest.raises(UserError, match="gradient .* by Backward.*, expected"):
        check.gradients(images(seed, **wrong))


def residual(z):
    return z + Relu(Affine(dense(10, 10), z))


CROWDED = {  # layers whose kinks all meet where a row is blank
    "residual layers": lambda z: residual(residual(z)),
    "the larger of two": lambda z: z + Relu(Affine(dense(10, 10), z) - z),
}


def with_a_blank_row(name, seed):
    random, x, y = np.random.default_rng(seed), Input((6,), float), Input((), int, 3)
    x.value, y.value = random.normal(size=(8, 6)), np.arange(8) % 3
    x.value[2] = 0
    z = CROWDED[name](Affine(dense(6, 10), x))
    ell = LogLoss(Softmax(Affine(dense(10, 3), z)), y)
    Phi(ell, seed, np.float64)
    return ell


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CROWDED)
def test_a_right_model_passes_where_one_number_does_not_show_all_kinks(name, seed):
    check.gradients(with_a_blank_row(name, seed), samples=None)


@pytest.mark.parametrize("name", CROWDED)
def test_a_wrong_backward_is_found_there_too(name, monkeypatch):
    def backward(self):
        x = self.x.value
        self.x.addgrad(self.grad * ((x > 0) + 50 * (x == 0)))

    monkeypatch.setattr(Relu, "backward", backward)
    with pytest.raises(UserError, match="gradient .* by Backward.*, expected"):
        check.gradients(with_a_blank_row(name, 0), samples=None)


def test_a_model_that_does_not_compute_elsewhere_keeps_its_values():
    class Here(Relu):
        def forward(self):
            super().forward()
            if (self.x.value != 1).any():
                raise ZeroDivisionError

    p, x = Parameter(np.ones(2)), Input((2,), float)
    x.value = np.ones((1, 2))
    with pytest.raises(ZeroDivisionError):
        check.gradients(Sum(Here(p * x)))
    assert p.value.tolist() == [1, 1]


def of_one_number(p, node, rows=((1.0,),)):
    """The ell of a node that depends on a number, by rows."""
    x, p = Input(), Parameter(np.array([p]))
    x.value, p.name = np.array(rows), "p"
    return Sum(node(p, x))


@pytest.mark.parametrize("slope, right", [(0, True), (1, True), (2, False), (-1, False)])
def test_a_gradient_at_a_kink_is_that_of_a_side_or_between_them(slope, right):
    class Relu0(Sloped):
        pass

    Relu0.slope = slope
    ell = of_one_number(0.0, lambda p, x: Relu0(p * x))
    if right:
        check.gradients(ell)
    else:
        with pytest.raises(UserError, match=r"^p\[0\]: gradient .*, expected 0 to 1, .* kink$"):
            check.gradients(ell)


def test_the_sides_of_a_kink_are_those_of_each_row():
    """The losses of two rows have kinks that their sum does not have."""
    check.gradients(of_one_number(0.0, lambda p, x: x * Relu(p * x), [[1.0], [-1.0]]))


class Of(CompNode):
    """y = f(p x), with this derivative"""

    def __init__(self, p, x, f, slope):
        self.p, self.x, self.f, self.slope = p, x, f, slope

    def forward(self):
        self.value = self.f(self.p.value * self.x.value)

    def backward(self):
        self.p.addgrad(self.grad * self.x.value * self.slope(self.p.value * self.x.value))


SMOOTH = {  # f, its derivative, and p
    "steep": (lambda z: np.tanh(1e6 * z), lambda z: 1e6 / np.cosh(1e6 * z) ** 2, 3e-7),
    "steep at 0": (lambda z: np.sin(3e7 * z), lambda z: 3e7 * np.cos(3e7 * z), 0.0),
    "of large numbers": (lambda z: z**2, lambda z: 2 * z, 1e7),
    "with a large loss": (lambda z: 1e8 + np.sin(z), np.cos, 0.3),
    "of which little is left": (lambda z: np.exp(-z), lambda z: -np.exp(-z), 7.0),
    "of nothing": (lambda z: 0 * z, lambda z: 0 * z, 0.0),
    "just beside a kink": (lambda z: np.abs(z), np.sign, 1e-9),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_steep_large_and_small_functions_pass_and_a_wrong_slope_is_found(name):
    f, slope, p = SMOOTH[name]
    rows = [[1.0], [1.1]]
    check.gradients(of_one_number(p, lambda p, x: Of(p, x, f, slope), rows))
    with pytest.raises(UserError, match=r"^p\[0\]: gradient"):
        wrong = lambda z: 1.01 * slope(z) + (name == "of nothing")  # noqa: E731
        check.gradients(of_one_number(p, lambda p, x: Of(p, x, f, wrong), rows))


def test_a_check_at_kinks_leaves_the_gradients_as_they_were():
    ell, again = images(0), images(0)
    check.gradients(ell)
    Forward(again, train=True)
    Backward(again)
    for p, q in zip(Parameters(ell), Parameters(again), strict=True):
        np.testing.assert_array_equal(p.grad, q.grad)
        np.testing.assert_array_equal(p.value, q.value)


class Faulty(CompNode):
    """y = x, with a nan at [1, 2] of its value, or of what it sends back."""

    def __init__(self, x, where):
        self.x, self.where = x, where

    def spoilt(self, array, where):
        array = array.copy()
        if where == self.where:
            array[1:2, 2] = np.nan
        return array

    def forward(self):
        self.value = self.spoilt(self.x.value, "forward")

    def backward(self):
        self.x.addgrad(self.spoilt(self.grad, "backward"))


def test_the_node_that_made_a_nan_forward_is_named():
    ell, phi = network(lambda x: Faulty(x, "forward"))
    check.nan(ell)
    with pytest.raises(RunError, match=r"z2 = Faulty: forward made z2\[1, 2\] nan"):
        Forward(ell)


def test_the_node_that_made_a_nan_backward_is_named():
    ell, phi = network(lambda x: Faulty(x, "backward"))
    check.nan(ell)
    Forward(ell)
    with pytest.raises(RunError, match=r"z2 = Faulty: backward made z1\.grad\[1, 2\] nan"):
        Backward(ell)


def test_a_nan_that_reaches_a_parameter_is_named():
    ell, phi = network(Tanh)
    check.nan(ell)
    Forward(ell)
    x = ell.x.x.x.x  # SquareLoss, Affine, Tanh, Affine
    x.value = np.full((4, 3), np.nan)
    with pytest.raises(RunError, match=r"z1 = Affine: backward made Phi2\.w\.grad\[0, 0\] nan"):
        Backward(ell)


def test_nan_is_found_where_a_graph_was_right_before():
    ell, phi = network(Tanh)
    check.nan(ell)
    Forward(ell)
    Backward(ell)
    phi.value[phi.offsets[2]] = np.nan  # the first of its package that is third in Phi
    with pytest.raises(RunError, match="forward made .* nan, expected a number"):
        Forward(ell)


def test_a_graph_without_nan_passes_and_gives_the_same():
    (watched, phi), (plain, other) = network(Tanh), network(Tanh)
    check.nan(watched)
    for ell in watched, plain:
        Forward(ell)
        Backward(ell)
    assert np.array_equal(phi.grad, other.grad)


def test_infinity_is_no_nan():
    ell, phi = network(Tanh)
    check.nan(ell)
    phi.value[0] = np.inf
    Forward(ell)


def test_a_listing_shows_the_program_a_line_a_node():
    s = Affine(dense(4, 3), Sigmoid(Affine(dense(2, 4), Input())))
    ell = LogLoss(Softmax(s), Input())
    Phi(ell)
    assert outline(ell).splitlines() == [
        "z1 = Affine(Phi2.w (2, 4), Phi2.b (4,), Input)",
        "z2 = Sigmoid(z1)",
        "z3 = Affine(Phi1.w (4, 3), Phi1.b (3,), z2)",
        "z4 = Softmax(z3)",
        "ell = LogLoss(z4, Input)",
    ]


# check(node), for a node of one's own


class Cube(CompNode):
    def __init__(self, x):
        self.x = x

    def forward(self):
        self.value = self.x.value**3

    def backward(self):
        self.x.addgrad(self.grad * self.slope * self.x.value**2)

    slope = 3


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_a_node_is_checked_in_two_lines(shape):
    x = Input(shape)
    check.check(Cube(x))
    assert type(x) is Input and not x.varies and x.batched and x.grad is None


@pytest.mark.parametrize("slope", [2.999, -3])
def test_a_node_with_a_wrong_gradient_is_found(slope):
    node = Cube(Input((4,)))
    node.slope = slope
    with pytest.raises(UserError, match="by Backward, expected .* by finite differences"):
        check.check(node)
    assert type(node.x) is Input


def test_a_node_with_parameters_and_labels_is_checked():
    y = Input((), np.intp, 3)
    y.value = np.array([0, 2, 1])
    x = Input((4,))
    x.value = np.random.default_rng(0).normal(size=(3, 4))
    node = Affine(dense(4, 3), x)
    check.check(LogLoss(Softmax(node), y))
    node.Phi.w.value += 1  # and wherever the parameters are
    check.check(node)


def test_a_node_of_parameters_alone_is_checked():
    check.check(Cube(Parameter(np.random.default_rng(0).normal(size=(2, 3)))))


def test_a_checked_node_works_as_before():
    x, p = Input((4,)), Parameter(np.ones(4))
    node = Cube(x)
    ell = SquareLoss(node * p, x)
    check.check(node)
    Forward(ell)
    Backward(ell)
    assert node.grad is None and p.grad.shape == (4,)


def test_inputs_of_labels_get_random_rows_too():
    W = Parameter(np.random.default_rng(0).normal(size=(5, 2)))
    check.check(Embedding(W, Input((3,), int, 5)))
    check.check(LogLoss(Softmax(Input((5,))), Input((), int, 5)))


def test_an_input_of_bools_gets_both_of_them(refused):
    class Chosen(Cube):
        """Wrong where the mask is False."""

        def __init__(self, x, mask):
            self.x, self.mask = x, mask

        def forward(self):
            self.value = np.where(self.mask.value, 0.0, 2 * self.x.value)

        def backward(self):
            self.x.addgrad(np.where(~self.mask.value, self.grad, 0.0))

    with refused("gradient", "by Backward, expected"):
        check.check(Chosen(Input((4,)), Input((4,), bool)))


def test_an_input_without_a_value_is_named(refused):
    with refused("an Input without a value", "expected"):
        check.check(Cube(Input()))


class Odd(Cube):
    """Its forward reads the Input's shape, and a function that has captured the Input."""

    def __init__(self, x):
        self.x, self.cube, self.lock = x, lambda: x.value**3, threading.Lock()

    def forward(self):
        assert self.x.shape == (4,)
        self.value = self.cube()


def test_a_node_is_checked_as_it_stands_whatever_it_holds():
    x = Input((4,))
    node = Odd(x)
    for _ in range(300):  # deeper than Python's stack would like
        node = Tanh(node)
    check.check(node)
    assert node.value.shape == (0, 4) and not node.varies and "addgrad" not in vars(x)


def test_a_node_with_watched_values_is_checked():
    node = Cube(Input((4,)))
    check.nan(node)
    check.check(node)


def test_a_part_of_an_input_is_checked():
    x = Input((4, 3))
    check.check(Sum(Slice(x, 1)) * Sum(x) * Sum(Slice(x, (slice(1, 3), 0))))


def test_a_nan_in_a_product_that_waits_for_others_is_named():
    W, x1, x2 = Parameter(np.ones((3, 2))), Input((3,)), Input((3,))
    x1.value, x2.value = np.ones((4, 3)), np.zeros((4, 3))
    ell = SquareLoss(x1 @ W, x2 @ W)
    W.name = "W"
    check.nan(ell)
    Forward(ell)
    x1.value = np.full((4, 3), np.nan)  # of which the second product of backward is made
    with pytest.raises(RunError, match=r"z1 = MatMul: backward made W\.grad"):
        Backward(ell)


class Typed(Cube):
    """y = x**3"""

    def __init__(self, x):
        self.x, self.dtype, self.equations, self.path = x, x.value.dtype, None, Path("a")


def test_any_attribute_of_a_node_is_passed_over():
    x = Input((4,))
    assert listing(Typed(x), x=x).splitlines()[0] == "ell = x**3"
    with pytest.raises(ValueError, match=r"expected x \(B, I\)"):

        class Square(Typed):
            """x: (B, I)"""

        Square(Input((2, 3)))
