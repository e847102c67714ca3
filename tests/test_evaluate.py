"""What counts as correct, with one label a row, with many, or with none."""

import tracemalloc
from contextlib import nullcontext

import numpy as np
import pytest
import slides
from threaded import on_ranks
from threadpoolctl import threadpool_limits

from dpedf import models
from dpedf.data import Data, write
from dpedf.edf import CompNode, Input, Parameter
from dpedf.ops import (
    Affine,
    BinaryLogLoss,
    Dropout,
    Exp,
    Flatten,
    LogLoss,
    Reshape,
    Sigmoid,
    Softmax,
    Square,
    Sum,
    Tanh,
)
from dpedf.parallel.gradient import Gradient
from dpedf.parallel.ranks import Ranks
from dpedf.phi import Phi, dense
from dpedf.run import build
from dpedf.run.evaluate import classifies, evaluate
from dpedf.run.targets import predicted

ABOUT = {"name": "rows", "source": "this test", "licence": "none"}
RANDOM = np.random.default_rng(0)


class Same(CompNode):
    """Q = x"""

    def __init__(self, x):
        self.x = x

    def forward(self):
        self.value = self.x.value


class Looks(CompNode):
    """ell[b] = 0, of these inputs; most: the numbers that it ever saw in the last at a time"""

    most = 0

    def __init__(self, *inputs):
        self.inputs = inputs

    def forward(self):
        self.value = np.zeros(len(self.inputs[0].value))
        self.most = max(self.most, self.inputs[-1].value.size)


class FirstOfTwo(CompNode):
    """The first of two, with no index of the two left."""

    def __init__(self, x):
        self.x = x

    def forward(self):
        self.value = self.x.value[..., 0]


@pytest.fixture
def opened(tmp_path):
    """opened(x, y, classes): the data of these rows, which it also tests on."""

    def open_rows(x, y, classes=None):
        write(tmp_path / "rows.h5", **ABOUT, classes=classes, train=(x, y), test=(x, y))
        return Data(tmp_path / "rows.h5")

    return open_rows


@pytest.mark.parametrize("shape", [(), (5,), (40, 30)])
def test_accuracy_is_the_part_of_all_labels_that_the_output_is_largest_at(shape, opened):
    N = 700 if not shape else 30
    x, y = RANDOM.random((N, *shape, 4)), RANDOM.integers(0, 4, (N, *shape))
    data = opened(x, y, 4)
    Q = Same(data.x)
    ell = Looks(Q, data.y)
    build.expect_fit(Q, ell, data)
    loss, accuracy = evaluate(Q, ell, data, data.test, Ranks())
    assert loss == 0
    assert accuracy == pytest.approx((x.argmax(axis=-1) == y).mean(), abs=1e-12)


@pytest.mark.parametrize(
    ("shape", "most"), [((), 512), ((100,), 500), ((512,), 512), ((600,), 600), ((3, 7), 504)]
)
def test_so_many_labels_are_computed_at_a_time_that_memory_holds_them(shape, most, opened):
    N = 40 if shape else 1500
    data = opened(RANDOM.random((N, *shape, 4)), RANDOM.integers(0, 4, (N, *shape)), 4)
    Q = Same(data.x)
    ell = Looks(Q, data.y)
    evaluate(Q, ell, data, data.test, Ranks())
    assert ell.most == most  # 512, or what whole rows make of it, but at least one row


def test_numbers_that_are_no_labels_are_no_reason_for_small_blocks(opened):
    """What metrics add up of each target is kept for every block."""
    data = opened(RANDOM.random((40, 100)), RANDOM.random((40, 100)))
    ell = Looks(Same(data.x), data.y)
    evaluate(data.x, ell, data, data.test, Ranks())
    assert ell.most == 40 * 100


def wide(x, y):
    """Scores of 5,000 classes at each of 16 places."""
    Q = Softmax(Affine(dense(8, y.classes), x))
    return Q, LogLoss(Q, y)


@pytest.mark.parametrize(
    ("model", "shape", "labels", "classes"),
    [(models.lenet, (64, 64), (), 10), (wide, (16, 8), (16,), 5000)],
)
@pytest.mark.parametrize("slices", [0, 4])
def test_no_more_memory_is_taken_than_by_a_pass_of_training(
    model, shape, labels, classes, slices, opened
):
    N, B = 64, 16
    x = RANDOM.integers(0, 256, (N, *shape), np.uint8)
    data = opened(x, RANDOM.integers(0, classes, (N, *labels)), classes)
    Q, ell = model(data.x, data.y)
    gradient = Gradient(ell, Phi(ell), Ranks(), data.put, slices)
    rows = gradient.passes.fewest_rows(B)
    assert rows == (B // slices if slices else B)

    def peak(compute):
        tracemalloc.start()
        try:
            with threadpool_limits(1, "blas"):
                compute()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def learn():
        for x, y, b in data.train.minibatches(0, 0, B, gradient.shard):
            gradient(x, y, b)

    evaluation = peak(lambda: evaluate(Q, ell, data, data.test, Ranks(), rows))
    assert evaluation < 1.1 * peak(learn)


@pytest.mark.parametrize("shape", [(), (6,)])
def test_of_two_classes_an_output_may_be_the_score_of_class_1(shape, opened):
    x, y = RANDOM.random((90, *shape, 2)), RANDOM.integers(0, 2, (90, *shape))
    data = opened(x, y, 2)
    Q = FirstOfTwo(data.x)
    ell = Looks(Q, data.y)
    build.expect_fit(Q, ell, data)
    accuracy = evaluate(Q, ell, data, data.test, Ranks())[1]
    assert accuracy == pytest.approx(((x[..., 0] > 0) == y).mean(), abs=1e-12)


@pytest.mark.parametrize("shape", [(), (6,)])
def test_a_score_above_0_is_for_class_1_and_one_below_for_class_0(shape, opened):
    x, y = RANDOM.normal(size=(90, *shape, 2)), RANDOM.integers(0, 2, (90, *shape))
    x[..., 0] = np.where(y == 1, 1, -1) * np.abs(x[..., 0])
    x[:9, ..., 0] *= -1  # which are then wrong, a tenth of all
    data = opened(x, y, 2)
    Q = FirstOfTwo(data.x)
    accuracy = evaluate(Q, Looks(Q, data.y), data, data.test, Ranks())[1]
    assert accuracy == pytest.approx(0.9, abs=1e-12)


# On several ranks, which are threads here.

LOSSES = {"of all sizes": [1e16, 1, -1e16, 1, 3, 1e16, 5], "whose sum is exact": range(7)}


@pytest.mark.parametrize("losses", LOSSES.values(), ids=LOSSES)
def test_more_rows_than_a_block_have_one_loss_on_any_number_of_ranks(losses, opened, tmp_path):
    """Blocks are added in one order; another one gives other bits, or another number."""
    N = 6 * 512 + 100
    x, y = np.zeros((N, 3)), np.arange(N) % 3
    x[np.arange(N), y], x[::512, 0] = 1e-3, losses
    opened(x, y, 3)

    def evaluated(ranks):
        data = Data(tmp_path / "rows.h5", dtype=np.float64)
        Q = Same(data.x)
        found = evaluate(Q, Sum(Q, 0) + 0 * Looks(Q, data.y), data, data.test, ranks)
        return found, ranks.lived

    ((alone, lived),) = on_ranks(1, evaluated)
    assert lived >= 7
    for size in 2, 3, 5:
        found = on_ranks(size, evaluated)
        assert [(np.array(f).tobytes()) for f, lived in found] == [np.array(alone).tobytes()] * size
        assert all(lived >= 7 // size for f, lived in found)  # between blocks, it was alive
    if losses is LOSSES["whose sum is exact"]:
        assert alone[0] == pytest.approx(x.sum() / N, rel=1e-12)
        assert alone[1] == pytest.approx((x.argmax(axis=1) == y).mean(), abs=1e-12)


def test_losses_are_added_in_float64(opened):
    x = np.array([[2.0**24], [1.0], [1.0]], np.float32)  # in float32 their sum is 2**24
    data = opened(x, x)
    Q = Same(data.x)
    ell = Sum(Q)
    assert evaluate(Q, ell, data, data.test, Ranks())[0] == (2**24 + 2) / 3
    assert ell.value.dtype == np.float32


def test_an_evaluation_is_no_training(opened):
    """Dropout lets everything pass."""
    data = opened(np.ones((600, 3)), np.ones((600, 3)))
    Q = Dropout(data.x, 0.5)
    assert evaluate(Q, Sum(Q), data, data.test, Ranks()) == (3, None)


@pytest.mark.parametrize(
    ("output", "labels", "classes", "expected"),
    [
        ((), (), 3, "(B,), expected (B, 3), a number for each class"),
        ((1,), (), 3, "(B, 1), expected (B, 3), a number for each class"),
        ((4,), (), 3, "(B, 4), expected (B, 3), a number for each class"),
        ((3, 5), (5,), 3, "(B, 3, 5), expected (B, 5, 3), a number for each class"),
        ((1,), (), 2, "(B, 1), expected (B, 2), a number for each class, or (B,), the score"),
        ((3,), (), 2, "(B, 3), expected (B, 2), a number for each class, or (B,), the score"),
        ((), (5,), 2, "(B,), expected (B, 5, 2), a number for each class, or (B, 5), the score"),
    ],
)
def test_an_output_that_does_not_fit_the_labels_is_refused(
    output, labels, classes, expected, opened, refused
):
    x, y = RANDOM.random((9, *output)), RANDOM.integers(0, classes, (9, *labels))
    data = opened(x, y, classes)
    with refused("model.build", f"the output is {expected}"):
        build.expect_fit(Q := Same(data.x), Looks(Q, data.y), data)


def test_a_loss_that_is_not_one_number_a_row_is_refused(opened, refused):
    data = opened(RANDOM.random((9, 1)), RANDOM.random((9, 1)))
    with refused("model.build: the ell is (B, 1), expected (B,), the loss of each example"):
        build.expect_fit(Q := Same(data.x), Q, data)
    with refused("model.build: the ell is (), expected (B,), the loss of each example"):
        build.expect_fit(Q := Sum(Parameter(np.ones(3))), Q, data)


def score(x):
    return Reshape(Affine(dense(3, 1), x), x.value.shape[1:-1])


OUTPUTS = {
    "a score": (score, False),
    "a bounded score": (lambda x: Tanh(score(x)), False),
    "a score of hidden units": (lambda x: score(Sigmoid(Affine(dense(3, 3), x))), False),
    "Sigmoid": (lambda x: Sigmoid(score(x)), True),
    "that of the slides": (lambda x: slides.Sigmoid(score(x)), True),
    "a formula": (lambda x: (1 + Tanh(score(x))) * 0.5, True),
    "of Softmax": (lambda x: FirstOfTwo(Softmax(Affine(dense(3, 2), x))), True),
}


@pytest.mark.parametrize("shape", [(), (6,)])
@pytest.mark.parametrize(("output", "is_probability"), OUTPUTS.values(), ids=OUTPUTS)
def test_a_probability_of_class_1_is_refused_and_a_score_is_not(
    output, is_probability, shape, opened, refused
):
    data = opened(RANDOM.random((9, *shape, 3)), RANDOM.integers(0, 2, (9, *shape)), 2)
    Q = output(data.x)
    ell = Looks(Q, data.y)
    phi = Phi(ell)
    before = phi.sha256()
    with refused("the score of class 1, before the sigmoid") if is_probability else nullcontext():
        build.expect_fit(Q, ell, data)
    assert phi.sha256() == before and Q.value.shape == (0, *shape)


def test_a_binary_loss_of_a_probability_is_refused(opened, refused):
    data = opened(RANDOM.random((9, 3)), RANDOM.integers(0, 2, 9), 2)
    s = score(data.x)
    build.expect_fit(s, BinaryLogLoss(s, data.y), data)
    with refused("what BinaryLogLoss takes", "before the sigmoid"):
        build.expect_fit(s, BinaryLogLoss(Sigmoid(s), data.y), data)


def test_a_probability_beside_the_loss_of_its_score_is_refused(opened, refused):
    data = opened(RANDOM.random((9, 3)), RANDOM.integers(0, 2, 9), 2)
    s, t = score(data.x), score(data.x)
    with refused("ell does not depend", "expected the score of class 1, before the sigmoid"):
        build.expect_fit(Sigmoid(s), BinaryLogLoss(s, data.y), data)
    with refused("ell does not depend on the output, expected that it does"):
        build.expect_fit(t, Looks(s, data.y), data)


class AtMostThreeRows(Same):
    """Q = x"""

    def forward(self):
        if len(self.x.value) > 3:
            raise ValueError("four rows")
        super().forward()


def test_a_node_that_refuses_some_rows_is_named_in_one_line(opened, refused):
    data = opened(RANDOM.random((9, 3)), RANDOM.integers(0, 2, 9), 2)
    s = AtMostThreeRows(score(data.x))
    with refused("model.build: four rows, expected a model that fits the data"):
        build.expect_fit(s, BinaryLogLoss(s, data.y), data)


def test_a_log_loss_of_scores_is_refused_and_one_of_probabilities_is_not(opened, refused):
    data = opened(RANDOM.random((9, 3)), RANDOM.integers(0, 3, 9), 3)
    s = Affine(dense(3, 3), data.x)
    Phi(ell := LogLoss(s, data.y))
    with refused("LogLoss of Affine, of -", "expected probabilities, such as Softmax makes"):
        build.expect_fit(s, ell, data)
    Q = Exp(s) / Reshape(Sum(Exp(s)), (1,))
    build.expect_fit(Q, LogLoss(Q, data.y), data)


def test_a_loss_that_ignores_the_labels_has_no_accuracy(opened):
    data = opened(RANDOM.random((90, 3)), RANDOM.integers(0, 10, 90), 10)
    Q = Same(data.x)
    ell = Looks(Q)
    build.expect_fit(Q, ell, data)  # though there is no number for each class
    assert evaluate(Q, ell, data, data.test, Ranks()) == (0, None)
    assert not classifies(ell, data.y) and classifies(Looks(Q, data.y), data.y)


def test_numbers_that_are_no_labels_have_no_accuracy(opened):
    data = opened(RANDOM.random((90, 3)), RANDOM.random((90, 3)))
    Q = Same(data.x)
    ell = Looks(Q, data.y)
    build.expect_fit(Q, ell, data)
    assert evaluate(Q, ell, data, data.test, Ranks()) == (0, None)
    assert not classifies(Looks(Q, y := Input((), np.intp)), y)


# Which labels count.  x[n,t,:3] are scores, and x[n,t,3] is the mask.


class Part(CompNode):
    """A part of x, by an index."""

    def __init__(self, x, index):
        self.x, self.index = x, index

    def forward(self):
        self.value = self.x.value[..., self.index]


def masked(N=23, T=5):
    """(x, y): right are 2 of 3 at random; padding is labelled 0, and its scores say so."""
    x, y = RANDOM.normal(size=(N, T, 4)), RANDOM.integers(1, 3, (N, T))
    x[..., 3] = np.arange(T) < RANDOM.integers(0, T + 1, (N, 1))  # a row may have none
    x[0, :, 3], x[1, :, 3] = 0, 1
    y[x[..., 3] == 0] = 0
    x[..., 0] += 9 * (x[..., 3] == 0)
    return x.astype(np.float32).astype(np.float64), y


def expected(x, y, mean):
    """(loss, accuracy), of its definition."""
    s, m = x[..., :3], x[..., 3]
    logs = np.log(np.exp(s).sum(axis=-1)) - np.take_along_axis(s, y[..., None], -1)[..., 0]
    right = s.argmax(axis=-1) == y
    if mean == "positions":
        return (m * logs).sum() / m.sum(), (m * right).sum() / m.sum()
    rows = [n for n in range(len(x)) if m[n].any()]
    loss, accuracy = (sum(a[n][m[n] == 1].mean() for n in rows) for a in (logs, right))
    return loss / len(x), accuracy / len(rows)


def alone(s, y, m, mean):
    return (Q := Softmax(s)), LogLoss(Q, y, m, mean=mean)


def with_scores_for_output(s, y, m, mean):
    return s, LogLoss(Softmax(s), y, m, mean=mean)


def beside_a_penalty(s, y, m, mean):
    Q, ell = alone(s, y, m, mean)
    return Q, ell + 0.5 * Sum(Square(Parameter(np.array([1.0, 3.0])))) - 5.0


def beside_the_loss_of_another_output(s, y, m, mean):
    other = LogLoss(Softmax(0 * s), y)
    Q, ell = alone(s, y, m, mean)
    later = LogLoss(Softmax(0 * Q), y)
    return Q, (2 * ell + 0 * other + 0 * later) / 2


def of_labels_in_another_shape(s, y, m, mean):
    Q, (T, J) = Softmax(s), s.value.shape[1:]
    labels, mask = Reshape(Flatten(y), (T, 1)), Reshape(m, (T, 1))
    return Q, LogLoss(Reshape(Q, (T, 1, J)), labels, mask, mean=mean)


WRAPPED = [
    *(alone, with_scores_for_output, beside_a_penalty, of_labels_in_another_shape),
    beside_the_loss_of_another_output,
]


@pytest.mark.parametrize("mean", ["rows", "positions"])
@pytest.mark.parametrize("wrapped", WRAPPED)
def test_loss_and_accuracy_are_those_of_the_positions_that_the_loss_counts(
    wrapped, mean, opened, tmp_path, monkeypatch
):
    x, y = masked()
    opened(x, y, 3)
    monkeypatch.setattr("dpedf.run.evaluate.LABELS", 10)  # two rows in a block

    def evaluated(ranks):
        data = Data(tmp_path / "rows.h5", dtype=np.float64)
        output, ell = wrapped(Part(data.x, slice(3)), data.y, Part(data.x, 3), mean)
        return evaluate(output, ell, data, data.test, ranks)

    (found,) = on_ranks(1, evaluated)
    assert found == pytest.approx(expected(x, y, mean), abs=1e-12)
    for size in 2, 3:
        assert on_ranks(size, evaluated) == [found] * size


def test_where_no_label_counts_there_is_no_accuracy(opened):
    x, y = masked()
    data = opened(x * [1, 1, 1, 0], y, 3)
    Q, ell = alone(Part(data.x, slice(3)), data.y, Part(data.x, 3), "positions")
    assert evaluate(Q, ell, data, data.test, Ranks()) == (0, None)


@pytest.mark.parametrize(
    ("scores", "right"),
    [
        ([np.nan, np.nan, np.nan], []),
        ([np.nan, 0, 1], []),
        ([0, 1, np.nan], []),
        ([1, 1, 0], [0]),
        ([0, np.inf, np.inf], [1]),
        ([-np.inf, -np.inf, 0], [2]),
    ],
)
def test_scores_of_nan_are_right_for_no_label_and_equal_ones_for_the_first(scores, right):
    Q = np.array([scores] * 3)
    assert (predicted(Q, 1) == np.arange(3)).nonzero()[0].tolist() == right
    binary = [np.nan, np.nan, 0.0, 0.0, np.inf, -np.inf]
    found = predicted(np.array(binary), 1) == np.array([0, 1, 0, 1, 1, 0])
    assert found.tolist() == [False, False, True, False, True, True]
