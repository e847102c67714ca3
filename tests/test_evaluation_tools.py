"""What a classifier got right and wrong, counted, printed, and written for every row."""

import csv
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from threaded import on_ranks

from dpedf.data import Data, write
from dpedf.edf import CompNode, Input
from dpedf.errors import UserError, short
from dpedf.ops import BinaryLogLoss, LogLoss, Softmax
from dpedf.run.evaluate import Found, evaluate, measure
from dpedf.run.scores import Scores, class_report, confusion_table, wilson
from dpedf.tools.evaluate import described

ABOUT = {"name": "rows", "source": "this test", "licence": "none"}
RANDOM = np.random.default_rng(0)


def counted(y, guess, J):
    """The counts of Scores, one label after the other."""
    counts = np.zeros((J, J + 1), np.int64)
    for true, taken in zip(y, guess, strict=True):
        counts[true, taken] += 1
    return counts


# Scores.


def test_scores_are_those_of_their_definitions():
    J, y, guess = 5, RANDOM.integers(0, 4, 90), RANDOM.integers(-1, 4, 90)
    guess[guess == 3] = 2  # 3 is never predicted, and 4 is no label either
    scores = Scores(counted(y, guess, J))
    for j in range(J):
        right = sum(t == p == j for t, p in zip(y, guess, strict=True))
        labels, guesses = (y == j).sum(), (guess == j).sum()
        parts = (right, guesses), (right, labels), (2 * right, guesses + labels)
        expected = [part / whole if whole else np.nan for part, whole in parts]
        found = scores.precision[j], scores.recall[j], scores.f1[j]
        np.testing.assert_array_equal(found, expected)
        assert scores.support[j] == labels
    assert scores.accuracy == (y == guess).mean() and scores.n == 90
    assert scores.undecided.sum() == (guess == -1).sum()
    each = np.nan_to_num([scores.precision, scores.recall, scores.f1])[:, :4]  # as scikit-learn
    np.testing.assert_allclose(scores.macro, each.mean(axis=1), rtol=1e-15)
    shown = class_report(scores).splitlines()
    assert shown[4].split() == ["3", "-", "0.0000", "0.0000", str((y == 3).sum())]
    assert shown[5].split() == ["4", "-", "-", "-", "0"]


def test_of_many_classes_those_that_do_not_occur_are_left_out():
    *lines, left = class_report(Scores(counted([7, 7, 300], [7, 400, -1], 1000))).splitlines()[1:-1]
    assert [line.split()[0] for line in lines] == ["7", "300", "400", "macro", "-"]
    assert left.startswith("997 classes")


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (348, 360), (1, 3)])
def test_the_interval_ends_where_a_normal_test_would_just_not_reject(right, n):
    for p in wilson(right / n, n):
        apart, width = abs(right / n - p), np.sqrt(p * (1 - p) / n)
        assert apart == pytest.approx(1.959963984540054 * width, abs=1e-7)


@pytest.mark.parametrize("J", [1, 2, 10, 26, 27, 65, 1000])
@pytest.mark.parametrize("n", [1, 10**4])
@pytest.mark.parametrize("named", [False, True])
def test_a_table_of_confusions_fits_a_terminal_and_has_all_or_the_most_frequent(J, n, named):
    counts = np.zeros((J, J), np.int64)
    np.add.at(counts, tuple(RANDOM.integers(0, J, (2, n))), 1)
    names = [f"a class\n of quite a long name {j}" for j in range(J)] if named else ()
    lines = confusion_table(counts, names).splitlines()
    assert max(map(len, lines)) <= 80
    if J <= 10:
        assert [line.split()[-J:] for line in lines[2:]] == counts.astype(str).tolist()
    wrong = counts - np.diag(counts.diagonal())
    if J >= 65 and wrong.any():
        assert len(lines) == 2 + min(10, (wrong > 0).sum()) and f"{wrong.sum():,}" in lines[0]
        assert f" {wrong.max():,} " in lines[2]


def test_wide_characters_and_accents_of_their_own_shift_nothing():
    """猫 takes two columns, and e with an accent behind it one."""
    names = ["猫" * 20, "cafe\u0301", "dog", "ｆ"]
    scores = Scores(counted([0, 1, 2, 3], [0, 2, 2, 1], 4))
    for table in class_report(scores, names), confusion_table(scores.confusion, names):
        wide = {}
        for line in table.splitlines():
            ends = [len(line) + line.count("猫") + line.count("ｆ") - line.count("\u0301")]
            wide.setdefault(line.split()[0] in "0123", set()).add(*ends)
        assert len(wide[True]) == 1 and max(wide[True]) <= 80, table


def test_an_accuracy_of_rows_is_told_from_that_of_all_labels():
    model = SimpleNamespace(y=Input((8,), int, 2), form=SimpleNamespace(names=()))
    scores = Scores(counted([0] * 8 + [1], [0] * 8 + [0], 2))
    of_rows, of_labels = (
        [*described(Found(0.5, accuracy, n, scores), "test", model)][1]
        for accuracy, n in ((0.5, 2), (8 / 9, 9))
    )
    assert of_rows == "test accuracy 50.00 %, the mean over rows (of all labels 88.89 %)"
    assert of_labels == "test accuracy 88.89 %"


class Holes(CompNode):
    """Q = x, and nan where x is above 9"""

    def __init__(self, x):
        self.x = x

    def forward(self):
        self.value = np.where(self.x.value > 9, np.nan, self.x.value)


class Mask(CompNode):
    """m = [y > 0][x[..., 0] > 0]"""

    def __init__(self, y, x):
        self.y, self.x = y, x

    def forward(self):
        self.value = ((self.y.value > 0) & (self.x.value[:, :, 0] > 0)).astype(float)


class Score(Holes):
    """Q = x[..., 1]"""

    def forward(self):
        super().forward()
        self.value = self.value[..., 1]


def by_positions(x, y):
    return (Q := Holes(x)), LogLoss(Softmax(Q), y, Mask(y, x), mean="positions")


def by_rows(x, y):
    return (Q := Holes(x)), LogLoss(Softmax(Q), y, Mask(y, x))


def of_scores(x, y):
    return (Q := Score(x)), BinaryLogLoss(Q, y)


@pytest.mark.parametrize("build", [by_positions, by_rows, of_scores])
@pytest.mark.parametrize("N", [1, 2, 41])
def test_what_is_taken_for_what_is_counted_on_any_number_of_ranks(build, N, tmp_path, monkeypatch):
    binary = build is of_scores
    J, shape = (2, ()) if binary else (3, (4,))
    x, y = RANDOM.integers(-2, 3, (N, *shape, J)) / 2, RANDOM.integers(0, J, (N, *shape))
    x[RANDOM.random(x.shape) < 0.1] = 10
    write(tmp_path / "rows.h5", **ABOUT, classes=J, train=(x, y), test=(x, y))
    monkeypatch.setattr("dpedf.run.evaluate.LABELS", 8)

    def measured(ranks):
        data = Data(tmp_path / "rows.h5", dtype=np.float64)
        Q, ell = build(data.x, data.y)
        with np.errstate(all="ignore"):
            return measure(Q, ell, data, data.test, ranks), evaluate(Q, ell, data, data.test, ranks)

    expected = np.zeros((J, J + 1), int)
    for at in np.ndindex(y.shape):
        if binary:
            guess = -1 if x[at][1] > 9 else int(x[at][1] > 0)
        else:
            guess = -1 if (x[at] > 9).any() else list(x[at]).index(max(x[at]))
            if not (y[at] > 0 and x[at][0] > 0):  # masked
                continue
        expected[y[at], guess] += 1
    for size in 1, 2, 3, 7:
        for found, (loss, accuracy) in on_ranks(size, measured):
            assert found.scores.confusion.dtype == np.int64
            assert found.scores.confusion.tolist() == expected[:, :-1].tolist()
            assert found.scores.undecided.tolist() == expected[:, -1].tolist()
            np.testing.assert_equal((found.loss, found.accuracy), (loss, accuracy))
            if build is not by_rows:
                assert accuracy == pytest.approx(found.scores.accuracy)


# Runs of four kinds, of few steps, and what NumPy makes of their parameters.

NAMES = ["cat", 'dog, "big"', "eel\n", "fox"]
CHARACTERS = "ab\n cdé"
TRAIN = """
import sys
from dpedf.parallel.ranks import Ranks
from dpedf.train import main
for words in sys.stdin.read().splitlines():
    main(Ranks(), words.split())
"""
SETTINGS = """
seed = 3
data = {{ {data}, valid = 13 }}
model = {{ {model} }}
train = {{ steps = 7, batch_size = 10, slices = 4, learning_rate = 0.1, eval_every = 3 }}
"""
MODELS = {
    "images": ('file = "images.h5"', 'build = "mlp", sizes = [12, 4]'),
    "binary": ('file = "binary.h5"', 'build = "logistic"'),
    "coded": ('file = "images.h5"', 'build = "autoencoder", sizes = [12, 5]'),
    "text": (
        'file = "text.h5", window = 8, stride = 3',
        'build = "char_lstm", embedding = 4, hidden = 6',
    ),
}


@pytest.fixture(scope="module")
def folder(python, environment, tmp_path_factory):
    """Where these runs and their data files are."""
    folder = tmp_path_factory.mktemp("runs")
    x, y = RANDOM.integers(0, 17, (97, 3, 4), np.uint8), RANDOM.integers(0, 4, 97)
    groups = {"train": (x[:60], y[:60]), "test": (x[60:], y[60:])}
    write(folder / "images.h5", **ABOUT, classes=NAMES, scale=1 / 16, mean=0.3, **groups)
    z, positive = RANDOM.normal(size=(97, 5)), RANDOM.integers(0, 2, 97)
    groups = {"train": (z[:60], positive[:60]), "test": (z[60:], positive[60:])}
    write(folder / "binary.h5", **ABOUT, classes=2, std=2.0, **groups)
    text = RANDOM.integers(0, 7, 700, np.uint8)
    about = ABOUT | {"characters": CHARACTERS, "classes": 7}
    write(folder / "text.h5", **about, train=text[:400], test=text[400:])
    for name, (data, model) in MODELS.items():
        (folder / f"{name}.toml").write_text(SETTINGS.format(data=data, model=model))
    words = "\n".join(f"{name}.toml run.dir={name} run.device=auto" for name in MODELS)
    command = [sys.executable, "-c", TRAIN]
    ran = subprocess.run(
        command, input=words, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def tool(here, capsys):
    """tool(name, *words, ranks=1): what a tool prints on so many ranks, which are threads.

    tool.loss: the last one that evaluate has found, of which it prints a few digits.
    """

    def measured(*arguments):
        found = measure(*arguments)
        run.loss = found.loss
        return found

    def run(name, *words, ranks=1):
        module = import_module(f"dpedf.tools.{name}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dpedf.parallel.job.run_watched", lambda main: on_ranks(ranks, main))
            patch.setattr("dpedf.tools.evaluate.measure", measured)
            module.main([str(word) for word in words])
        return capsys.readouterr().out

    return run


def saved(run, name):
    """A parameter in the checkpoint of a run, in float64."""
    with h5py.File(f"{run}/checkpoint.h5") as file:
        its = file["parameters"][name].attrs
        n = int(np.prod(its["shape"]))
        return file["phi"][its["offset"] : its["offset"] + n].reshape(its["shape"]).astype(float)


def rows_of(file, split):
    """(x, y) of a split, as the run scales them."""
    with h5py.File(file) as f:
        scale, mean, std = (f.attrs[key] for key in ("scale", "mean", "std"))
        x, y = f[f"{split}/x"][...].astype(float), f[f"{split}/y"][...]
    return (x.reshape(len(x), -1) * scale - mean) / std, y


def scores(run, x):
    return x @ saved(run, "Phi1.w") - saved(run, "Phi1.b")


def softmax(s):
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def reported(run, key):
    """The last number of this name in metrics.jsonl."""
    events = map(json.loads, open(f"{run}/metrics.jsonl"))
    return [event[key] for event in events if key in event][-1]


def loss_in(printed):
    return float(re.search(r"loss (\S+)", printed)[1])


def matrix_in(printed, J):
    lines = printed.split("columns predicted.\n")[1].splitlines()[1 : J + 1]
    return [[int(n) for n in line.split()[-J:]] for line in lines]


LAST = "--checkpoint", "checkpoint.h5"


def test_an_evaluation_is_what_numpy_finds_and_what_training_reported(tool):
    printed = tool("evaluate", "images", *LAST)
    x, y = rows_of("images.h5", "test")
    p = softmax(scores("images", x))
    guess = p.argmax(axis=1)
    assert matrix_in(printed, 4) == counted(y, guess, 4)[:, :-1].tolist()
    assert tool.loss == pytest.approx(-np.log(p[np.arange(37), y]).mean(), rel=1e-5)
    assert tool.loss == reported("images", "test_loss")
    assert printed.splitlines()[1] == f"test loss {short(tool.loss)}"
    low, high = (100 * end for end in wilson((guess == y).mean(), 37))
    right = f"accuracy {100 * (guess == y).mean():.2f} %, 95 % interval {low:.2f} to {high:.2f} %"
    assert f"{right}, n = 37" in printed
    assert "images/checkpoint.h5 of step 7, test of images.h5: 37 rows" in printed
    assert class_report(Scores(counted(y, guess, 4)), NAMES) in printed
    assert tool("evaluate", "images", *LAST, ranks=3) == printed
    assert "images/best.h5 of step " in tool("evaluate", "images")


def test_rows_that_were_held_out_are_those_of_training(tool):
    for run in "images", "text":
        printed = tool("evaluate", run, *LAST, "--split", "valid", ranks=3)
        assert "13 rows" in printed
        assert tool.loss == reported(run, "valid_loss")
    printed = tool("evaluate", "images", *LAST, "--split", "train")
    assert "47 rows" in printed and "n = 47" in printed


def test_a_score_of_class_1_is_evaluated_and_becomes_its_probability(tool, here):
    printed = tool("evaluate", "binary", *LAST, ranks=2)
    x, y = rows_of("binary.h5", "test")
    s = scores("binary", x)[:, 0]
    assert matrix_in(printed, 2) == counted(y, (s > 0).astype(int), 2)[:, :-1].tolist()
    assert tool.loss == reported("binary", "test_loss")
    tool("predict", "binary", "binary.h5", "--split", "test", *LAST, "-o", "p.csv")
    lines = (here / "p.csv").read_text().splitlines()
    assert lines[0] == "class,p0,p1" and len(lines) == 38
    found = np.array([line.split(",") for line in lines[1:]], float)
    assert found[:, 0].tolist() == (s > 0).tolist()
    p = 1 / (1 + np.exp(-s))
    np.testing.assert_allclose(found[:, 1:], np.stack([1 - p, p], axis=1), rtol=1e-5)


def test_a_model_without_classes_has_a_loss_and_its_output_is_written(tool, here):
    printed = tool("evaluate", "coded", *LAST, ranks=2)
    assert tool.loss == reported("coded", "test_loss")
    assert "accuracy" not in printed and len(printed.splitlines()) == 2
    for ranks in 1, 3:
        words = "coded", "images.h5", "--split", "test", "-o"
        tool("predict", *words, "y.csv", ranks=ranks)
        tool("predict", *words, "y.npz", ranks=ranks)
        header, *lines = (here / "y.csv").read_text().splitlines()
        found = np.array([line.split(",") for line in lines], np.float32)
        with np.load("y.npz") as arrays:
            assert [*arrays] == ["output"]
            np.testing.assert_array_equal(arrays["output"], found)
        assert header == ",".join(f"y{j}" for j in range(12)) and found.shape == (37, 12)


def test_labels_of_a_text_have_no_interval_and_are_predicted_position_by_position(tool, here):
    printed = tool("evaluate", "text", *LAST, ranks=3)
    assert tool.loss == reported("text", "test_loss")
    assert f"accuracy {100 * reported('text', 'test_accuracy'):.2f} %" in printed
    assert "no interval:" in printed and "95" not in printed.splitlines()[2]
    assert "\n2 '\\n' " in printed and "\n3 ' ' " in printed
    tool("predict", "text", "text.h5", "--split", "test", *LAST, "-o", "t.h5", ranks=3)
    with h5py.File("t.h5") as found, h5py.File("text.h5") as file:
        classes, p = found["class"][...], found["probabilities"][...]
        text = file["test/text"][...]
    assert p.shape == (37, 8, 7) and (p.argmax(axis=-1) == classes).all()
    y = [text[8 * i + 1 : 8 * i + 9] for i in range(37)]
    p_of_label = np.take_along_axis(p, np.array(y)[..., None], axis=-1)
    assert tool.loss == pytest.approx(-np.log(p_of_label).mean(), rel=1e-5)
    assert matrix_in(printed, 7) == counted(np.ravel(y), classes.ravel(), 7)[:, :-1].tolist()
    with pytest.raises(UserError, match="rows of 8 labels, expected .h5 or .npz"):
        tool("predict", "text", "text.h5", "--split", "test", "-o", "t.csv")


def test_every_row_is_predicted_in_its_order_and_with_the_same_bits_on_any_number_of_ranks(
    tool, here, monkeypatch
):
    monkeypatch.setattr("dpedf.run.evaluate.LABELS", 5)  # eight blocks, of which the last has two
    p = softmax(scores("images", rows_of("images.h5", "test")[0]))
    for kind in "csv", "h5", "npz":
        for ranks in 1, 3:
            words = "--split", "test", *LAST, "-o", f"{ranks}.{kind}"
            tool("predict", "images", "images.h5", *words, ranks=ranks)
        assert (here / f"1.{kind}").read_bytes() == (here / f"3.{kind}").read_bytes()
    header, *lines = lines_of("1.csv")
    assert header == ["class", "name", *(f"p_{name}" for name in NAMES)]
    assert [(int(line[0]), line[1]) for line in lines] == [(k, NAMES[k]) for k in p.argmax(axis=1)]
    written = np.array([line[2:] for line in lines], np.float32)
    np.testing.assert_allclose(written, p, rtol=1e-4)
    with np.load("1.npz") as arrays, h5py.File("1.h5") as file:
        for found in arrays, file:
            np.testing.assert_array_equal(found["probabilities"][...], written)
            np.testing.assert_array_equal(found["class"][...], p.argmax(axis=1))
    assert not [*here.glob("*.unfinished")]


def lines_of(path):
    with open(path, newline="") as file:
        return [*csv.reader(file)]


def put(path, attributes=(), **datasets):
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
        for name, array in datasets.items():
            file.create_dataset(name.replace("_", "/"), data=array)
    return path


def test_rows_of_other_files_are_scaled_as_in_training(tool):
    """By the attributes of the file, and where there are none by those of the run."""
    with h5py.File("images.h5") as file:
        x, about = file["test/x"][...], {key: file.attrs[key] for key in ("scale", "mean")}
    tool("predict", "images", "images.h5", "--split", "test", "-o", "expected.csv")
    header, *expected = lines_of("expected.csv")
    in_chunks = dict(data=x, chunks=(5, 3, 4), compression="gzip")
    with h5py.File("in_chunks.h5", "w") as file:
        file.create_dataset("x", **in_chunks)
    same = put("top.h5", x=x), put("alone.h5", new_x=x), "in_chunks.h5"
    near = put("wide.h5", about, x=x.astype(">i4")), put("scaled.h5", {"mean": 0}, x=x / 16 - 0.3)
    for file in *same, *near:
        tool("predict", "images", file, "-o", "found.csv", ranks=2)
        _, *found = lines_of("found.csv")
        assert [line[:2] for line in found] == [line[:2] for line in expected], file
        numbers, others = (np.array(its)[:, 2:].astype(float) for its in (found, expected))
        np.testing.assert_allclose(numbers, others, rtol=0 if file in same else 1e-5)
    tool("predict", "images", put("none.h5", x=x[:0]), "-o", "found.csv", ranks=2)
    assert lines_of("found.csv") == [header]
    few = put("few.h5", test_x=x[:9], test_y=np.zeros(9, np.uint8))  # of the other classes, none
    assert "9 rows" in tool("evaluate", "images", "--data", few, ranks=3)


def nan_in_row_5():
    x = np.zeros((9, 3, 4))
    x[5, 1, 2] = np.nan
    return x


ZEROS = np.zeros((9, 3, 4), np.uint8)
PREDICT_WRONG = {
    "nan": ({"x": nan_in_row_5()}, ["x", "nan in row 5"]),
    "other shapes": ({"x": np.zeros((9, 4, 3), np.uint8)}, ["(4, 3)", "expected (3, 4)"]),
    "no scale for this type": ({"x": ZEROS.astype(np.int32)}, ["int32", "these, or uint8"]),
    "several groups": ({"a_x": ZEROS, "b_x": ZEROS}, ["a and b", "--split"]),
    "no rows": ({"z": ZEROS}, ["no x"]),
}
EVALUATE_WRONG = {
    "another label": ({"test_y": np.full(9, 4)}, ["label 4 in row 0", "0..3"]),
    "fewer labels": ({"test_y": np.zeros(8, int)}, ["8 rows", "expected 9"]),
    "numbers": ({"test_y": np.zeros(9)}, ["float64", "as in the run"]),
    "no labels": ({}, ["no dataset test/y"]),
}


@pytest.mark.parametrize(
    ("name", "datasets", "words"),
    [
        *(("predict", *case) for case in PREDICT_WRONG.values()),
        *(("evaluate", {"test_x": ZEROS} | its, said) for its, said in EVALUATE_WRONG.values()),
    ],
    ids=[*PREDICT_WRONG, *EVALUATE_WRONG],
)
def test_a_file_that_does_not_fit_is_one_line_and_nothing_is_written(
    name, datasets, words, tool, here, refused, monkeypatch
):
    monkeypatch.setattr("dpedf.data.file.MEMORY", 0)  # too large to be looked through before
    (here / "out.csv").write_text("as it was")
    put("wrong.h5", {"scale": 1} if "nan in row 5" in words else {}, **datasets)
    end = ["--data", "wrong.h5"] if name == "evaluate" else ["wrong.h5", "-o", "out.csv"]
    with refused("wrong.h5", *words):
        tool(name, "images", *end, ranks=2)
    assert (here / "out.csv").read_text() == "as it was"
    assert not [*here.glob("*.unfinished")]


def test_all_whole_windows_of_a_text_are_predicted_and_what_is_left_over_is_said(tool, refused):
    text = RANDOM.integers(0, 7, 27, np.uint8)
    words = "-o", "t.npz", *LAST
    found = {}
    for n, left in (8, 0), (9, 1), (24, 0), (27, 3):
        printed = tool("predict", "text", put("short.h5", text=text[:n]), *words)
        assert printed.splitlines()[-1].startswith(f"t.npz: probabilities of {n // 8} row")
        assert ("left out" in printed) == (left > 0) and "not read" not in printed
        assert not left or f"short.h5: text: the last {left} symbol" in printed
        with np.load("t.npz") as arrays:
            found[n] = arrays["probabilities"]
    assert found[24].shape == (3, 8, 7) and (found[27] == found[24]).all()
    np.testing.assert_allclose(found[9], found[24][:1], rtol=1e-6)
    with refused("short.h5: text: 7 symbols, expected at least data.window = 8"):
        tool("predict", "text", put("short.h5", text=text[:7]), *words)


def test_a_split_that_is_not_there_is_answered_with_those_that_are(tool, refused):
    with refused("images.h5: no tets/x, expected --split test"):
        tool("predict", "images", "images.h5", "--split", "tets", "-o", "t.npz")
    with refused("images.h5: no dev/x, expected --split one of test, train"):
        tool("predict", "images", "images.h5", "--split", "dev", "-o", "t.npz")


def test_a_text_of_other_characters_is_refused(tool, refused):
    put("other.h5", {"characters": "abc"}, test_text=np.zeros(99, np.uint8))
    with refused("other.h5", "number 2 is 'c'", r"'\n'"):
        tool("evaluate", "text", "--data", "other.h5")


WRONG_WORDS = {
    "no such run": ("evaluate", ["elsewhere"], ["elsewhere", "no such directory"]),
    "no such checkpoint": ("evaluate", ["images", "--checkpoint", "x.h5"], ["images/x.h5"]),
    "no such data": ("evaluate", ["images", "--data", "x.h5"], ["x.h5", "no such file"]),
    "no such split": ("evaluate", ["images", "--split", "vaild"], ["--split", "valid"]),
    "nowhere to write": ("predict", ["images", "images.h5"], ["-o"]),
    "an unknown kind": ("predict", ["images", "images.h5", "-o", "x.txt"], ["x.txt", ".npz"]),
    "no such folder": ("predict", ["images", "top.h5", "-o", "a/b.csv"], ["a/b.csv", "a"]),
    "over the rows": ("predict", ["images", "top.h5", "-o", "./top.h5"], ["top.h5", "lost"]),
}


@pytest.mark.parametrize(("name", "words", "said"), WRONG_WORDS.values(), ids=WRONG_WORDS)
def test_wrong_words_are_one_line(name, words, said, tool, refused):
    put("top.h5", x=ZEROS)
    with refused(said[0], *said[1:]):
        tool(name, *words, ranks=2)


def test_predictions_replace_predictions_and_no_other_file(tool, here, refused):
    put("rows.h5", x=ZEROS)
    put("class.h5", **{"class": ZEROS, "y": ZEROS})
    put("about.h5", {"licence": "none"}, output=ZEROS)
    np.savez("rows.npz", x=ZEROS, probabilities=ZEROS)
    (here / "a.csv").mkdir(exist_ok=True)
    os.path.lexists("pipe.csv") or os.mkfifo("pipe.csv")
    (here / "link.csv").unlink(missing_ok=True)
    os.link("images.h5", "link.csv")
    words = {
        **dict.fromkeys(("images.h5", "link.csv"), "would be lost"),
        **dict.fromkeys(
            ("binary.h5", "class.h5", "about.h5", "rows.npz"), "no file of predictions"
        ),
        **dict.fromkeys(("images/checkpoint.h5", "coded/best.h5"), "another OUT"),
        **dict.fromkeys(("a.csv", "x.csv/"), "a directory"),
        "pipe.csv": "not a regular file",
    }
    for out, said in words.items():
        before = os.path.isfile(out) and (here / out).read_bytes()
        with refused(out, said):
            tool("predict", "images", "rows.h5", "-o", out, ranks=2)
        assert not before or (here / out).read_bytes() == before
    for out in "p.h5", "p.npz", "p.csv":
        (here / out).write_bytes(b"")
        for _ in range(2):
            printed = tool("predict", "images", "rows.h5", "-o", out)
            assert f"{out}: probabilities of 9 rows" in printed


@pytest.mark.parametrize("kind", ["h5", "npz"])
def test_a_full_disk_is_one_line_and_leaves_what_was_there(kind, here, on_a_small_disk):
    put("many.h5", x=np.zeros((20_000, 3, 4), np.uint8))
    program = """
import sys
from pathlib import Path
from zipfile import ZipFile
import h5py
from dpedf.tools.predict import main
with ZipFile(sys.argv[-1], "w") as file:
    file.writestr("output.npy", "as it was")
if sys.argv[-1] == "out.h5":
    with h5py.File(sys.argv[-1], "w") as file:
        file["output"] = 7.0
print(Path(sys.argv[-1]).read_bytes().hex())
main(sys.argv[1:])
"""
    words = here / "images", here / "many.h5", "-o", f"out.{kind}"
    ran, kept = on_a_small_disk("-c", program, *words)
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1), ran.stderr
    assert f"out.{kind}: No space left" in ran.stderr
    found = {path.name: path.read_bytes().hex() for path in kept.iterdir()}
    assert found == {f"out.{kind}": ran.stdout.strip()}


@pytest.mark.parametrize("words", [["evaluate", "images"], ["runs", "."]], ids=str)
def test_a_result_that_nobody_can_read_is_no_success(words, here, environment):
    command = [sys.executable, "-m", "dpedf", *words]
    with open("/dev/full", "w") as full:
        ran = subprocess.run(command, env=environment, stdout=full, stderr=-1, text=True)
    assert ran.returncode == 1 and ran.stderr.count("\n") == ran.stderr.count("No space left") == 1


def test_a_gpu_that_was_granted_and_is_not_there_is_said(here, python):
    command = "-m", "dpedf", "evaluate", "images", *LAST
    with h5py.File(here / "images" / "checkpoint.h5") as file:
        assert 'device = "auto"' in file.attrs["settings"]
    ran = python(*command, cwd=here, CUDA_VISIBLE_DEVICES="0", NVIDIA_VISIBLE_DEVICES="")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("no GPU is used: no NVIDIA driver")


def test_a_gpu_evaluates_and_predicts_what_a_cpu_does(gpu, tool, here):
    words = "images", "images.h5", "--split", "test", *LAST, "-o"
    tool("predict", *words, "cpu.csv")
    printed = []
    for tool_words in ["evaluate", "images", *LAST], ["predict", *words, "gpu.csv"]:
        command = [sys.executable, "-m", "dpedf", *tool_words]
        ran = subprocess.run(command, env=gpu, capture_output=True, text=True, timeout=600)
        assert (ran.returncode, ran.stderr) == (0, "")
        printed.append(ran.stdout)
    on_cpu = tool("evaluate", "images", *LAST)
    assert loss_in(printed[0]) == pytest.approx(loss_in(on_cpu), abs=1e-4)
    assert printed[0].split("accuracy")[1] == on_cpu.split("accuracy")[1]
    (header, *found), (expected_header, *expected) = map(lines_of, ("gpu.csv", "cpu.csv"))
    assert header == expected_header
    assert [line[:2] for line in found] == [line[:2] for line in expected]
    numbers, others = (np.array(its)[:, 2:].astype(float) for its in (found, expected))
    np.testing.assert_allclose(numbers, others, rtol=1e-5)
