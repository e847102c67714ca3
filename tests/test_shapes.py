"""Shapes are found as a node is made, and what does not fit is an error there."""

import numpy as np
import pytest

from dpedf import shapes
from dpedf.edf import CompNode, Forward, Input, Package, Parameter
from dpedf.errors import UserError
from dpedf.ops import (
    Affine,
    Attention,
    AveragePool,
    BatchNorm,
    BinaryLogLoss,
    Concat,
    Conv2D,
    Einsum,
    Embedding,
    GRUCell,
    LayerNorm,
    LogLoss,
    LSTMCell,
    MatMul,
    MaxPool,
    Reshape,
    RMSNorm,
    Slice,
    Softmax,
    SquareLoss,
    Sum,
    Transpose,
)


def p(*shape):
    return Parameter(np.zeros(shape))


def phi(w, b):
    return Package(w=p(*w), b=p(*b))


def x(*shape):
    return Input(shape)


def labels(*shape):
    return Input(shape, np.intp, 4)


WRONG = {
    "Affine of Phi.w (4, 2), Phi.b (2,), x (B, 3): expected Phi.w (I, J)": lambda: Affine(
        phi((4, 2), (2,)), x(3)
    ),
    "Affine of Phi.w (3, 2), Phi.b (1,), x (B, 3): expected": lambda: Affine(
        phi((3, 2), (1,)), x(3)
    ),
    "MatMul of x (B, 3), y (4, 2): matmul: ": lambda: MatMul(x(3), p(4, 2)),
    "Add of x (B, 3), y (B, 2): operands could not be broadcast": lambda: x(3) + x(2),
    "Reshape of x (B, 2, 3): expected a shape of 6 numbers, not (4, 2)": lambda: Reshape(
        x(2, 3), (4, 2)
    ),
    "Transpose of x (B, 2, 3): expected an axis in -2..1, not 2": lambda: Transpose(
        x(2, 3), (0, 2)
    ),
    "Concat of x0 (B, 2, 3), x1 (B, 2): expected shapes that differ along axis -1": (
        lambda: Concat([x(2, 3), x(2)])
    ),
    "Concat of x0 (B, 2, 3), x1 (B, 3, 3): expected shapes that differ along axis -1": (
        lambda: Concat([x(2, 3), x(3, 3)])
    ),
    "Slice of x (B, 3): index 3 is out of bounds": lambda: Slice(x(3), 3),
    "Sum of x (B, 3): expected an axis in -1..0, not 1": lambda: Sum(x(3), 1),
    "Einsum of x (B, 3), y (4, 2): expected one size of i, not 3 and 4": lambda: Einsum(
        "bi,ij->bj", x(3), p(4, 2)
    ),
    "Conv2D of Phi.w (2, 3, 5, 5), Phi.b (2,), x (B, 1, 8, 8): expected": lambda: Conv2D(
        phi((2, 3, 5, 5), (2,)), x(1, 8, 8)
    ),
    "Conv2D of Phi.w (2, 1, 5, 5), Phi.b (2,), x (B, 8, 8): expected": lambda: Conv2D(
        phi((2, 1, 5, 5), (2,)), x(8, 8)
    ),
    "Conv2D of Phi.w (2, 1, 9, 5), Phi.b (2,), x (B, 1, 8, 8): expected windows of at most": (
        lambda: Conv2D(phi((2, 1, 9, 5), (2,)), x(1, 8, 8))
    ),
    "MaxPool of x (B, 1, 2, 8): expected windows of at most (2, 8), not (3, 3)": lambda: MaxPool(
        x(1, 2, 8), 3
    ),
    "AveragePool of x (B, 8): expected x (B, I, H, W)": lambda: AveragePool(x(8), 2),
    "LayerNorm of Phi.w (1,), Phi.b (1,), x (B, 3): expected Phi.w (J,)": lambda: LayerNorm(
        phi((1,), (1,)), x(3)
    ),
    "RMSNorm of w (2,), x (B, 3): expected": lambda: RMSNorm(p(2), x(3)),
    "BatchNorm of Phi.w (3,), Phi.b (3,), x (B, 2, 3): expected": lambda: BatchNorm(
        phi((3,), (3,)), x(2, 3)
    ),
    "Embedding of W (4,), x (B, 3): expected W (J, I)": lambda: Embedding(p(4), labels(3)),
    "LSTMCell of x (B, 8), z (B, 8), s (B, 2): expected": lambda: LSTMCell(x(8), x(8), x(2)),
    "GRUCell of x (B, 6), z (B, 6), h (B, 3): expected": lambda: GRUCell(x(6), x(6), x(3)),
    "Attention of q (B, 5, 6), k (B, 5, 4), v (B, 5, 6): expected": lambda: Attention(
        x(5, 6), x(5, 4), x(5, 6)
    ),
    "Attention of q (B, 5, 6), k (B, 5, 6), v (B, 5, 6): expected a multiple of 4 heads": (
        lambda: Attention(x(5, 6), x(5, 6), x(5, 6), heads=4)
    ),
    "LogLoss of Q (B, 5, 4), y (B, 6): expected": lambda: LogLoss(Softmax(x(5, 4)), labels(6)),
    "LogLoss of Q (B, 5, 4), y (B, 5), mask (B, 4): expected": lambda: LogLoss(
        Softmax(x(5, 4)), labels(5), x(4)
    ),
    "BinaryLogLoss of s (B, 1), y (B,): expected": lambda: BinaryLogLoss(x(1), labels()),
    "SquareLoss of x (B, 3), y (B, 1): expected": lambda: SquareLoss(x(3), x(1)),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_does_not_fit_is_an_error_where_the_node_is_made(message):
    with pytest.raises(ValueError) as caught:
        WRONG[message]()
    line = str(caught.value)
    assert line.startswith(message) and "\n" not in line
    assert not isinstance(caught.value, UserError)


def test_a_value_without_rows_says_what_shape_a_node_has():
    z = Affine(phi((3, 2), (2,)), x(5, 3))
    assert z.value.shape == (0, 5, 2)
    assert Softmax(z).value.shape == (0, 5, 2)


def test_inputs_whose_shape_is_unknown_are_not_checked():
    node = Affine(phi((3, 2), (2,)), Input())
    assert node.value is None
    with pytest.raises(ValueError):
        node.x.value = np.zeros((4, 5))
        Forward(node)


def test_a_node_that_is_made_of_inputs_with_rows_computes_none_of_them():
    rows = np.ones((4, 3))
    given = x(3)
    given.value = rows
    node = Affine(phi((3, 2), (2,)), given)
    assert given.value is rows and node.value.shape == (0, 2)
    Forward(node)
    assert Softmax(node).value is None and node.value.shape == (4, 2)  # not looked into
    with pytest.raises(ValueError, match=r"x \(B, 3\): expected"):
        Affine(phi((4, 2), (2,)), given)
    assert given.value is rows


def test_a_node_that_is_made_in_a_pass_of_training_does_not_learn():
    """Making one is not training: BatchNorm's running values stay."""
    Forward(Softmax(x(3)), train=True)
    node = BatchNorm(phi((3,), (3,)), x(3))
    assert not node.state["mean"].any() and (node.state["variance"] == 1).all()


@pytest.mark.parametrize(
    "shape, letters, fits",
    [
        ((4, 3), ["B", "I"], True),
        ((4,), ["B", "I"], False),
        ((4, 5, 3), ["B", "...", "I"], True),
        ((4, 3), ["B", "...", "I"], True),
        ((4,), ["B", "...", "I"], False),
        ((4, 4), ["I", "I"], True),
        ((4, 3), ["I", "I"], False),
        ((4, 8), ["J", "2J"], True),
        ((4, 6), ["J", "2J"], False),
        ((8, 4), ["2J", "J"], True),
        ((7, 3), ["2J", "J"], False),
        ((1, 3), ["1", "I"], True),
        ((2, 3), ["1", "I"], False),
        ((), [], True),
    ],
)
def test_letters_are_sizes(shape, letters, fits):
    assert shapes.fits(shape, letters, {}) == fits


def test_a_size_that_was_met_is_met_again():
    sizes = {}
    assert shapes.fits((5, 2, 3), ["B", "...", "I"], sizes)
    assert shapes.fits((3, 7), ["I", "J"], sizes) and not shapes.fits((4, 7), ["I", "J"], sizes)
    assert shapes.fits((5, 2), ["B", "..."], sizes)
    assert not shapes.fits((5, 3), ["B", "..."], sizes)


class Own(CompNode):
    """z[b] = sum_i x[b,i] w[i]

    x: (B, I); w: (I,)
    """

    def __init__(self, x, w):
        self.x, self.w = x, w

    def forward(self):
        self.value = (self.x.value * self.w.value).sum(axis=1)


def test_the_docstring_of_a_users_own_node_is_held_to_as_well():
    assert Own(x(3), p(3)).value.shape == (0,)
    with pytest.raises(ValueError, match=r"Own of x \(B, 3\), w \(1,\): expected x \(B, I\)"):
        Own(x(3), p(1))


def test_what_is_no_shape_in_a_docstring_is_passed_over():
    class Loose(Own):
        """x: (B, I / heads); w: (its rows); heads: (how many, 1.5)"""

    assert shapes.expected(Loose) == []
    assert Loose(x(3), p(3)).value.shape == (0,)
