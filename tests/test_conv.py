"""Convolutions and pools in combinations of their arguments, against PyTorch; what is refused."""

from itertools import product

import numpy as np
import pytest
from test_ops import Rows, Weighed
from test_source import compare

from dpedf.edf import Backward, Forward, Input, Package, Parameter
from dpedf.ops import (
    AveragePool,
    AveragePool1D,
    Conv1D,
    Conv2D,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    MaxPool1D,
    Sum,
)
from dpedf.phi import Phi
from dpedf.run.weights import exported

ROWS = 0, 1, 3


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="the reference is PyTorch")


def some(seed, count, *choices):
    """Some combinations, one of each of these choices."""
    every = [*product(*choices)]
    return [every[k] for k in np.random.default_rng(seed).permutation(len(every))[:count]]


def compare_with_pytorch(torch, make, reference, *values):
    """Values and gradients; values: of the operands, x first.  ValueError: both refuse it."""
    tensors = [torch.tensor(v, requires_grad=True) for v in values]
    operands = [Parameter(v) for v in values]
    try:
        expected = reference(*tensors)
    except RuntimeError:
        with pytest.raises(ValueError, match="expected"):
            Forward(make(Rows(operands[0]), *operands[1:]))
        raise ValueError from None
    z, w = make(Rows(operands[0]), *operands[1:]), Input()
    Forward(z)
    w.value = np.random.default_rng(1).normal(size=expected.shape).astype(values[0].dtype)
    ell = Weighed(z, w)
    with np.errstate(invalid="ignore"):
        Forward(ell)
    Backward(ell, 1)
    expected.backward(torch.tensor(w.value))
    near = {"rtol": 1e-9, "atol": 1e-9} if w.value.dtype == np.float64 else {"atol": 2e-5}
    assert z.value.dtype == values[0].dtype and z.value.shape == expected.shape
    np.testing.assert_allclose(z.value, expected.detach(), **near)
    for p, t in zip(operands, tensors, strict=True):
        np.testing.assert_allclose(p.grad, t.grad, **near)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_convolution_is_pytorchs(torch, dtype):
    random, F = np.random.default_rng(0), torch.nn.functional
    numbers = [1, 2, (1, 2), (3, 1)], [0, 1, (2, 0), (1, 3)], [1, 2, (1, 3)], [1, 2, 4]
    for how in some(0, 30, *numbers):
        G, bias, size = how[3], random.integers(2), random.integers(1, 4, 2)
        H, W = random.integers(3, 9, 2)
        shapes = [(random.choice(ROWS), 4, H, W), (8, 4 // G, *size), (8,)][: 2 + bias]
        one = all(isinstance(n, int) for n in how) and bias
        values = [random.normal(size=shape).astype(dtype) for shape in shapes]
        node, name = Conv2D, "conv2d"
        if one:  # then of sequences
            values[:2] = values[0][:, :, 0], values[1][:, :, 0]
            node, name = Conv1D, "conv1d"

        def make(x, w, *c, node=node, how=how):
            return node(Package(w=w, **dict(zip("b", c, strict=False))), x, *how)

        def reference(x, w, *c, name=name, how=how):
            return getattr(F, name)(x, w, -c[0] if c else None, *how)

        try:
            compare_with_pytorch(torch, make, reference, *values)
        except ValueError as error:
            assert not error.args, error


def with_arguments(function, how):
    return lambda x: function(x, *how)


def one_nan(x):
    """Of several in a window PyTorch takes the last, and dpedf the first as of other numbers."""
    x[:, :, 2:3, 2] = np.nan
    return np.select([x > 1, x < -1], [np.inf, -np.inf], x)


KINDS = {
    "ties": np.round,
    "nan and infinite": one_nan,
    "all -inf": lambda x: np.full_like(x, -np.inf),
}
SIZES = [2, 3, (2, 3)], [None, 1, 2, (3, 2), 4], [0, 1, (1, 0)]


def is_refused(torch, x, how, of_images, of_lines):
    """Do both refuse these arguments?  Else they have to agree; where none is a pair, of lines."""
    node, name = of_images
    if all(np.ndim(n) == 0 for n in how):
        x, (node, name) = x[:, :, 0], of_lines
    reference = getattr(torch.nn.functional, name)
    try:
        compare_with_pytorch(torch, with_arguments(node, how), with_arguments(reference, how), x)
    except ValueError as error:
        assert not error.args, error
        return True
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_a_max_pool_is_pytorchs_whatever_its_numbers_are(torch, kind):
    random, refused = np.random.default_rng(0), 0
    for how in some(1, 40, *SIZES, [1, 2, (1, 2)], [False, True]):
        x = KINDS[kind](random.normal(size=(random.choice(ROWS), 2, *random.integers(4, 8, 2))))
        refused += is_refused(torch, x, how, (MaxPool, "max_pool2d"), (MaxPool1D, "max_pool1d"))
    assert refused < 20


def test_an_average_pool_is_pytorchs(torch):
    random, refused = np.random.default_rng(0), 0
    for how in some(2, 60, *SIZES, [False, True], [False, True]):
        x = random.normal(size=(random.choice(ROWS), 2, *random.integers(4, 8, 2)))
        names = (AveragePool, "avg_pool2d"), (AveragePool1D, "avg_pool1d")
        refused += is_refused(torch, x, how, *names)
    assert refused < 20


def test_a_window_that_sees_nothing_of_x_has_minus_infinity_and_no_gradient():
    """Dilated so far that it looks at both sides of it."""
    p = Parameter(np.ones((2, 1, 1)))
    z = MaxPool1D(Rows(p), 2, 1, 1, 2)
    Forward(ell := Sum(z))
    Backward(ell)
    assert np.array_equal(z.value, np.full((2, 1, 1), -np.inf)) and not p.grad.any()


def sized(*shape):
    return Input(shape, float)


def kernels(*shape, bias=None):
    return Package(w=Parameter(np.ones(shape)), b=Parameter(np.ones(bias or shape[0])))


REFUSED = {
    "Conv2D by 0, expected a stride of 1 or more, one whole number or two": (
        lambda: Conv2D(kernels(2, 1, 3, 3), sized(1, 8, 8), 0)
    ),
    "Conv2D by -1, expected a padding of 0 or more, one whole number or two": (
        lambda: Conv2D(kernels(2, 1, 3, 3), sized(1, 8, 8), padding=-1)
    ),
    "Conv2D by (1, 2, 3), expected a dilation of 1 or more, one whole number or two": (
        lambda: Conv2D(kernels(2, 1, 3, 3), sized(1, 8, 8), dilation=(1, 2, 3))
    ),
    "Conv2D by (), expected a stride": lambda: Conv2D(kernels(2, 1, 3, 3), sized(1, 8, 8), ()),
    "Conv2D by True, expected a dilation of 1": (
        lambda: Conv2D(kernels(2, 1, 3, 3), sized(1, 8, 8), dilation=True)
    ),
    "Conv2D by 1.0, expected a stride of 1": (
        lambda: Conv2D(kernels(2, 1, 3, 3), sized(1, 8, 8), 1.0)
    ),
    "Conv2D by same, expected a padding of 0 or more, one whole number or two": (
        lambda: Conv2D(kernels(2, 1, 3, 3), sized(1, 8, 8), padding="same")
    ),
    "Conv1D by (1, 1), expected a stride of 1 or more, one whole number": (
        lambda: Conv1D(kernels(2, 1, 3), sized(1, 8), (1, 1))
    ),
    "Conv2D by 0, expected 1 or more groups": (
        lambda: Conv2D(kernels(2, 1, 3, 3), sized(1, 8, 8), groups=0)
    ),
    "Conv2D by (1, 2), expected one whole number": (
        lambda: Conv2D(kernels(2, 1, 3, 3), sized(1, 8, 8), groups=(1, 2))
    ),
    "Conv2D of Phi.w (4, 2, 3, 3), Phi.b (4,), x (B, 3, 8, 8): "
    "expected x of 4 channels, 2 groups of 2, not 3": (
        lambda: Conv2D(kernels(4, 2, 3, 3), sized(3, 8, 8), groups=2)
    ),
    "Conv2D of Phi.w (3, 2, 3, 3), Phi.b (3,), x (B, 4, 8, 8): "
    "expected a multiple of 2 kernels, one a group, not 3": (
        lambda: Conv2D(kernels(3, 2, 3, 3), sized(4, 8, 8), groups=2)
    ),
    "Conv2D of Phi.w (2, 1, 3, 3), Phi.b (2,), x (B, 1, 8, 4): "
    "expected windows of at most (8, 4), not (5, 5)": (
        lambda: Conv2D(kernels(2, 1, 3, 3), sized(1, 8, 4), dilation=2)
    ),
    "Conv1D of Phi.w (2, 1, 3), Phi.b (2,), x (B, 1, 2): "
    "expected windows of at most (2,), not (3,)": lambda: Conv1D(kernels(2, 1, 3), sized(1, 2)),
    "Conv1D of Phi.w (2, 1, 3), Phi.b (2,), x (B, 1, 8, 8): expected Phi.w (J, I, V)": (
        lambda: Conv1D(kernels(2, 1, 3), sized(1, 8, 8))
    ),
    "Conv2D of Phi.w (2, 1, 3, 3), Phi.b (3,), x (B, 1, 8, 8): expected Phi.w (J, I, U, V)": (
        lambda: Conv2D(kernels(2, 1, 3, 3, bias=3), sized(1, 8, 8))
    ),
    "MaxPool of windows of (3, 2) with a padding of (1, 2), expected at most half": (
        lambda: MaxPool(sized(1, 8, 8), (3, 2), padding=(1, 2))
    ),
    "AveragePool1D of windows of (3,) with a padding of (2,), expected at most half": (
        lambda: AveragePool1D(sized(1, 8), 3, padding=2)
    ),
    "MaxPool by 0, expected a size of 1 or more": lambda: MaxPool(sized(1, 8, 8), 0),
    "MaxPool by -1, expected a padding": lambda: MaxPool(sized(1, 8, 8), 2, padding=-1),
    "MaxPool by False, expected a stride of 1": lambda: MaxPool(sized(1, 8, 8), 2, False),
    "MaxPool1D by (2, 2), expected a size of 1 or more, one whole number": (
        lambda: MaxPool1D(sized(1, 8), (2, 2))
    ),
    "Conv2D of Phi.v (2,), x (B, 1, 8, 8): expected w in a Package": (
        lambda: Conv2D(Package(v=Parameter(np.ones(2))), sized(1, 8, 8))
    ),
    "MaxPool1D of x (B, 1, 1): expected windows of at most (1,), not (4,)": (
        lambda: MaxPool1D(sized(1, 1), 2, 2, 0, 3, ceil_mode=True)  # as PyTorch does
    ),
    "GlobalAveragePool of x (B, 3): expected x (B, I, H, W) or (B, I, W)": (
        lambda: GlobalAveragePool(sized(3))
    ),
}


@pytest.mark.parametrize("line", REFUSED)
def test_windows_that_mean_nothing_are_refused_in_a_line(line):
    with pytest.raises(ValueError) as caught:
        REFUSED[line]()
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


WRONG = [
    (lambda x, w: Conv2D(Package(w=w), x, 1, 1, 2, 2), "g + i", "g + k"),
    (lambda x, w: Conv2D(Package(w=w), x, 1, 1, 2, 2), "2 v - 1] W[", "1 v - 1] W["),
    (lambda x, w: Conv2D(Package(w=w), x, (1, 2), 1, 1, 2), "2 n", "1 n"),
    (lambda x, w: MaxPool(x, 3, 2, 1), ">= 0", ">= -1"),
    (lambda x, w: AveragePool(x, 3, 2, 1, count_include_pad=False), "< 5", "< 6"),
    (lambda x, w: AveragePool(x, 2, 2, 0, True), "< 5", "< 6"),
]


@pytest.mark.parametrize(("make", "right", "wrong"), WRONG)
def test_a_wrong_equation_is_noticed(make, right, wrong):
    random = np.random.default_rng(0)
    x, w = (
        Parameter(random.uniform(-2, -1, (3, 4, 5, 5))),
        Parameter(random.normal(size=(6, 2, 2, 2))),
    )
    n = make(Rows(x), w)
    Forward(ell := Sum(n))
    text = n.equations()
    compare(n, ell)
    assert right in text
    n.equations = lambda: text.replace(right, wrong)
    with pytest.raises(AssertionError):
        compare(n, ell)


def test_kernels_of_groups_and_without_a_bias_are_exported_as_pytorch_has_them(torch):
    nn, random = torch.nn, np.random.default_rng(0)
    x, made = Input((4, 9), float), dict(w=Parameter(random.normal(size=(6, 2, 3))))
    z = Conv1D(Package("c", **made, b=Parameter(random.normal(size=6))), x, 2, 1, 2, 2)
    z = Conv1D(Package("d", w=Parameter(random.normal(size=(3, 6, 2)))), z)
    Phi(ell := Sum(Flatten(z)), None, np.float64)
    c, d = nn.Conv1d(4, 6, 3, 2, 1, 2, 2), nn.Conv1d(6, 3, 2, bias=False)
    its = nn.ModuleDict({"c": c, "d": d}).double()
    its.load_state_dict({key: torch.tensor(a) for key, a in exported(ell, 0).items()})
    x.value = random.normal(size=(2, 4, 9))
    Forward(ell)
    with torch.no_grad():
        np.testing.assert_allclose(d(c(torch.tensor(x.value))), z.value, rtol=1e-12)
