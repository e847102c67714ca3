"""Metrics beside loss and accuracy, regressions, and tables with categories."""

import numpy as np
import pytest
from products import each
from threaded import on_ranks

from dpedf import models
from dpedf.data import Data, write
from dpedf.edf import CompNodes, Forward, Input
from dpedf.models.tables import embedded
from dpedf.ops import BinaryLogLoss, Concat, Embedding, LogLoss, Mean, Softmax, SquareLoss
from dpedf.phi import Phi
from dpedf.run import build, measures
from dpedf.run.evaluate import measure
from dpedf.run.targets import Labels, among_top

ABOUT = {"name": "rows", "source": "this test", "licence": "none"}
ALL = {"classifier": ("top5", "f1"), "regression": ("r2", "mae", "rmse")}


def by_definition(Q, y):
    """{name: value} of a regression, as scikit-learn defines them."""
    Q, y = (np.reshape(a, (len(a), -1)).astype(np.longdouble) for a in (Q, y))
    each = []
    for q, t in zip(Q.T, y.T, strict=True):
        square, whole = ((q - t) ** 2).sum(), ((t - t.mean()) ** 2).sum()
        r2 = 1 - square / whole if whole else float(square == 0)
        each.append((r2, np.abs(q - t).mean(), np.sqrt(square / len(t))))
    return dict(zip(ALL["regression"], np.mean(each, axis=0).tolist(), strict=True))


@pytest.fixture
def found(tmp_path, monkeypatch):
    """found(model, x, y, metrics) is what measure finds on the rows, on 1, 2 and 3 ranks alike."""
    monkeypatch.setattr("dpedf.run.evaluate.LABELS", 7)  # rows in a block, or fewer of many targets

    def on_any_number_of_ranks(model, x, y, metrics, **about):
        write(tmp_path / "rows.h5", **ABOUT, **about, train=(x, y), test=(x, y))

        def measured(ranks):
            data = Data(tmp_path / "rows.h5", dtype=np.float64)
            Q, ell = model(data.x, data.y)
            assert measures.chosen(metrics, Q, ell, data.y) == tuple(metrics)
            return measure(Q, ell, data, data.test, ranks, metrics=tuple(metrics))

        (alone,) = on_ranks(1, measured)
        for size in 2, 3:
            for other in on_ranks(size, measured):
                assert other.metrics == alone.metrics and other.loss == alone.loss
        return alone

    return on_any_number_of_ranks


def predicting(x, y):
    return (Q := x * 1), SquareLoss(Q, y)


@each("shape, offset", [((), 0.0), ((3,), 0.0), ((2, 2), 0.0), ((), 1e6), ((3,), -1e9)])
def test_metrics_of_a_regression_are_their_definitions(found, shape, offset):
    random = np.random.default_rng(0)
    y = offset + random.normal(size=(53, *shape))
    x = y + random.normal(size=y.shape) / 3
    metrics = found(predicting, x, y, ALL["regression"]).metrics
    assert metrics == pytest.approx(by_definition(x, y), rel=1e-9 if not offset else 1e-6)


@pytest.mark.filterwarnings("error")
def test_r2_of_a_target_that_does_not_vary_is_1_or_0(found):
    y = np.full((9, 2), 0.1)
    assert found(predicting, y, y, ["r2"]).metrics == {"r2": 1.0}
    x = y + [0, 1]
    assert found(predicting, x, y, ["r2"]).metrics == {"r2": 0.5}
    assert found(predicting, y[:2], y[:2], ["r2"]).metrics == {"r2": 1.0}  # of one block


def classifying(x, y):
    return (Q := Softmax(x)), LogLoss(Q, y)


def test_top5_and_f1_are_their_definitions(found):
    random = np.random.default_rng(1)
    x, y = random.integers(0, 4, (61, 8)).astype(float), random.integers(0, 8, 61)  # many ties
    metrics = found(classifying, x, y, ALL["classifier"], classes=8).metrics
    order = np.argsort(-x, axis=1, kind="stable")  # of equal ones the first
    assert metrics["top5"] == (order[:, :5] == y[:, None]).any(axis=1).mean()
    guess, each = order[:, 0], []
    for j in {*y, *guess}:
        hits, both = ((y == j) & (guess == j)).sum(), (y == j).sum() + (guess == j).sum()
        each.append(2 * hits / both)
    assert metrics["f1"] == pytest.approx(np.mean(each))


def test_top5_leaves_out_labels_that_do_not_count_and_what_is_nan(found):
    random = np.random.default_rng(2)
    x, y = random.normal(size=(31, 3, 7)), random.integers(0, 7, (31, 3))
    y[random.random(y.shape) < 0.4] = 255
    model = found(classifying, x, y, ["top5"], classes=7, ignore=255)
    rank = (x > np.take_along_axis(x, np.clip(y, 0, 6)[..., None], -1)).sum(-1)
    assert model.metrics["top5"] == (rank < 5)[y != 255].mean()
    assert not among_top(np.array([[np.nan, *range(6)]]), np.array([6])).any()


@pytest.mark.parametrize(
    ("asked", "model", "shapes", "classes", "words"),
    [
        ("top5", predicting, ((), ()), None, "of a regression, expected r2, mae, rmse, or none"),
        ("r2", classifying, ((8,), ()), 8, "of a classifier, expected top5, f1, or none"),
        ("top5", classifying, ((5,), ()), 5, "of a classifier of 5 classes, expected more"),
        ("f1", classifying, ((2049,), ()), 2049, "of 2,049 classes, expected fewer"),
        ("mae", classifying, ((4,), (4,)), None, "a model without targets, expected none"),
        ("mae", lambda x, y: (x * 1, BinaryLogLoss(x, y)), ((), ()), None, "without targets"),
        ("mae", lambda x, y: (x, SquareLoss(x, x)), ((), ()), None, "without targets"),
        ("mae", lambda x, y: (x, SquareLoss(Mean(x), y)), ((3,), ()), None, "without targets"),
    ],
)
def test_a_metric_that_does_not_fit_is_one_line(asked, model, shapes, classes, words, refused):
    kind = (np.float64,) if classes is None else (np.intp, classes)
    x, y = Input(shapes[0], np.float64), Input(shapes[1], *kind)
    with refused(f'run.metrics = "{asked}"', words):
        measures.chosen((asked,), *model(x, y), y)


def test_a_regression_has_r2_and_mae_by_default_and_a_classifier_has_nothing():
    for shapes, classes, expected in (((), ()), None, ("r2", "mae")), (((8,), ()), 8, ()):
        x = Input(shapes[0], np.float64)
        y = Input(shapes[1], np.float64 if classes is None else np.intp, classes)
        model = predicting if classes is None else classifying
        assert measures.chosen((), *model(x, y), y) == expected
    for metric, J in ("top5", 6), ("f1", 2048):  # the fewest and the most classes
        x, y = Input((J,), np.float64), Input((), np.intp, J)
        assert measures.chosen((metric,), *classifying(x, y), y) == (metric,)
    assert Labels(*classifying(x, y), y, (), True).taken.shape == (2048, 2049)
    y.classes = 2049  # of which the pairs are too many
    assert Labels(*classifying(x, y), y, (), True).taken is None


# Models.


@each("shape", [(), (1,), (3,), (2, 2)])
def test_an_mlp_of_numbers_is_a_regression(shape):
    x, y = Input((4,), np.float64), Input(shape, np.float64)
    K = int(np.prod(shape))
    Q, ell = models.mlp(x, y, [4, 5, K])
    Phi(ell, dtype=np.float64)
    x.value = np.random.default_rng(0).normal(size=(6, 4))
    y.value = np.ones((6, *shape))
    Forward(ell)
    assert Q.value.shape == (6, *shape)
    assert ell.value == pytest.approx(((Q.value - 1) ** 2).reshape(6, -1).sum(1))


def test_its_last_size_is_the_number_of_targets_and_labels_have_what_it_has_not(refused):
    x, y = Input((4,)), Input((3,))
    with refused("model.sizes[-1] = 2, expected 3, the targets of a row"):
        models.mlp(x, y, [4, 2])
    for key, value in ("smoothing", 0.1), ("class_weights", [1, 2, 3]):
        with refused(f"model.{key} = {value}, expected none: y holds numbers"):
            models.mlp(x, y, [4, 3], **{key: value})


def table(categories, y=None):
    x = Input((len(categories),), np.float64)
    x.categories = categories
    return x, y or Input((), np.float64)


def test_a_table_is_its_numbers_and_an_embedding_of_each_column_of_categories():
    x, _ = table((0, 0, 5, 120, 0, 1))
    z = embedded(x)
    sizes = [n.W.value.shape for n in CompNodes(z) if type(n) is Embedding]
    assert sizes == [(5, 3), (120, 50), (1, 1)]
    Phi(ell := Mean(z), seed=1, dtype=np.float64)
    x.value = np.array([[0.5, -2, 4, 119, 7, 0], [1, 2, 0, 3, 4, 0]])
    Forward(ell)
    five, many, one = (n.W.value for n in CompNodes(z) if type(n) is Embedding)
    assert not (five[0].any() or many[0].any()) and five[1:].all() and many[1:].all()
    assert many[1:].var() == pytest.approx(1, abs=0.05)
    expected = [[*r[:2], *five[int(r[2])], *many[int(r[3])], r[4], *one[0]] for r in x.value]
    assert np.array_equal(z.value, expected)
    assert embedded(x, 4).value.shape[1:] == (3 + 3 * 4,)


def test_a_table_without_categories_is_an_mlp():
    x, y = table((0, 0, 0), Input((), np.intp, 4))
    _, mlp = models.mlp(x, y, [3, 8, 4])
    Q, ell = models.tabular(x, y, hidden=8)
    assert [type(n) for n in CompNodes(ell)] == [type(n) for n in CompNodes(mlp)]
    assert not any(isinstance(n, Concat) for n in CompNodes(ell))
    image = Input((2, 3))
    assert models.tabular(image, y)[0].value.shape[1:] == (4,)


@each("key, value", [("hidden", [0]), ("embeddings", -1), ("activation", "elu"), ("dropout", 2)])
def test_keywords_of_a_table_that_mean_nothing_are_one_line(refused, key, value):
    with refused(key if key != "dropout" else "Dropout"):
        build.build({"build": "tabular", key: value}, *table((0, 3)))
