"""Losses of large scores, in any form that a program gives them, and of masked positions."""

from functools import partial
from itertools import product
from math import inf, log, nan

import numpy as np
import pytest
from collected import gradients_collected
from threaded import on_ranks

from dpedf.check import check
from dpedf.edf import Backward, CompNode, Forward, Input, Parameter
from dpedf.ops import (
    Affine,
    BinaryLogLoss,
    Concat,
    Exp,
    Flatten,
    Log,
    LogLoss,
    LogSigmoid,
    LogSoftmax,
    LogSumExp,
    Mean,
    NotEqual,
    OneHot,
    Reshape,
    Sigmoid,
    Slice,
    Softmax,
    SquareLoss,
    Sum,
    Tanh,
    Transpose,
)
from dpedf.optim import Momentum
from dpedf.parallel.counts import Counts
from dpedf.parallel.gradient import Gradient
from dpedf.parallel.ranks import Ranks
from dpedf.phi import Phi, dense
from dpedf.program import context, during
from dpedf.run.step import Step

torch = pytest.importorskip("torch", reason="the reference is PyTorch")
functional = torch.nn.functional
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def inputs(*values):
    """Inputs of these values."""
    made = [Input() for _ in values]
    for x, value in zip(made, values, strict=True):
        x.value = np.asarray(value)
    return made


def entropy(s):
    Q = Softmax(s)
    return -Sum(Q * Log(Q))


def cross_entropy(s, y):
    return functional.cross_entropy(s, y, reduction="none")


def smoothed(s, y):
    Q = Softmax(s)
    return 0.9 * LogLoss(Q, y) - 0.1 * Mean(Log(Q))


def by_halves(log):
    """Of 3 scores for a softmax and of 3 for sigmoids."""
    return lambda s, y: Sum(log(Slice(s, slice(3)), Slice(s, slice(3, None))))


def others(s):
    """log(1 - softmax(s))"""
    apart = [torch.cat([s[:, :j], s[:, j + 1 :]], 1).logsumexp(1) for j in range(s.shape[1])]
    return torch.stack(apart, 1) - s.logsumexp(1, keepdim=True)


OF_SCORES = {
    "a log loss": (lambda s, y: LogLoss(Softmax(s), y), cross_entropy),
    "a log loss of a shape": (lambda s, y: LogLoss(Reshape(Softmax(s), (6,)), y), cross_entropy),
    "a mean of logs": (lambda s, y: Mean(Log(Softmax(s))), lambda s, y: s.log_softmax(1).mean(1)),
    "smoothed labels": (
        smoothed,
        lambda s, y: 0.9 * cross_entropy(s, y) - 0.1 * s.log_softmax(1).mean(1),
    ),
    "an entropy": (
        lambda s, y: entropy(s),
        lambda s, y: -(s.softmax(1) * s.log_softmax(1)).sum(1),
    ),
    "a part of a transposed one": (
        lambda s, y: Sum(Log(Slice(Transpose(Softmax(Reshape(s, (2, 3)))), 1))),
        lambda s, y: s.reshape(-1, 2, 3).log_softmax(2)[:, :, 1].sum(1),
    ),
    "one beside sigmoids": (
        by_halves(lambda s, t: Log(Concat([Softmax(s), Sigmoid(t)]))),
        lambda s, y: s[:, :3].log_softmax(1).sum(1) + functional.logsigmoid(s[:, 3:]).sum(1),
    ),
    "sigmoids": (
        lambda s, y: Sum(Log(Sigmoid(s))),
        lambda s, y: functional.logsigmoid(s).sum(1),
    ),
    "1 minus sigmoids": (
        lambda s, y: Sum(Log(1 - Flatten(Sigmoid(Reshape(s, (2, 3)))))),
        lambda s, y: functional.logsigmoid(-s).sum(1),
    ),
    "1 minus 1 minus sigmoids": (
        lambda s, y: Sum(Log(1 - (1 - Sigmoid(s)))),
        lambda s, y: functional.logsigmoid(s).sum(1),
    ),
    "1 minus a softmax": (
        lambda s, y: Sum(OneHot(y, 6) * Log(Softmax(s)) + (1 - OneHot(y, 6)) * Log(1 - Softmax(s))),
        lambda s, y: others(s).where(functional.one_hot(y, 6) == 0, s.log_softmax(1)).sum(1),
    ),
    "1 and minus sigmoids": (
        lambda s, y: Sum(Log(1 + -Sigmoid(s))) + Sum(Log(-Sigmoid(s) + 1)),
        lambda s, y: 2 * functional.logsigmoid(-s).sum(1),
    ),
    "exponentials": (lambda s, y: Sum(Log(Exp(s))), lambda s, y: s.sum(1)),
    "a sum of exponentials": (lambda s, y: Log(Sum(Exp(s))), lambda s, y: s.logsumexp(1)),
    "the probability of a group": (
        lambda s, y: Sum(Log(Sum(Reshape(Softmax(s), (2, 3)), 1))),
        lambda s, y: s.log_softmax(1).reshape(-1, 2, 3).logsumexp(2).sum(1),
    ),
    "the probability that is not masked": (
        lambda s, y: -Log(Sum(Softmax(s) * OneHot(y, 6))),
        cross_entropy,
    ),
    "a softplus by hand": (
        lambda s, y: Sum(Log(Exp(s) + 1)),
        lambda s, y: functional.softplus(s).sum(1),
    ),
    "the tail of sigmoids": (lambda s, y: Sum(Sigmoid(s)), lambda s, y: s.sigmoid().sum(1)),
}


def compare(make, reference, s, y, dtype):
    """Value and gradient with respect to the scores are those of PyTorch in float64."""
    x, labels = inputs(s.astype(dtype), y)
    ell = make(x, labels)
    with gradients_collected(ell) as grads:
        ell.program = None
        del ell.program  # which was read when no Input varied
        with np.errstate(all="raise", under="ignore", over="ignore"):  # of an Exp by hand
            Forward(ell)
            Backward(ell, 1)
    theirs = torch.tensor(x.value.astype(np.float64), requires_grad=True)
    expected = reference(theirs, torch.tensor(y))
    expected.sum().backward()
    near = {"rtol": 2e-5 if dtype == np.float32 else 1e-11, "atol": 30 * np.finfo(dtype).eps}
    assert ell.value.dtype == grads[x].dtype == dtype
    np.testing.assert_allclose(ell.value, expected.detach(), **near)
    np.testing.assert_allclose(grads[x], theirs.grad, **near)


@each_dtype
@pytest.mark.parametrize("scale", [1, 200, 1e4])
@pytest.mark.parametrize("name", OF_SCORES)
def test_of_large_scores_loss_and_gradient_are_those_of_pytorch(name, scale, dtype):
    s = np.random.default_rng(0).normal(size=(7, 6)) * scale
    s[0] = [200, -200, 0, 1e4, -1e4, 3]
    compare(*OF_SCORES[name], s, np.arange(7) % 6, dtype)


@each_dtype
@pytest.mark.parametrize("name", ["a log loss", "a log loss of a shape"])
def test_a_class_with_a_score_of_minus_infinity_is_masked(name, dtype):
    s = np.random.default_rng(0).normal(size=(4, 6))
    s[:, 1] = s[2, 3] = -inf
    compare(*OF_SCORES[name], s, np.array([0, 2, 5, 4]), dtype)


@each_dtype
def test_the_log_softmax_of_scores_of_minus_infinity_is_that_and_sends_finite_gradients(dtype):
    s = np.array([[1, -inf, 0], [-inf, -inf, 3]], dtype)
    (x,) = inputs(s)
    first = Slice(LogSoftmax(x), 2)
    check(Slice(LogSoftmax(Input((3,))), 2))
    with gradients_collected(first) as grads:
        ell = first * 1
        Forward(ell)
        Backward(ell, 1)
    expected = torch.tensor(s).log_softmax(1)
    np.testing.assert_allclose(first.x.value, expected, rtol=1e-6)
    np.testing.assert_allclose(grads[x], np.eye(3)[2] - expected.exp().numpy(), atol=1e-6)


@pytest.mark.parametrize("score", [nan, inf])
@pytest.mark.parametrize(
    "make", [Softmax, lambda s: Log(Softmax(s)), lambda s: Log(Sigmoid(s * 0))]
)
def test_a_score_that_is_no_number_stays_none(make, score):
    (x,) = inputs([[0.0, score, 1], [0, 1, 2]])
    z = make(x)
    with np.errstate(invalid="ignore"):
        Forward(z)
    assert np.isnan(z.value[0]).any() and np.isfinite(z.value[1]).all()


@each_dtype
def test_the_tail_of_a_sigmoid_is_not_lost(dtype):
    s = np.array([-80, -40, -20, -5, 0, 5, 20], dtype)
    (x,) = inputs(s)
    Forward(z := Sigmoid(x))
    np.testing.assert_allclose(z.value, 1 / (1 + np.exp(-s.astype(np.float64))), rtol=1e-5)


@each_dtype
@pytest.mark.parametrize("y", [0, 1, 0.0, 1.0, 0.3])
def test_a_binary_log_loss_of_large_scores_and_of_probabilities_is_that_of_pytorch(y, dtype):
    s, y = np.array([-1e4, -200, -20, 0, 20, 200, 1e4]), np.full(7, y)
    reference = functional.binary_cross_entropy_with_logits
    compare(BinaryLogLoss, lambda s, y: reference(s, y.to(s), reduction="none"), s, y, dtype)


@each_dtype
def test_a_binary_log_loss_of_a_computed_probability_has_the_gradient_of_pytorch(dtype):
    compare(
        by_halves(lambda s, t: BinaryLogLoss(Sum(s), Sigmoid(Sum(t)))),
        lambda s, y: functional.binary_cross_entropy_with_logits(
            s[:, :3].sum(1), s[:, 3:].sum(1).sigmoid(), reduction="none"
        ),
        *(np.random.default_rng(0).normal(size=(7, 6)), np.zeros(7), dtype),
    )


@pytest.mark.parametrize("label", [-1, 2, 1.5, nan])
def test_a_binary_log_loss_of_what_is_no_probability_is_no_number(label):
    s, y = inputs([0.5, 0.5], [1, label])
    Forward(ell := BinaryLogLoss(s, y))
    assert np.isfinite(ell.value[0]) and np.isnan(ell.value[1])


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_scores_may_be_integers_of_any_kind(dtype):
    (s,) = inputs(np.array([[0, 3, 1], [2, 2, 0]], dtype))
    x = torch.tensor(s.value.astype(np.float64))
    expected = x.softmax(1), x.log_softmax(1), x.sigmoid(), functional.logsigmoid(x)
    for make, value in zip((Softmax, LogSoftmax, Sigmoid, LogSigmoid), expected, strict=True):
        Forward(z := make(s))
        np.testing.assert_allclose(z.value, value, rtol=1e-6)
        assert z.value.dtype == np.float32


def test_a_log_is_not_taken_apart_where_it_is_not_that_of_scores():
    x = Input((3,))

    def found(z):
        return type(Log(z).logs)

    of_none = x, x * 2, 2 - Sigmoid(x), 1 - Tanh(x), Flatten(x * 2), Concat([Sigmoid(x), x])
    assert {found(z) for z in (*of_none, Softmax(x) * x, Softmax(x) * -1)} == {type(None)}
    assert found(Sigmoid(x)) is LogSigmoid and found(Softmax(x)) is LogSoftmax
    assert found(Flatten(Sigmoid(x))) is Flatten


@pytest.mark.parametrize("axes", [None, 0])
def test_the_log_of_a_sum_of_nothing_is_minus_infinity_and_sends_no_gradient(axes):
    (x,) = inputs([[-inf, -inf], [-inf, 1e4], [inf, 0]])
    ell = LogSumExp(x, axes)
    with gradients_collected(ell) as grads:
        Forward(double := ell * 2)
        Backward(double, 1)
    assert ell.value.tolist() == [-inf, 1e4, inf]
    assert grads[x][:2].tolist() == [[0, 0], [0, 2]]


def test_no_gradient_comes_from_a_masked_log_of_0():
    p, y, mask = inputs([[[0.0, 1], [0.5, 0.5]]], [[0, 1]], [[0, 1]])
    ell = LogLoss(p, y, mask)
    with gradients_collected(ell) as grads, np.errstate(all="raise"):
        Forward(double := ell * 2)
        Backward(double)
    assert double.value == pytest.approx(2 * log(2)) and grads[p].tolist() == [[[0, 0], [0, -4]]]


@pytest.mark.parametrize("score", [nan, inf, -inf])
@pytest.mark.parametrize(
    "make",
    [Softmax, lambda s: Reshape(Softmax(s), (2, 3)), lambda s: 0.9 * Softmax(s) + 0.1],
    ids=["at once", "by its logarithm", "of a mixture"],
)
def test_no_gradient_comes_from_scores_that_are_masked_and_no_numbers(make, score):
    s, y, mask = inputs([[[1.0, 2, 3], [score] * 3]], [[0, 1]], [[1, 0]])
    p = Parameter(np.zeros(3))
    ell = LogLoss(make(s + p), y, mask)
    with np.errstate(invalid="ignore"):
        Forward(ell)
        Backward(ell)
    found = p.grad.copy()
    s.value[0, 1] = 0
    Forward(ell)
    Backward(ell)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, p.grad)


@pytest.mark.parametrize("make", [Softmax, lambda s: Flatten(Softmax(s)), Sigmoid])
@pytest.mark.parametrize(
    ("labels", "error"),
    [
        ([0, -1], "label -1, expected 0..2"),
        ([0, 3], "label 3, expected 0..2"),
        ([0, 255], "label 255, expected 0..2"),
        ([0.0, 1.0], "LogLoss.* with labels of float64, expected integers"),
        ([1], r"an Input has the shape \(1,\), expected \(2,\)"),
        ([[1], [0]], r"y \(B, 1\).*: expected Q \(B, ..., J\), y \(B, ...\)"),
    ],
)
def test_labels_that_are_no_classes_are_refused(make, labels, error):
    s, y = inputs(np.zeros((2, 3)), labels)
    with pytest.raises(ValueError, match=error):
        Forward(LogLoss(make(s), y))


def test_a_mask_of_another_shape_is_refused():
    s, y, mask = inputs(np.zeros((2, 4, 3)), np.zeros((2, 4), int), np.ones((2, 1)))
    with pytest.raises(ValueError, match=r"mask"):
        Forward(LogLoss(Softmax(s), y, mask))
    with pytest.raises(ValueError, match='mean = "all", expected "rows" or "positions"'):
        LogLoss(Softmax(s), y, mean="all")


# The mean over positions.


@each_dtype
@pytest.mark.parametrize("ignored", [-100, 255])
@pytest.mark.parametrize("make", [Softmax, lambda s: Reshape(Softmax(s), (5, 4))])
def test_a_mean_over_positions_is_that_of_pytorch_which_ignores_a_label(make, ignored, dtype):
    random = np.random.default_rng(1)
    s, y = random.normal(size=(6, 5, 4)) * 50, random.integers(0, 4, (6, 5))
    y[random.random((6, 5)) < 0.4] = ignored
    y[2] = ignored

    def expected(s, y):  # of which PyTorch adds up to the mean
        losses = functional.cross_entropy(s.mT, y, reduction="none", ignore_index=ignored)
        return losses.sum(1) * 6 / (y != ignored).sum()

    def ours(s, y):
        return LogLoss(make(s), y, NotEqual(y, ignored), mean="positions")

    compare(ours, expected, s, y, dtype)
    mean = functional.cross_entropy(
        torch.tensor(s).mT, torch.tensor(y), reduction="mean", ignore_index=ignored
    )
    x, labels = inputs(s, y)
    Forward(ell := ours(x, labels))
    assert ell.value.mean() == pytest.approx(mean.item(), rel=1e-12)
    assert ell.counted().tolist() == (y != ignored).tolist()


def test_a_mean_over_no_positions_is_0_and_without_a_mask_it_is_that_of_rows():
    s, y = np.random.default_rng(0).normal(size=(3, 4, 5)), np.zeros((3, 4), int)
    x, labels, none = inputs(s, y, np.zeros((3, 4)))
    ell = LogLoss(Softmax(x), labels, none, mean="positions")
    with gradients_collected(ell) as grads, np.errstate(all="raise"):
        Forward(double := ell * 1)
        Backward(double)
    assert not double.value.any() and not grads[x].any()
    Forward(rows := LogLoss(Softmax(x), labels))
    Forward(positions := LogLoss(Softmax(x), labels, mean="positions"))
    assert rows.value.tobytes() == positions.value.tobytes() and not Counts(positions).masks
    assert positions.counted().tolist() == np.ones((3, 4)).tolist()


class Hiding(CompNode):
    """mask[b,t]: 0 where a label is 0, and in each row of the minibatch at other positions, too"""

    def __init__(self, y):
        self.y = y

    def forward(self):
        y = self.y.value
        rows = np.arange(context.row, context.row + len(y))[:, np.newaxis]
        self.value = (y != 0) & ((rows + np.arange(y.shape[1])) % 3 != 0)

    def backward(self):
        """A mask does not vary."""


B, T, I, J = 22, 4, 3, 5


def model():
    """(ell, put, x, y): a loss over positions, beside another one, and its rows."""
    random = np.random.default_rng(2)
    x, y = Input((T, I), np.float64), Input((T,), np.intp, J)
    s = Affine(dense(6, J), Tanh(Affine(dense(I, 6), x)))
    of_rows = SquareLoss(Mean(s, 0), Mean(s, 0) * 0)
    ell = LogLoss(Softmax(s), y, Hiding(y), mean="positions") + 0.1 * of_rows

    def put(rows, labels):
        x.value, y.value = rows, labels

    labels = random.integers(0, J, (B, T)) * (random.random((B, 1)) < 0.6)
    return ell, put, random.normal(size=(B, T, I)), labels


def learnt(ranks, slices=8, passes=None, overlap=False, sizes=(B, 13)):
    """What a step for each size of minibatch leaves: Phi, gradient and losses."""
    ell, put, rows, labels = model()
    phi = Phi(ell, dtype=np.float64)
    gradient = Gradient(ell, phi, ranks, put, slices, overlap, bucket=8)
    gradient.compute_in(passes or gradient.passes.most)
    step, found = Step(gradient, Momentum(phi, 0.9)), []
    for size in sizes:
        mine = slice(*gradient.shard(size))
        step(rows[:size][mine], labels[:size][mine], size, 0.1)
        found += [phi.grad.copy(), sum(ranks.gather(gradient.losses)), phi.value.copy()]
    return found


def test_a_mean_over_positions_has_the_gradient_of_the_whole_minibatch():
    ell, put, rows, labels = model()
    phi = Phi(ell, dtype=np.float64)
    gradient = Gradient(ell, phi, Ranks(), put, slices=8)
    gradient(rows, labels, B)
    w1, b1, w2, b2 = (torch.tensor(p.value, requires_grad=True) for p in phi.parameters)
    x, y = torch.tensor(rows), torch.tensor(labels)
    s = ((x @ w1 - b1).tanh()) @ w2 - b2
    m = (y != 0) & ((torch.arange(B)[:, None] + torch.arange(T)) % 3 != 0)
    mean = functional.cross_entropy(s[m], y[m]) + 0.1 * (s.mean(1) ** 2).sum(1).mean()
    mean.backward()
    expected = torch.cat([p.grad.flatten() for p in (w1, b1, w2, b2)])
    np.testing.assert_allclose(phi.grad, expected, rtol=1e-10, atol=1e-13)
    assert gradient.losses.sum() / B == pytest.approx(mean.item(), rel=1e-12)


HOW = [*product([1, 2, 3, 8], [None, 1, 2], [False, True])]


def test_a_mean_over_positions_has_the_same_bits_on_any_ranks_in_any_passes():
    (expected,) = on_ranks(1, learnt)
    for size, passes, overlap in HOW:
        how = {"passes": passes, "overlap": overlap}
        for found in on_ranks(size, partial(learnt, **how)):
            for array, its in zip(found, expected, strict=True):
                assert array.tobytes() == its.tobytes(), (size, passes, overlap)


@pytest.mark.parametrize("size", [1, 3])
def test_without_slices_a_mean_over_positions_is_the_same_but_for_rounding(size):
    (expected,) = on_ranks(1, learnt)
    for passes in 1, 3:
        found = on_ranks(size, partial(learnt, slices=0, passes=passes))[-1]
        np.testing.assert_allclose(found[-1], expected[-1], rtol=1e-10, atol=1e-13)


def test_a_split_in_blocks_has_the_mean_over_its_positions():
    ell, put, rows, labels = model()
    put(rows, labels)
    Forward(ell)
    counts, total, found = Counts(ell), 0, []
    blocks = [slice(0, 7), slice(7, 8), slice(8, B)]
    for block in blocks:
        put(rows[block], labels[block])
        with during(row=block.start):
            total = total + counts.count()
    for block in blocks:
        put(rows[block], labels[block])
        with during(row=block.start, shares=counts.shares(total, B)):
            Forward(ell)
        found += ell.value.tolist()
    put(rows, labels)
    Forward(ell)
    np.testing.assert_allclose(found, ell.value, rtol=1e-12)


def test_the_gradients_of_a_mean_over_positions_pass_their_check():
    y = Input((4,), int, 3)
    check(LogLoss(Softmax(Input((4, 3))), y, NotEqual(y, 0), "positions"))
