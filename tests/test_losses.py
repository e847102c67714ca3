"""Class weights, smoothing, ignored labels and soft targets, against PyTorch in float64."""

from copy import deepcopy
from itertools import product

import h5py
import numpy as np
import pytest
from products import each
from threaded import on_ranks

from dpedf import models
from dpedf.data import Data, write
from dpedf.edf import Backward, CompNodes, Forward, Input
from dpedf.ops import Affine, CrossEntropy, LogLoss, NotEqual, Softmax
from dpedf.optim import Momentum
from dpedf.parallel.gradient import Gradient
from dpedf.parallel.ranks import Ranks
from dpedf.phi import Phi, dense
from dpedf.run.build import build
from dpedf.run.evaluate import evaluate
from dpedf.run.step import Step

torch = pytest.importorskip("torch", reason="the reference is PyTorch")
functional = torch.nn.functional
torch.set_num_threads(1)  # of small products, several are slower
ABOUT = {"name": "rows", "source": "this test", "licence": "none"}
WEIGHTS = [0.7, 2.0, 0.0, 1.1, 3.0]
I, J = 3, 5


def reference(s, y, weights=None, smoothing=0.0, mean="positions"):
    """PyTorch's loss, where labels of -100 do not count; mean = "rows": of each row's own mean."""
    w = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    how = dict(weight=w, label_smoothing=smoothing)
    if mean == "positions":
        return functional.cross_entropy(s.movedim(-1, 1), y, **how)
    losses = functional.cross_entropy(s.movedim(-1, 1), y, reduction="none", **how)
    rows, counted = (a.reshape(len(y), -1).sum(1) for a in (losses, y != -100))
    return (rows / counted.clamp(min=1)).mean()


@each(
    "T, weights, smoothing, ignore, masked, mean",
    product([(), (3,)], [None, WEIGHTS], [0, 0.1, 1], [None, 255], [0, 1], ["rows", None]),
)
def test_every_combination_has_pytorchs_mean_and_gradient(
    T, weights, smoothing, ignore, masked, mean
):
    random, B = np.random.default_rng(1), 9
    rows, labels = random.normal(size=(B, *T, I)), random.integers(0, J, (B, *T))
    mask = random.integers(0, 2, (B, *T))
    if ignore is not None:
        labels[random.random(labels.shape) < 0.3] = ignore
    labels[0], mask[0] = 1, 1
    x, y, m = Input((*T, I), np.float64), Input(T, np.intp, J), Input(T, np.intp)
    Q = Softmax(Affine(package := dense(I, J), x))
    how = dict(weights=weights, smoothing=smoothing, ignore=ignore, mean=mean)
    ell = LogLoss(Q, y, m if masked else None, **how)
    Phi(ell, seed=3, dtype=np.float64)
    x.value, y.value, m.value = rows, labels, mask
    Forward(ell)
    Backward(ell)

    whole = mean is None and not (weights is None and ignore is None)
    counted = (labels != ignore) & ((mask != 0) | (not masked))
    w = torch.tensor(package.w.value, requires_grad=True)
    found = reference(
        torch.tensor(rows) @ w,
        torch.tensor(np.where(counted, labels, -100)),
        *(weights, smoothing, "positions" if whole else "rows"),
    )
    found.backward()
    assert ell.value.mean() == pytest.approx(found.item(), rel=1e-12)
    np.testing.assert_allclose(package.w.grad, w.grad, rtol=1e-10, atol=1e-13)
    assert np.array_equal(ell.counted(), counted)


def test_soft_targets_are_those_of_pytorch_and_labels_are_a_special_case():
    random = np.random.default_rng(2)
    s, p = random.normal(size=(6, 3, J)), random.dirichlet(np.ones(J), (6, 3))
    x, y = Input((3, J), np.float64), Input((3, J), np.float64)
    ell = LogLoss(Softmax(x), y, weights=WEIGHTS, smoothing=0.2)
    x.value, y.value = s, p
    Forward(ell)
    how = dict(weight=torch.tensor(WEIGHTS, dtype=torch.float64), label_smoothing=0.2)
    expected = functional.cross_entropy(torch.tensor(s).mT, torch.tensor(p).mT, **how)
    assert ell.value.mean() == pytest.approx(expected.item(), rel=1e-12)
    labels = Input((3,), np.intp, J)
    hard, soft = LogLoss(Softmax(x), labels), LogLoss(Softmax(x), y)
    labels.value, y.value = p.argmax(-1), np.eye(J)[p.argmax(-1)]
    Forward(hard)
    Forward(soft)
    np.testing.assert_allclose(hard.value, soft.value, rtol=1e-13)


def test_what_no_label_counts_for_is_0_and_a_probability_of_0_is_no_nan():
    x, y = Input((J,), np.float64), Input((), np.intp, J)
    ell = LogLoss(Softmax(x), y, weights=WEIGHTS, smoothing=0.1, ignore=-1)
    x.value, y.value = np.full((2, J), np.nan), np.array([-1, -1])
    Forward(ell)
    assert ell.value.tolist() == [0, 0]
    hard = LogLoss(Softmax(x), y, weights=[1, 1, 0, 1, 1])
    x.value, y.value = np.array([[0, 0, -np.inf, 0, 0.0]]), np.array([3])
    Forward(hard)
    assert hard.value == pytest.approx(np.log(4))


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"weights": [1, 2]}, "^LogLoss of 2 weights, expected 5, one a class"),
        ({"weights": [1, 1, 1, 1, -1]}, "expected finite numbers from 0 on"),
        ({"weights": [1, 1, 1, 1, np.nan]}, "expected finite numbers from 0 on"),
        ({"weights": 3}, "expected a number for each class"),
        ({"smoothing": 1.5}, "smoothing = 1.5, expected a number from 0 to 1"),
    ],
)
def test_weights_and_smoothing_that_mean_nothing_are_refused(how, error):
    with pytest.raises(ValueError, match=error):
        LogLoss(Softmax(Input((J,), np.float64)), Input((), np.intp, J), **how)


PROBABILITIES = np.full((4, J), 1 / J)
LATE = [  # what y is found to be, after a graph was made of Inputs without a shape
    (PROBABILITIES, {}, "probabilities as y, expected an Input of their shape, "),
    (PROBABILITIES, {"weights": WEIGHTS}, "probabilities as y, expected an Input of their shape"),
    (np.eye(J, dtype=int)[:4], {}, "int64 for each class as y, expected floats"),
    (np.eye(J, dtype=bool)[:4], {"smoothing": 0.1}, "bool for each class as y, expected floats"),
    (np.zeros((4, 2, 2), int), {}, "y of shape .4, 2, 2., expected .4,."),
]


@each("y, how, error", LATE)
def test_a_y_that_has_no_labels_is_told_what_it_takes(y, how, error):
    x, late = Input(), Input()
    ell = LogLoss(Softmax(x), late, **how)
    x.value, late.value = np.zeros((4, J)), y
    with pytest.raises(ValueError, match=error):
        Forward(ell)


@each(
    "y, how, error",
    [
        ((J,), {"ignore": -1}, "LogLoss of ignore = -1 and probabilities as y, expected labels"),
        ((), {"ignore": 1.5}, "LogLoss of ignore = 1.5, expected a label, a whole number"),
        ((), {"ignore": "a", "weights": WEIGHTS}, "LogLoss of ignore = 'a', expected a label"),
        ((4,), {"weights": WEIGHTS}, r"CrossEntropy of Q \(B, 5\), y \(B, 4\): y of shape"),
    ],
)
def test_what_does_not_fit_labels_is_said_when_a_loss_is_made(y, how, error):
    with pytest.raises(ValueError, match=f"^{error}"):
        LogLoss(Softmax(Input((J,))), Input(y, classes=None if y else J), **how)


def test_a_class_of_ones_own_is_not_taken_for_another_one():
    class Mine(LogLoss):
        """What a user made of it."""

    Q, y = Softmax(Input((J,), np.float64)), Input((), np.intp, J)
    assert type(Mine(Q, y)) is Mine
    with pytest.raises(ValueError, match="Mine of weights, smoothing or soft y, expected LogLoss"):
        Mine(Q, y, smoothing=0.1)


def test_a_label_that_there_is_not_is_refused_and_on_a_gpu_its_loss_is_nan(monkeypatch):
    x, y = Input((J,), np.float64), Input((), np.intp, J)
    ell = LogLoss(Softmax(x), y, weights=WEIGHTS)
    x.value, y.value = np.zeros((2, J)), np.array([0, 5])
    with pytest.raises(ValueError, match="label 5, expected 0..4"):
        Forward(ell)
    monkeypatch.setattr("dpedf.ops.cross_entropy.expect_labels", lambda *_: None)  # as a GPU does
    x.value, y.value = np.zeros((4, J)), np.array([0, 5, -1, 1])
    Forward(ell)
    assert np.isnan(ell.value).tolist() == [False, True, True, False]


def test_a_log_loss_of_more_than_labels_is_a_cross_entropy_and_so_is_its_copy():
    x, y, soft = Input((J,), np.float64), Input((), np.intp, J), Input((J,), np.float64)
    Q = Softmax(x)
    for ell in LogLoss(Q, y, weights=WEIGHTS), LogLoss(Q, y, smoothing=0.1), LogLoss(Q, soft):
        assert type(ell) is type(deepcopy(ell)) is CrossEntropy
        assert [type(n) for n in CompNodes(ell)].count(CrossEntropy) == 1
    for ell in LogLoss(Q, y), LogLoss(Q, y, weights=None, smoothing=0.0), LogLoss(Q, y, ignore=1):
        assert type(ell) is type(deepcopy(ell)) is LogLoss


# The whole minibatch, of all ranks, and the whole split.

N, T = 22, 4


def rows_and_labels():
    random = np.random.default_rng(4)
    labels = random.integers(0, J, (N, T))
    labels[random.random((N, T)) < 0.4] = 255
    labels[3:9] = 255  # a shard may have none that counts
    return random.normal(size=(N, T, I)).astype(np.float32), labels


WAYS = [
    dict(weights=[0.1, 0.7, 1.3, 1.9, 2.3], ignore=255),
    dict(weights=[0.1, 0.7, 1.3, 1.9, 2.3], ignore=255, smoothing=0.1),
    dict(smoothing=0.1, ignore=255, mean="rows"),
]


def learnt(ranks, how, slices=8, passes=None):
    rows, labels = rows_and_labels()
    x, y = Input((T, I), np.float32), Input((T,), np.intp, J)
    ell = LogLoss(Softmax(Affine(dense(I, J), x)), y, **how)
    phi = Phi(ell)

    def put(rows, labels):
        x.value, y.value = rows, labels

    gradient = Gradient(ell, phi, ranks, put, slices)
    gradient.compute_in(passes or gradient.passes.most)
    step, found = Step(gradient, Momentum(phi, 0.9)), []
    for size in N, 13:
        mine = slice(*gradient.shard(size))
        step(rows[:size][mine], labels[:size][mine], size, 0.1)
        found += [phi.grad.tobytes(), sum(ranks.gather(gradient.losses.copy())).tobytes()]
    return found


@pytest.mark.parametrize("how", WAYS)
def test_the_number_of_ranks_and_passes_changes_no_bit(how):
    alone = learnt(Ranks(), how)
    assert learnt(Ranks(), how, passes=1) == alone
    for size in 2, 3, 4:
        assert on_ranks(size, lambda ranks: learnt(ranks, how)) == [alone] * size


@pytest.mark.parametrize("how", WAYS[:2])
def test_a_step_on_several_ranks_follows_pytorchs_gradient_of_the_whole_minibatch(how):
    rows, labels = rows_and_labels()

    def gradient_of(ranks):
        x, y = Input((T, I), np.float64), Input((T,), np.intp, J)
        ell = LogLoss(Softmax(Affine(dense(I, J), x)), y, **how)
        phi = Phi(ell, dtype=np.float64)

        def put(rows, labels):
            x.value, y.value = rows.astype(np.float64), labels

        gradient = Gradient(ell, phi, ranks, put, slices=8)
        mine = slice(*gradient.shard(N))
        gradient(rows[mine], labels[mine], N)
        return phi.parameters[0].value.copy(), phi.grad[: I * J].reshape(I, J).copy()

    value, grad = on_ranks(3, gradient_of)[0]
    w = torch.tensor(value, requires_grad=True)
    y = torch.tensor(np.where(labels == 255, -100, labels))
    s = torch.tensor(rows.astype(np.float64)) @ w
    reference(s, y, how["weights"], how.get("smoothing", 0.0)).backward()
    np.testing.assert_allclose(grad, w.grad, rtol=1e-10, atol=1e-14)


def ignoring(x, y):
    Q = Softmax(Affine(dense(I, J), x))
    return Q, LogLoss(Q, y, weights=WEIGHTS, smoothing=0.1)  # ignore: as the data file says


def test_a_data_file_says_which_label_does_not_count(tmp_path, monkeypatch):
    """Neither for the loss, which over the whole split is PyTorch's, nor for accuracy."""
    (x, y), path = rows_and_labels(), tmp_path / "rows.h5"
    group = x.astype(np.float64), y.astype(np.uint8)
    write(path, **ABOUT, classes=J, ignore=255, train=group, test=group)
    monkeypatch.setattr("dpedf.run.evaluate.LABELS", 10)

    def evaluated(ranks):
        data = Data(path, dtype=np.float64)
        assert (data.y.classes, data.y.ignore, data.notes) == (J, 255, [])
        Q, ell = ignoring(data.x, data.y)
        phi = Phi(ell, seed=5, dtype=np.float64)
        return evaluate(Q, ell, data, data.test, ranks), phi.parameters[0].value

    ((loss, accuracy), w), *_ = on_ranks(1, evaluated)
    s, counted = group[0] @ w, y != 255
    expected = reference(
        torch.tensor(s), torch.tensor(np.where(counted, y, -100)), WEIGHTS, 0.1
    ).item()
    assert loss == pytest.approx(expected, rel=1e-12)
    assert accuracy == (s.argmax(-1) == y)[counted].mean()
    for size in 2, 3:
        assert {found for found, _ in on_ranks(size, evaluated)} == {(loss, accuracy)}
    with h5py.File(path, "a") as file:
        del file.attrs["classes"]
    assert Data(path).y.classes == J  # without 255


def test_another_label_is_refused_still_and_so_is_an_ignore_that_is_no_label(tmp_path, refused):
    path, x = tmp_path / "rows.h5", np.zeros((3, 2), np.float32)
    group = x, np.array([0, -1, -2])
    write(path, **ABOUT, classes=2, ignore=-1, train=group, test=group)
    with refused("label -2 in row 2, expected 0..1", "attribute ignore"):
        Data(path)
    write(path, **ABOUT, classes=2, ignore="none", train=group, test=group)
    with refused("attribute ignore = 'none', expected a label"):
        Data(path)


# As keywords of models.


def test_a_model_takes_smoothing_and_class_weights():
    x, y = Input((4,), np.float64), Input((), np.intp, 3)
    how = dict(smoothing=0.1, class_weights=[1, 2, 0.5])
    Q, ell = models.mlp(x, y, [4, 3], **how)
    other = LogLoss(Q, y, weights=[1, 2, 0.5], smoothing=0.1)
    Phi(ell + other, dtype=np.float64)
    x.value, y.value = np.random.default_rng(0).normal(size=(5, 4)), np.array([0, 1, 2, 2, 1])
    Forward(ell)
    Forward(other)
    assert ell.value.tobytes() == other.value.tobytes()
    for model, keywords in (models.convnet, {}), (models.lenet, {"padding": 6}):
        models_ell = model(Input((8, 8), np.float64), y, **keywords, **how)[1]
        assert models_ell.weights.tolist() == [1, 2, 0.5]


@each(
    "how, words",
    [
        ({"smoothing": 2}, "model: LogLoss of smoothing = 2, expected a number from 0 to 1"),
        ({"smoothing": "a"}, "model: LogLoss of smoothing = 'a', expected a number"),
        ({"smoothing": True}, "model: LogLoss of smoothing = True, expected a number"),
        ({"class_weights": [1, 2]}, "LogLoss of 2 weights, expected 3, one a class"),
        ({"class_weights": [1, 2, -1]}, "expected finite numbers from 0 on"),
        ({"class_weights": 0}, "model: LogLoss of weights = 0, expected a number for each class"),
        ({"class_weights": "abc"}, "model: LogLoss of weights = 'abc', expected a number for each"),
    ],
)
def test_keywords_that_mean_nothing_are_one_line(refused, how, words):
    with refused(words):
        build({"build": "mlp", "sizes": [4, 3], **how}, Input((4,)), Input((), np.intp, 3))


@each("model, how", [(models.nineties, {"hidden": 4}), (models.logistic, {})])
def test_a_model_whose_loss_counts_every_label_refuses_one_to_ignore(refused, model, how):
    y = Input((), np.intp, 2)
    y.ignore = 255
    with refused("of the labels, 255 does not count, expected a model that ends in LogLoss"):
        model(Input((4,)), y, **how)


def test_a_mask_and_a_label_to_ignore_meet():
    y, m = Input((2,), np.intp), Input((2,))
    both = NotEqual(y, 7, m)
    y.value, m.value = np.array([[7, 1], [7, 1]]), np.array([[1.0, 0.0], [0.0, 2.0]])
    Forward(both)
    assert both.value.tolist() == [[0, 0], [0, 1]] and both.value.dtype == np.float32
