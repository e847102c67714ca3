"""dpedf plot: what its pictures show and what it says; and event files for TensorBoard."""

import json
import struct
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from msgspec.structs import replace

from dpedf import __main__
from dpedf.data import write
from dpedf.device import CPU
from dpedf.edf import Input
from dpedf.models import autoencoder
from dpedf.ops import Flatten, Tanh
from dpedf.phi import Phi
from dpedf.run import config, evaluate, metrics
from dpedf.run.build import build
from dpedf.run.directory import RunDirectory
from dpedf.run.settings.sections import DataSection
from dpedf.run.tensorboard import BEGINS, expect_writer
from dpedf.run.trained import Trained
from dpedf.tools import plot
from dpedf.tools.pictures import mistakes
from dpedf.tools.pictures.history import History
from dpedf.tools.pictures.images import channels, first_layer

ALONE = SimpleNamespace(rank=0)
PER_EPOCH = 7  # steps
CONFIG = """seed = {seed}
[data]
file = "data/x.h5"
[model]
build = "mlp"
sizes = {sizes}
[train]
epochs = 3
batch_size = 8
learning_rate = {rate}
[run]
threads = {seed}
"""


def needs(name, extra):
    there = find_spec(name) is not None
    return pytest.mark.skipif(not there, reason=f"no {name}: pip install 'dpedf[{extra}]'")


draws = needs("matplotlib", "plot")
writes_events = needs("tensorboard", "tensorboard")


def evaluated(step, **found):
    losses = dict(train_loss=2 / step, valid_loss=3 / step, valid_accuracy=1 - 1 / step)
    when = dict(epoch=-(-step // PER_EPOCH), step=step, steps_per_epoch=PER_EPOCH)
    return {"event": "eval"} | when | losses | {"seconds": 2.0 * step} | found


def result(step, **found):
    results = dict(test_loss=0.5, test_accuracy=0.875)
    return {"event": "test", "step": step} | results | found


@pytest.fixture
def run(tmp_path):
    """run(name, events, seed, sizes, rate): the directory of a run that reported these."""

    def make(name, events, seed=0, sizes=(64, 10), rate=0.1):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text("".join(map(metrics.line, events)))
        text = CONFIG.format(seed=seed, sizes=list(sizes), rate=rate)
        (folder / "config.toml").write_text(text)
        return folder

    return make


@pytest.fixture
def drawn(run, monkeypatch, tmp_path):
    """drawn(*words): the figure that dpedf plot saves."""

    def draw(*words):
        figures = []
        with monkeypatch.context() as patch:
            patch.setattr(plot, "save", lambda figure, *_: figures.append(figure))
            plot.main([*map(str, words), "-o", str(tmp_path / "x.png")])
        return figures[0]

    return draw


def lines(axes):
    """{(style, marker): [(x, y), ...]} of each kind of line, without those of no point."""
    found = {}
    for line in axes.lines:
        points = [xy for xy in zip(*line.get_data(), strict=True) if np.isfinite(xy).all()]
        if points:
            found.setdefault((line.get_linestyle(), line.get_marker()), []).append(points)
    return found


def names(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


# Curves.


def test_each_evaluation_of_an_epoch_has_its_own_place(run):
    def epochs(*steps):
        events = [*map(evaluated, steps), result(steps[-1])]
        return History(run(f"run {steps}", events)).curve("valid_loss", "epoch")[0].tolist()

    assert epochs(7, 14, 21) == [1, 2, 3]
    assert epochs(3, 6, 9, 12, 14) == [3 / 7, 6 / 7, 9 / 7, 12 / 7, 2]
    assert epochs(3) == [3 / 7]


@draws
@pytest.mark.parametrize("by, unit", [("epoch", 1 / PER_EPOCH), ("step", 1), ("time", 2)])
def test_curves_are_the_numbers_of_the_run_over_what_was_asked_for(run, drawn, by, unit):
    figure = drawn(run("a", [evaluated(7), evaluated(14), result(14)]), "--by", by)
    losses, accuracy = figure.axes
    found = lines(losses)
    assert found["--", "."] == [[(7 * unit, 2 / 7), (14 * unit, 2 / 14)]]
    assert found["-", "."] == [[(7 * unit, 3 / 7), (14 * unit, 3 / 14)]]
    assert found["None", "D"] == [[(14 * unit, 0.5)]]
    found = lines(accuracy)
    expected = [(7 * unit, 100 - 100 / 7), (14 * unit, 100 - 100 / 14)]
    assert np.allclose(found["-", "."], [expected])
    assert found["None", "D"] == [[(14 * unit, 87.5)]]
    assert losses.get_xlabel() == {"time": "seconds"}.get(by, by)
    assert names(figure) == ["a: test 87.50 %"]
    assert losses.get_xlim() == accuracy.get_xlim()
    assert by == "time" or all(tick == round(tick) for tick in losses.get_xticks())


@draws
@pytest.mark.parametrize("n", range(4))
def test_each_metric_and_part_of_a_loss_has_a_panel(run, drawn, n):
    names = ("top5", "mae", "own_kl")[:n]
    none = dict(valid_accuracy=None, valid_huge=1e300)
    found = {f"valid_{name}": k + 0.5 for k, name in enumerate(names)}
    tested = {f"test_{name}": k + 0.75 for k, name in enumerate(names)}
    events = [evaluated(7, **none, **found), evaluated(14, **none, **found)]
    figure = drawn(run("a", [*events, result(14, test_accuracy=None, **tested)]))
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == ["loss", "top-5, %", "MAE", "own_kl"][: 1 + n]
    for k, axes in enumerate(figure.axes[1:]):
        factor = 1 if k else 100
        assert lines(axes)["-", "."] == [[(1, factor * (k + 0.5)), (2, factor * (k + 0.5))]]
        assert lines(axes)["None", "D"] == [[(2, factor * (k + 0.75))]]


@draws
def test_a_run_is_named_by_what_differs(run, drawn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a legend has no room for a long path
    events = [evaluated(7), evaluated(14)]
    a = run("a", events)
    assert names(drawn(a)) == ["a"]
    assert names(drawn(a, f"{a}/")) == ["a"]  # the same one
    b = run("b", events, rate=0.5)
    assert names(drawn(a, b)) == ["learning_rate=0.1", "learning_rate=0.5"]
    c = run("c", events, rate=0.5)
    found = ["learning_rate=0.1", "learning_rate=0.5 (b)", "learning_rate=0.5 (c)"]
    assert names(drawn(a, b, c)) == found
    run("d/a", events)
    assert names(drawn("a", "d/a")) == ["a", "d/a"]
    (b / "config.toml").write_text("of another version")
    assert names(drawn(a, b)) == ["a", "b"]
    assert names(drawn(run("_d", events))) == ["_d"]


@draws
def test_a_name_of_dollars_is_no_formula_and_a_legend_has_an_end(run, drawn, tmp_path):
    folders = [run(f"$\\frac{k}$\x1b[1m", [evaluated(7), result(7)]) for k in range(40)]
    found = names(drawn(*folders))
    assert found[0] == "$\\frac0$\\x1b[1m: test 87.50 %"
    assert len(found) == 13 and found[-1] == "and 28 more runs"
    plot.main([*map(str, folders), "-o", str(tmp_path / "a.png")])


@draws
def test_a_run_of_an_older_version_is_drawn_by_step(run, drawn, refused, capsys):
    old = evaluated(14)
    del old["steps_per_epoch"]
    old = run("old", [old])
    figure = drawn(run("new", [evaluated(7)]), old)
    assert figure.axes[0].get_xlabel() == "step"
    assert f"{old}/metrics.jsonl: no steps_per_epoch" in capsys.readouterr().out
    with refused(old / "metrics.jsonl", "steps_per_epoch", "--by time"):
        drawn(old, "--by", "epoch")


@draws
def test_losses_of_minibatches_stand_in_before_the_second_evaluation(run, drawn):
    steps = [{"event": "train", "step": n, "loss": 1.0 / n} for n in (1, 2, 3)]
    live = lines(drawn(run("live", steps), "--by", "step").axes[0])
    assert live == {("--", "."): [[(n, 1 / n) for n in (1, 2, 3)]]}
    assert drawn(run("alone", [evaluated(7)])).axes[1].get_xticks().tolist() == [1]
    once = lines(drawn(run("once", [*steps, evaluated(3)]), "--by", "step").axes[0])
    assert once["--", "."] == live["--", "."] and once["-", "."] == [[(3, 1.0)]]
    twice = drawn(run("twice", [*steps, evaluated(3), evaluated(6)]), "--by", "step")
    assert len(lines(twice.axes[0])["--", "."][0]) == 2


@draws
def test_a_point_without_neighbours_has_a_dot(run, drawn):
    losses = [1.0, np.nan, 1.0, 1.0, np.nan, 1.0]
    events = [evaluated(n, valid_loss=loss) for n, loss in enumerate(losses, 1)]
    curve = next(n for n in drawn(run("a", events)).axes[0].lines if n.get_linestyle() == "-")
    assert curve.get_markevery() == [0, 5]


@draws
def test_without_validation_or_accuracy_there_is_less_to_see(run, drawn):
    nothing = dict(valid_loss=None, valid_accuracy=None)
    events = [evaluated(7, **nothing), evaluated(14, **nothing), result(14, test_accuracy=None)]
    figure = drawn(run("a", events))
    (losses,) = figure.axes
    assert [text.get_text() for text in losses.get_legend().get_texts()] == ["training", "test"]
    assert names(figure) == ["a: test loss 0.5000"]


@draws
def test_strange_numbers_are_not_drawn(run, drawn, tmp_path, capsys):
    strange = run("a", [evaluated(7), evaluated(14), result(14)])
    found = {"valid_loss": 10**400, "valid_accuracy": "much", "train_loss": 1e300}
    with open(strange / "metrics.jsonl", "a") as file:
        file.write(json.dumps(evaluated(21) | found) + "\n{torn")
    figure = drawn(strange, "--by", "step")
    assert lines(figure.axes[0])["-", "."] == [[(7, 3 / 7), (14, 3 / 14)]]
    assert "1 line is no event of a run and is left out: 5" in capsys.readouterr().out
    only = run("b", [evaluated(10**30, train_loss=1e99, valid_loss=-1e99, seconds=1e90)])
    for by in "epoch", "time":
        plot.main([str(only), "--by", by, "-o", str(tmp_path / "a.svg")])


def test_what_is_no_run_is_one_line(run, refused, tmp_path):
    with refused(tmp_path / "nowhere", "no such directory"):
        History(tmp_path / "nowhere")
    with refused(tmp_path / "metrics.jsonl", "No such file"):
        History(tmp_path)
    with refused(run("a", []) / "metrics.jsonl", "no event yet"):
        History(tmp_path / "a")


# The picture.


def test_without_matplotlib_one_line_says_how_to_install_it(run, refused, monkeypatch, tmp_path):
    folder = str(run("a", [evaluated(7)]))
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not here')")
    with refused("dpedf plot", "not here", 'pip install -e ".[plot]"'):
        plot.main([folder, "-o", str(tmp_path / "a.png")])


@draws
def test_a_picture_is_written_whole_and_the_same_each_time(
    run, refused, tmp_path, capsys, monkeypatch
):
    folder = str(run("a", [evaluated(7), evaluated(14), result(14)]))
    for name, begins in ("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF"):
        path = tmp_path / name
        plot.main([folder, "-o", str(path)])
        found = path.read_bytes()
        assert found.startswith(begins)
        assert capsys.readouterr().out == f"{path}: drawn from {folder}\n"
    plot.main([folder, "-o", str(path)])
    assert path.read_bytes() == found
    for name in "a.gif", "a", "nowhere/a.png":
        with refused("-o", str(tmp_path / name), "expected"):
            plot.main([folder, "-o", str(tmp_path / name)])
    (tmp_path / "b.png").mkdir()
    monkeypatch.setattr(sys, "argv", ["dpedf", "plot", folder, "-o", str(tmp_path / "b.png")])
    assert __main__.main() == 2
    error = capsys.readouterr().err
    assert error.startswith(f"-o: {tmp_path / 'b.png'}: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    "words, what",
    [
        (["--trust"], "--mistakes"),
        (["--by", "step", "--weights"], "curves"),
        (["--weights", "--mistakes"], "not allowed"),
        (["--by", "hour"], "epoch"),
        (["--mistake"], "--mistakes"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(refused, words, what):
    with refused(words[0], what):
        plot.main(["runs/a", *words])


# Mistakes and weights of a trained model.


@pytest.fixture(scope="module")
def softmax(python, digits, tmp_path_factory):
    """A run of softmax regression on digits, poor enough to be wrong often."""
    folder = tmp_path_factory.mktemp("softmax") / "run"
    with_events = f"run.tensorboard={find_spec('tensorboard') is not None}".lower()
    words = f"run.dir={folder}", "train.steps=12", "train.slices=0", "run.log_every=5", with_events
    model = "model={build='mlp',sizes=[64,10]}"
    config = folder.parent / "config.toml"
    config.write_text(CONFIG.format(seed=0, sizes=[64, 10], rate=0.05))
    done = python("-m", "dpedf.train", config, f"data.file={digits}", model, *words)
    assert done.returncode == 0, done.stderr
    return folder


def parameters(run):
    """W and C of a softmax regression."""
    with h5py.File(run / "checkpoint.h5") as file:
        phi = file["phi"][...].astype(np.float64)
    return phi[:640].reshape(64, 10), phi[640:]


@pytest.fixture(scope="module")
def wrong(softmax, digits):
    """[(x, label, prediction, confidence), ...] of the wrong test rows, the surest first."""
    W, C = parameters(softmax)
    with h5py.File(digits) as file:
        x, y = file["test/x"][...], file["test/y"][...].astype(int)
        s = x.reshape(len(x), -1) * float(file.attrs["scale"]) @ W - C
    P = np.exp(s) / np.exp(s).sum(axis=1, keepdims=True)
    found = [(x[b], y[b], P[b].argmax(), P[b].max()) for b in range(len(x))]
    found = [its for its in found if its[1] != its[2]]
    assert len(found) > 24
    return sorted(found, key=lambda its: -its[3])


@pytest.mark.parametrize("block", [512, 7])
def test_the_mistakes_are_those_that_were_most_confident(softmax, wrong, block, monkeypatch):
    monkeypatch.setattr(evaluate, "LABELS", block)
    model = Trained(softmax, CPU())
    n, found = mistakes.find(model, mistakes.tested(model), 24)
    assert (n, len(found)) == (len(wrong), 24)
    for its, (x, label, predicted, confidence) in zip(found, wrong, strict=False):
        assert np.array_equal(its.x, x) and (its.label, its.predicted) == (label, predicted)
        assert its.confidence == pytest.approx(confidence, rel=1e-4)


@draws
def test_each_mistake_is_drawn_with_its_label_prediction_and_confidence(softmax, wrong, drawn):
    figure = drawn(softmax, "--mistakes")
    title = f"run/checkpoint.h5: {len(wrong)} of 360 test rows are wrong"
    assert title in figure.texts[0].get_text()
    assert len(figure.axes) == 24
    for axes, (x, label, predicted, confidence) in zip(figure.axes, wrong, strict=False):
        assert axes.get_title() == f"{predicted}  {100 * confidence:.1f} %"
        assert axes.get_xlabel() == f"is {label}"
        assert np.array_equal(axes.images[0].get_array(), x / 16)


@draws
def test_the_first_layer_is_a_picture_of_each_unit(softmax, drawn):
    W, _ = parameters(softmax)
    *pictures, scale = drawn(softmax, "--weights").axes
    assert len(pictures) == 10
    for j, axes in enumerate(pictures):
        assert np.allclose(axes.images[0].get_array(), W[:, j].reshape(8, 8))
        low, high = axes.images[0].get_clim()
        assert low == -high < 0
    assert scale.get_ylim() == (low, high)


@draws
def test_a_model_without_mistakes_or_on_other_rows_is_one_line(softmax, digits, refused, tmp_path):
    """It makes none where the labels are what it says itself."""
    from dpedf.tools.pictures.grids import draw_mistakes

    W, C = parameters(softmax)
    with h5py.File(digits) as file:
        x, scale = file["train/x"][:50], float(file.attrs["scale"])
    y = (x.reshape(50, -1) * scale @ W - C).argmax(axis=1).astype(np.uint8)
    about = dict(name="d", source="s", licence="l", classes=10, scale=scale)
    write(tmp_path / "own.h5", **about, train=(x, y), test=(x, y))
    model = Trained(softmax, CPU())
    model.settings = replace(model.settings, data=DataSection(file=str(tmp_path / "own.h5")))
    with refused(tmp_path / "own.h5", "none is wrong"):
        draw_mistakes(model)
    write(tmp_path / "own.h5", **about, train=(x[:, :7], y), test=(x[:, :7], y))
    with refused(tmp_path / "own.h5", "expected"):
        draw_mistakes(model)


def test_a_score_of_two_classes_is_a_probability():
    sure = mistakes.confidence(np.array([-2.0, 0.5, 0.0]))
    assert np.allclose(sure, [1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(-0.5)), 0.5])


def test_images_have_their_channels_first_or_last_or_none():
    rows = np.arange(3 * 9 * 8).reshape(3, 9, 8)
    assert np.array_equal(channels(rows[0]), rows[:1])
    assert np.array_equal(channels(rows), rows)
    assert np.array_equal(channels(np.moveaxis(rows, 0, 2)), rows)
    assert np.array_equal(channels(np.arange(64)), np.arange(64).reshape(1, 8, 8))


@pytest.mark.parametrize("shape", [(), (65,), (49,), (2, 3, 4, 5), (0, 4)])
def test_what_is_no_image_is_one_line(refused, shape):
    with refused("x of", shape, "expected images"):
        channels(np.empty(shape))


def model_of(x, y):
    """A perceptron whose first layer is frozen, as large as its second."""
    _, ell = build(dict(build="mlp", sizes=[64, 64, 64, 10], freeze=["Phi1"]), x, y)
    return SimpleNamespace(x=x, ell=ell, phi=Phi(ell))


def test_models_without_classes_or_images_are_one_line(refused):
    x, y = Input((8, 8), np.dtype(np.float32)), Input((), np.dtype(np.intp), 10)
    Q, ell = autoencoder(x, y, sizes=[64, 4])
    settings = SimpleNamespace(data=SimpleNamespace(window=0), model={"build": "autoencoder"})
    with refused("autoencoder", "labels"):
        mistakes.expect_classifier(SimpleNamespace(settings=settings, x=x, y=y, Q=Q, ell=ell))
    text = SimpleNamespace(data=SimpleNamespace(window=8), model={"build": "char_lstm"})
    with refused("data.window", "images"):
        mistakes.expect_classifier(SimpleNamespace(settings=text, y=y, Q=Q, ell=ell))
    with refused("data.window", "images"):
        first_layer(SimpleNamespace(x=Input((8,), np.dtype(np.intp), 5)), 1)
    with refused("no parameter", "(64, J)"):
        first_layer(SimpleNamespace(x=x, ell=Tanh(Flatten(x))), 1)
    frozen = model_of(x, y)
    assert first_layer(frozen, 1)[:2] == ("Phi1.w", 64)  # though Phi2.w has the same shape


@draws
def test_a_run_on_a_gpu_is_drawn_without_one(python, gpu, few_digits, drawn, tmp_path):
    folder, config = tmp_path / "run", tmp_path / "config.toml"
    config.write_text(CONFIG.format(seed=0, sizes=[64, 10], rate=0.05))
    words = f"data.file={few_digits}", "train.steps=2", f"run.dir={folder}", "run.device=gpu"
    done = python("-m", "dpedf.train", config, *words, **gpu)
    assert done.returncode == 0, done.stderr
    assert names(drawn(folder))[0].startswith("run: test ")
    assert len(drawn(folder, "--weights").axes) == 11
    assert "of 50 test rows are wrong" in drawn(folder, "--mistakes").texts[0].get_text()


# Event files.


def points(folder):
    """{curve: [(step, number), ...]} in the event files of a folder."""
    from tensorboard.compat.proto.event_pb2 import Event

    found = {}
    for file in sorted(folder.glob("*tfevents*")):
        content = file.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            for value in event.summary.value:
                point = event.step, value.simple_value
                found.setdefault(value.tag, []).append(point)
            content = content[12 + length + 4 :]
    return found


@writes_events
def test_an_event_file_has_the_numbers_of_metrics(softmax):
    events, _ = metrics.read(softmax / "metrics.jsonl")
    found = points(softmax)

    def expected(kind, key):
        return [(e["step"], np.float32(e[key])) for e in events if e["event"] == kind]

    assert found["train/loss"] == expected("train", "loss") and len(found["train/loss"]) == 2
    assert found["train/learning_rate"] == expected("train", "learning_rate")
    assert found["train/grad_norm"] == expected("train", "grad_norm")
    assert found["samples_per_second"] == expected("train", "samples_per_second")
    assert found["train/mean_loss"] == expected("eval", "train_loss")
    assert found["test/loss"] == expected("test", "test_loss")
    assert found["test/accuracy"] == expected("test", "test_accuracy")
    assert "valid/loss" not in found  # there are no rows to validate on


def directory(path, on=True):
    path.mkdir(exist_ok=True)
    text = CONFIG.format(seed=0, sizes=[64, 10], rate=0.1) + f"tensorboard = {on}\n".lower()
    (path.parent / "own.toml").write_text(text)
    return RunDirectory(path, ALONE), config.load(path.parent / "own.toml")


@writes_events
def test_a_run_that_goes_on_doubles_no_point_and_keeps_none_of_lost_steps(tmp_path):
    run, settings = directory(tmp_path / "run")
    run.begin(settings, 0)
    for step in 1, 2, 3:
        run.event("train", step=step, loss=1.0 / step)
        run.event("eval", step=step, valid_loss=2.0 / step, valid_r2=0.5, valid_kl=0.1 * step)
    run.event("test", step=3, test_loss=0.5)
    (tmp_path / "run" / "events.out.tfevents.1.mine").write_bytes(b"")
    again, settings = directory(tmp_path / "run")
    again.begin(settings, 2)  # from the checkpoint of step 2
    again.event("train", step=3, loss=float("nan"))
    again.event("eval", step=3, valid_loss=1e300)
    found = points(tmp_path / "run")
    assert found["train/loss"][:2] == [(1, 1.0), (2, 0.5)] and "test/loss" not in found
    assert len(found["train/loss"]) == 3 and np.isnan(found["train/loss"][2][1])
    assert found["valid/loss"] == [(1, 2.0), (2, 1.0), (3, np.inf)]
    assert found["valid/kl"] == [(1, np.float32(0.1)), (2, np.float32(0.2))]
    assert found["valid/r2"] == [(1, 0.5), (2, 0.5)]
    off, settings = directory(tmp_path / "run", on=False)
    off.begin(settings, 0)  # --overwrite
    assert [f.name for f in (tmp_path / "run").glob("*tfevents*")] == ["events.out.tfevents.1.mine"]


@writes_events
def test_a_full_disk_is_one_line_of_an_event_file_too(python, tmp_path):
    program = """
import resource
from pathlib import Path
from dpedf.parallel import job
from dpedf.run.tensorboard import EventFile

def main(ranks):
    file = EventFile(Path("."), [])
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    for step in range(1000):
        file.add({"event": "train", "step": step, "loss": 1.0})

job.run(main)
"""
    done = python("-c", program, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(BEGINS) and "File too large" in done.stderr


def test_without_a_writer_one_line_says_how_to_install_it(refused, monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "tensorboard.py").write_text("raise ImportError('not here')")
    with refused("run.tensorboard = true", "not here", 'pip install -e ".[tensorboard]"'):
        expect_writer()
