"""dpedf runs and dpedf sweep: what a directory of runs holds, and the runs of a grid."""

import fcntl
import json
import os
import threading
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from dpedf.errors import AgreedRunError, RunError, UserError
from dpedf.parallel import signs
from dpedf.parallel.groups import attempt, shared_out
from dpedf.parallel.signals import Told
from dpedf.run import config, metrics
from dpedf.run.directory import RunDirectory
from dpedf.run.lock import live
from dpedf.tools import runs as runs_tool
from dpedf.tools import sweep
from dpedf.tools.experiments.differences import labels
from dpedf.tools.experiments.grid import Range, is_one_value, points, read_grid
from dpedf.tools.experiments.past import PastRun, in_order, named, runs_in
from dpedf.tools.experiments.plan import plan
from dpedf.tools.experiments.table import KEYS, table

CONFIG = """
[data]
file = "digits.h5"

[model]
build = "mlp"
sizes = [64, 16, 10]

[train]
epochs = 4
batch_size = 50
learning_rate = 0.1
slices = 8
"""
WHOLE = b"dpedf checkpoint: 100 bytes follow, SHA-256 0\n".ljust(512) + bytes(100)


@pytest.fixture
def settings(tmp_path):
    """settings(*words): those of CONFIG, in a file of this test, with words that replace some."""
    file = tmp_path / "small.toml"
    file.write_text(CONFIG)
    return lambda *words: config.load(file, words)


def losses(per_epoch, valid, test=None):
    """The events of a run, with these losses of validation; accuracies are 1 - loss."""
    for epoch, loss in enumerate(valid, 1):
        step = epoch * per_epoch
        yield dict(event="train", step=step, epoch=epoch, loss=loss, learning_rate=0.1)
        about = dict(epoch=epoch, step=step, steps_per_epoch=per_epoch, train_loss=loss)
        found = dict(valid_loss=loss, valid_accuracy=None if loss is None else 1 - loss)
        yield dict(event="eval", **about, **found, seconds=10.0 * epoch, ranks=2)
    if test is not None:
        yield dict(event="test", step=step, test_loss=test, test_accuracy=1 - test)


@pytest.fixture
def made_up(tmp_path, settings):
    """made_up(name, events, *words): a directory of a run that has told these events."""

    def make(name, events=(), *words, checkpoint=WHOLE):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.toml").write_text(config.text(settings(*words)))
        (folder / "metrics.jsonl").write_text("".join(map(metrics.line, events)))
        if checkpoint is not None:
            (folder / "checkpoint.h5").write_bytes(checkpoint)
        return folder

    return make


def listed(folder, sort="name", width=100):
    """The lines of a table without heads, one a run, and the lines after them."""
    found = [*table(runs_in(folder), folder, sort, width)]
    said = found.index("") if "" in found[3:] else len(found)
    return found[3:said], found[said + 1 :]


# What a run has left.


def test_a_run_is_what_its_files_say(made_up):
    made_up("done", losses(5, [0.5, 0.25, 0.125, 0.375], test=0.5))
    (done,) = runs_in(made_up("more", losses(5, [0.5])).parent)[:1]
    assert (done.status, done.step, done.last_step, done.ranks) == ("finished", 20, 20, 2)
    assert (done.valid_loss, done.valid_accuracy) == (0.125, 0.875)
    assert (done.test_loss, done.test_accuracy, done.seconds) == (0.5, 0.5, 40.0)


@pytest.mark.parametrize(
    "events, words, status, steps",
    [
        ([5, [0.5, 0.5, 0.5, 0.5], 0.5], [], "finished", (20, 20)),
        ([5, [0.5, 0.5, 0.5, 0.5]], [], "stopped", (20, 20)),
        ([5, [0.5, 0.5], 0.5], [], "stopped", (10, 20)),  # was resumed for more epochs
        ([5, [0.5]], ["train.steps=17"], "stopped", (5, 17)),
        ([5, [0.5]], ["train.steps=17", "train.epochs=0"], "stopped", (5, 17)),
        ([5, []], [], "stopped", (0, None)),
        ([5, []], ["train.steps=17", "train.epochs=0"], "stopped", (0, 17)),
        ([5, [None, None, None, None], 0.5], [], "finished", (20, 20)),
    ],
    ids=str,
)
def test_a_run_is_finished_when_it_was_tested_at_its_last_step(
    events, words, status, steps, made_up
):
    run = PastRun(made_up("one", losses(*events), *words))
    assert (run.status, (run.step, run.last_step)) == (status, steps)


def test_a_run_that_an_error_has_ended_says_so_unless_it_has_finished_since(made_up):
    failed = made_up("failed", losses(5, [0.5]))
    (failed / "failure.txt").write_text("step 7: the loss \x1b[31m is not finite\n")
    assert PastRun(failed).status == "failed"
    rows, said = listed(failed.parent)
    assert "5/20  failed" in rows[0]
    assert said == [r"failed: step 7: the loss \x1b[31m is not finite"]
    done = made_up("done", losses(5, [0.5] * 4, 0.5))
    (done / "failure.txt").write_text("of long ago")
    assert PastRun(done).status == "finished"


def test_a_run_leaves_a_word_on_its_error_once_it_has_begun(settings, tmp_path):
    directory, word = RunDirectory(tmp_path, SimpleNamespace(rank=0)), tmp_path / "failure.txt"
    directory.claim(False)
    directory.leave_word(UserError("of the settings"))
    assert not word.exists()  # nothing of an earlier run may be touched yet
    for error, line in [
        (RunError("full\n disk"), "full disk\n"),
        (KeyError("x"), "KeyError: 'x'\n"),
        (None, None),
        (KeyboardInterrupt(), None),
    ]:
        directory.begin(settings(), 1)
        assert not word.exists()
        directory.leave_word(error)
        assert (word.read_text() if word.exists() else None) == line


def test_a_live_run_is_seen_by_its_lock_alone(made_up):
    folder = made_up("one", losses(5, [0.5]))
    with open(folder / ".lock", "w") as lock:
        assert PastRun(folder).status == "stopped"
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert PastRun(folder).status == "live"
    assert PastRun(folder).status == "stopped"


def test_who_looks_at_a_run_does_not_keep_it_from_starting(tmp_path):
    directory = RunDirectory(tmp_path, SimpleNamespace(rank=0))
    with open(tmp_path / ".lock", "w") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)  # as live() does, for a moment
        assert not live(tmp_path)  # nor does one who looks see another
        threading.Timer(0.08, fcntl.flock, [looking, fcntl.LOCK_UN]).start()
        directory.claim(False)
        assert live(tmp_path)


def cut(folder):
    (folder / "checkpoint.h5").write_bytes(WHOLE[:-1])


def as_directory(name):
    def make(folder):
        (folder / name).unlink()
        (folder / name).mkdir()

    return make


def as_fifo(name):
    def make(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return make


DAMAGES = {
    "a checkpoint that is cut": cut,
    "no checkpoint": lambda folder: (folder / "checkpoint.h5").unlink(),
    "a checkpoint that would be waited for": as_fifo("checkpoint.h5"),
    "no settings": lambda folder: (folder / "config.toml").unlink(),
    "settings that are no TOML": lambda folder: (folder / "config.toml").write_text("]"),
    "settings of somebody else": lambda folder: (folder / "config.toml").write_text("[data]\na=1"),
    "metrics that are a directory": as_directory("metrics.jsonl"),
    "metrics that would be waited for": as_fifo("metrics.jsonl"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_a_row_with_a_word_and_a_line_on_why(damage, made_up):
    folder = made_up("broken", losses(5, [0.5]))
    made_up("whole", losses(5, [0.5]))
    DAMAGES[damage](folder)
    rows, said = listed(folder.parent)
    assert len(rows) == 2 and "damaged" in rows[0] and "stopped" in rows[1]
    assert said[0].startswith("broken: ")


def test_what_a_stranger_writes_moves_no_cursor_and_ends_nothing(made_up):
    huge, folder = "9" * 400, made_up("a\x1b[2Jb")
    (folder / "metrics.jsonl").write_text(
        f'{{"event": "eval", "step": {huge}, "seconds": 1e308, "valid_loss": {huge}}}\n'
        '{"event": "eval", "step": 5, "valid_loss": "low", "valid_accuracy": [1], "ranks": true}\n'
        '{"event": "eval", "step": 6, "valid_loss": 1e290, "valid_accuracy": -1e290}\n'
        '{"event": "test", "step": 1, "test_loss": {}}\n' + "[" * 300_000 + "\n\0\xff"
    )
    rows, _ = listed(folder.parent)
    assert all(row.isprintable() for row in rows)
    assert "6/?  stopped" in rows[0] and "1.00e+290" in rows[0]


def test_metrics_are_read_soon_and_as_the_run_itself_reads_them(tmp_path):
    file, events = tmp_path / "metrics.jsonl", [*losses(5, [0.5] * 50, 0.5)]
    lines = [metrics.line(event) for event in events]
    file.write_text("".join(lines) + '{"event": "train", "step": 10')  # which is being written
    found, told = [*metrics.glance(file)], metrics.read(file)[0]
    assert [e for e in found if e["event"] != "train"] == [e for e in told if e["event"] != "train"]
    assert [e for e in found if e["event"] == "train"] == [
        e for e in told if e["event"] == "train"
    ][-1:]


# The table.


def test_runs_are_sorted_by_what_is_asked_for_and_those_without_it_come_last(made_up):
    made_up("run-2", losses(5, [0.5, 0.25, 0.5, 0.5], 0.125))
    made_up("run-10", losses(5, [0.125, 0.5, 0.5], None))
    folder = made_up("run-1", losses(5, [None, None, None, None], 0.5)).parent
    expected = {
        "name": ["run-1", "run-2", "run-10"],
        "model": ["run-1", "run-2", "run-10"],
        "steps": ["run-1", "run-2", "run-10"],
        "status": ["run-10", "run-1", "run-2"],
        "valid_loss": ["run-10", "run-2", "run-1"],
        "valid_accuracy": ["run-10", "run-2", "run-1"],
        "test_loss": ["run-2", "run-1", "run-10"],
        "test_accuracy": ["run-2", "run-1", "run-10"],
        "seconds": ["run-10", "run-1", "run-2"],
        "ranks": ["run-1", "run-2", "run-10"],
    }
    assert expected.keys() == KEYS.keys()
    for key, names in expected.items():
        assert [row.split()[-1] for row in listed(folder, key)[0]] == names, key


def test_names_with_numbers_are_in_the_order_of_the_numbers():
    names = ["rate=1e-05", "rate=0.0003", "rate=0.02", "rate=0.1", "rate=2", "rate=10"]
    assert sorted(reversed(names), key=in_order) == names


def test_a_wrong_key_or_directory_is_one_line(refused, tmp_path):
    with refused("--sort valid_los", "expected valid_loss"):
        runs_tool.main([str(tmp_path), "--sort", "valid_los"])
    with refused(tmp_path / "nowhere", "expected a directory with runs"):
        runs_tool.main([str(tmp_path / "nowhere")])


def test_a_directory_without_runs_is_said(tmp_path, capsys):
    runs_tool.main([str(tmp_path)])
    assert capsys.readouterr().out == f"0 runs in {tmp_path}\n"


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("number", [1, 12, 100])
def test_a_table_fits_its_terminal_and_its_numbers_stand_below_each_other(number, width, made_up):
    for k in range(number):
        words = f"train.learning_rate={k + 1}", f"seed={k}", f"train.momentum={k / 100}"
        folder = made_up(f"run-{k}", losses(5, [0.5] * 4, 0.5), *words).parent
    _, *lines = table(runs_in(folder), folder, "name", width)
    assert all(len(line) <= width for line in lines)
    rows = [line for line in lines if "finished" in line]
    assert len(rows) == number
    for cell in " 20", "finished", "0.5000", " 40", " 2 ", "run-":
        assert len({row.index(cell) for row in rows}) == 1, cell
    if number > 1:
        assert sum("learning_rate=" in line for line in lines) == number


def test_metrics_and_parts_are_columns_and_where_these_do_not_fit_they_stand_below(made_up):
    found = [dict(kl=2.0, r2=0.75), dict(kl=3.0, r2=None), dict(top5=0.5)]
    for k, (its, loss) in enumerate(zip(found, [0.5, 0.25, 0.5], strict=True)):
        event, *_ = (e for e in losses(20, [loss]) if e["event"] == "eval")
        event |= {f"valid_{name}": value for name, value in its.items()}
        test = dict(event="test", step=20, test_loss=1.5, test_kl=2.5)
        folder = made_up(f"run-{k}", [event, test], "train.epochs=1").parent
    _, above, heads, *rows = table(runs_in(folder), folder, "name", 160)
    assert above.split() == ["valid"] * 5 + ["test"] * 2
    assert heads.split()[3:-3] == ["acc.", "%", "R2", "top-5", "%", "kl", "loss", "kl"]
    cells = ["0.5000", "50.00", "0.7500", "2.0000", "1.5000", "2.5000", "10", "2", "run-0"]
    assert rows[0].split()[2:] == cells
    _, _, heads, *rows = table(runs_in(folder), folder, "name", 80)
    assert max(map(len, rows)) <= 80 and "R2" not in heads
    assert rows[1::2] == [
        "        valid kl 2.0000, R2 0.7500; test kl 2.5000",
        "        valid kl 3.0000; test kl 2.5000",
        "        valid top-5 50.00 %; test kl 2.5000",
    ]


def test_only_what_differs_is_said_and_not_what_a_name_says(settings):
    three = [settings(f"seed={seed}", "run.threads=1") for seed in range(3)]
    assert labels(three) == ["seed=0", "seed=1", "seed=2"]
    assert labels(three, ["seed=0", "a/seed=1", "seed=20"]) == ["", "", "seed=2"]
    assert labels(three[:1]) == [""] and labels([]) == []
    other = settings("seed=3", "train.learning_rate=1.0")
    found = ["seed=2, learning_rate=0.1", "seed=3, learning_rate=1"]
    assert labels([*three, other])[2:] == found
    assert labels([*three, other], "abcd")[2:] == ["seed=2", found[1]]
    rates = [settings(f"train.rates.Phi1={rate}") for rate in (0.1, 0.2)]
    assert labels([three[0], *rates]) == ["", "Phi1=0.1", "Phi1=0.2"]
    assert labels(rates, ["Phi1=0.1", "other"]) == ["", "Phi1=0.2"]
    rates = [settings(f"train.rates.Phi{k}.w=0.1") for k in (1, 2)]
    assert labels(rates) == ["Phi1.w=0.1", "Phi2.w=0.1"]
    wide = settings("model.sizes=[64,99,10]", "train.learning_rate=1e-5", "model.activation=tanh")
    assert labels([three[0], wide]) == [
        "sizes=[64,16,10], learning_rate=0.1",
        "sizes=[64,99,10], learning_rate=1e-05, activation=tanh",
    ]


def test_runs_of_several_models_are_compared_with_their_like(made_up):
    made_up("a", losses(5, [0.5]), "seed=1")
    made_up("b", losses(5, [0.5]), "seed=2")
    folder = made_up("c", losses(5, [0.5]), "data.file=mnist.h5", "seed=7").parent
    rows, _ = listed(folder)
    head = next(table(runs_in(folder), folder))
    assert head.endswith("3 runs in " + str(folder) + ": mlp on digits, where no other is named")
    ends = ["a seed=1", "b seed=2", "c mlp on mnist"]
    assert [" ".join(row.partition(" 2  ")[2].split()) for row in rows] == ends


# A grid.

TREE = {"model": {"build": "mlp", "sizes": [64, 16, 10]}}
VALUES = {
    "train.learning_rate=[0.1,0.2]": [0.1, 0.2],
    "train.learning_rate=[0.1,0.1,0.2]": [0.1, 0.2],
    "train.betas=[0.9,0.99]": None,
    "train.betas=[[0.9,0.99],[0.8,0.9]]": [[0.9, 0.99], [0.8, 0.9]],
    "model.sizes=[64,10]": None,
    "model.sizes=[[64,10],[64,32,10]]": [[64, 10], [64, 32, 10]],
    'model.activation=["relu","tanh"]': ["relu", "tanh"],
    "model.activation=[relu,tanh]": ["relu", "tanh"],
    "train.learning_rate = [.1, 1e-2]": [0.1, 0.01],
    "train.nesterov=[true,false]": [True, False],
    "train.learning_rate=0.1": None,
    "train.learning_rate=0.1,0.2": [0.1, 0.2],
    "train.optimizer=sgd,adam": ["sgd", "adam"],
    "train.betas=0.9,0.99": None,
    "model.sizes=64,10": None,
    "data.file=a,b": None,
    "data.file=1..2": None,
    "run.dir=../elsewhere": None,
    f"model.sizes={'[' * 10_000}": None,
}


@pytest.mark.parametrize("word", VALUES, ids=lambda word: word[:40])
def test_a_list_is_several_values_unless_the_setting_is_a_list(word):
    grid, rest = read_grid([word], TREE)
    expected = VALUES[word]
    assert (rest, [*grid.values()]) == (([word], []) if expected is None else ([], [expected]))


def test_a_setting_that_the_config_does_not_name_is_a_list_where_the_model_has_one():
    assert is_one_value("model.channels", [6, 16], {"model": {"build": "lenet"}})
    assert not is_one_value("model.channels", [[6, 16], [20, 50]], {"model": {"build": "lenet"}})
    assert not is_one_value("model.activation", ["relu", "tanh"], {"model": {"build": "mlp"}})


def test_a_grid_is_all_combinations_and_samples_are_others_each_and_the_same_again():
    grid, _ = read_grid(["train.epochs=[1,2,3]", "seed=[5,6]"], TREE)
    every = points(grid)
    assert [(p["train.epochs"], p["seed"]) for p in every] == [
        (e, s) for e in (1, 2, 3) for s in (5, 6)
    ]
    drawn = points(grid, 6, seed=3)
    assert sorted(drawn, key=str) == sorted(every, key=str)
    assert points(grid, 4, seed=3) == drawn[:4] != points(grid, 4, seed=4)


def test_a_range_is_even_on_the_scale_that_it_is_drawn_on():
    grid, _ = read_grid(["a=0.001..10.0", "b=-1.0..3", "c=1..100", "d=0..3"], TREE)
    drawn = points(grid, 2000)
    middle = {key: median(p[key] for p in drawn) for key in grid}
    assert middle["a"] == pytest.approx(0.1, rel=0.25) and middle["c"] == pytest.approx(10, abs=2)
    assert middle["b"] == pytest.approx(1, abs=0.15)
    assert {p["d"] for p in drawn} == {0, 1, 2, 3} and {p["c"] for p in drawn} <= {*range(1, 101)}
    assert all(0.001 <= p["a"] <= 10 and -1 <= p["b"] <= 3 for p in drawn)
    for ends in Range(1, 3), Range(0.1, 0.3), Range(-2, 2):
        assert ends.draw(0.0) == ends.low and ends.draw(1 - 2**-53) == ends.high


WRONG = {
    "nothing to choose from": (["seed=1"], {}, "no setting with several values"),
    "a list in a table": (
        ['train.rates={"Phi1.w"=[0.1,1]}'],
        {},
        "several as in train.rates.Phi1.w=[0.1, 1]",
    ),
    "no values": (["seed=[]"], {}, "seed = []"),
    "a setting twice": (["seed=[1,2]", "seed=3"], {}, "seed is given twice"),
    "a setting twice, with blanks": (["seed = 3", "seed=[1,2]"], {}, "seed is given twice"),
    "a range without samples": (["seed=1..9"], {}, "seed is a range, expected --samples N"),
    "a range upside down": (["seed=9..1"], {"samples": 1}, "expected the lower number first"),
    "a range without end": (["run.timeout=1..inf"], {"samples": 1}, "expected the lower number"),
    "more samples than points": (["seed=[1,2]"], {"samples": 3}, "at most the 2 points"),
    "more samples than numbers": (["seed=1..4"], {"samples": 5}, "at most about 4"),
    "too many": (["seed=[1,2,3]"] + [f"model.m{k}=[1,2]" for k in range(12)], {}, "12,288 runs"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_grid_that_cannot_be_is_refused(what, refused):
    words, options, named = WRONG[what]
    with refused(named):
        grid, _ = read_grid(words, TREE)
        points(grid, **options)


@pytest.fixture
def planned(settings, digits, tmp_path, monkeypatch):
    """planned(*words): the runs of a sweep of CONFIG in tmp_path, on the digits."""
    settings()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits.h5").symlink_to(digits)
    return lambda *words, **options: plan("small.toml", words, **options)


def test_each_run_has_a_directory_of_its_own_with_a_short_and_safe_name(planned):
    directory, runs = planned("model.sizes=[[64,10],[64,32,10]]", "train.learning_rate=[0.1,1e-5]")
    assert directory == "runs/small-sweep"
    assert [run.name for run in runs] == [
        "sizes=64-10,learning_rate=0.1",
        "sizes=64-10,learning_rate=1e-05",
        "sizes=64-32-10,learning_rate=0.1",
        "sizes=64-32-10,learning_rate=1e-05",
    ]
    for word in "run.dir=here", "run.dir = here":
        assert planned("seed=[1]", word)[1][0].directory == "here/seed=1"
    drawn = [planned("train.momentum=0.0..0.9", f"seed={k}", samples=2)[1] for k in (0, 0, 1)]
    assert drawn[0] == drawn[1] and not {run.name for run in drawn[0]} & {r.name for r in drawn[2]}
    assert all("seed=1" in run.words for run in drawn[2])
    long = [[64, *[k] * 60, 10] for k in (11, 12)]
    _, runs = planned(f"model.sizes={json.dumps(long)}", 'run.dir="a b"')
    assert len({run.name for run in runs}) == 2
    assert all(len(run.name) < 110 and run.name.isascii() for run in runs)
    assert [config.load("small.toml", run.words[1:]).model["sizes"] for run in runs] == long


def test_runs_with_other_settings_lie_beside_those_that_are_there(planned, made_up):
    words = "data.file=digits.h5", "run.dir=runs"
    made_up("seed=1", losses(5, [0.5] * 4, 0.5), "seed=1")
    made_up("seed=2", losses(5, [0.5]), "seed=2", "train.epochs=3")
    assert [(run.name, run.status) for run in planned("seed=[1,2,3]", *words)[1]] == [
        ("seed=1", "finished"),
        ("seed=2-2", "new"),
        ("seed=3", "new"),
    ]
    changed = planned("seed=[1,2]", *words, "train.epochs=3")[1]
    assert [(run.name, run.status) for run in changed] == [
        ("seed=1-2", "new"),
        ("seed=2", "stopped"),
    ]


@pytest.mark.parametrize(
    "word, named",
    [
        ("train.learnin_rate=[1,2]", "expected train.learning_rate"),
        ("train.epochs=[1,2.5]", "train.epochs = 2.5"),
        ("model.sizes=[[64,10],[60,10]]", "60"),
        ('model.build=["mlp","mpl"]', 'model.build = "mpl"'),
        ("run.dir=[1,2]", "run.dir"),
    ],
)
def test_what_one_run_would_be_refused_for_is_refused_before_any_starts(
    word, named, planned, refused, tmp_path
):
    with refused("", named):
        planned(word)
    assert not (tmp_path / "runs").exists()


# Groups of ranks.


@pytest.mark.parametrize("error", [ValueError("x"), UserError("x"), RunError("x")], ids=repr)
def test_an_error_ends_a_run_of_one_rank_alone_but_several_with_their_job(
    error, tmp_path, monkeypatch
):
    def fails(ranks, words):
        raise error

    monkeypatch.setattr(signs, "PATIENCE", 0.1)
    monkeypatch.setattr(signs.Watchdog, "of_this_process", watched_by_nobody())
    group = SimpleNamespace(size=1, rank=0, host_rank=0, words=None, folder=tmp_path, run=0)
    left = []
    status, why = attempt(fails, group, [], left.append)
    assert status == getattr(error, "status", 1) and why.endswith("x")
    group.size = 2
    assert not left
    with pytest.raises(type(error)):
        attempt(fails, group, [], left.append)
    assert left == [why]
    error = AgreedRunError("x")
    assert attempt(fails, group, [], left.append) == (1, "x") and left == [why]


def watched_by_nobody():
    return SimpleNamespace(ranks=SimpleNamespace(alive=lambda: None))


def test_ranks_agree_that_a_run_failed_where_all_of_them_met_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(signs, "PATIENCE", 0.3)
    monkeypatch.setattr(signs.Watchdog, "of_this_process", watched_by_nobody())
    assert not signs.all_fail(tmp_path, 7, 0, 3) and not signs.all_fail(tmp_path, 7, 1, 3)
    assert signs.all_fail(tmp_path, 7, 2, 3) and not signs.all_fail(tmp_path, 8, 2, 3)


def test_a_folder_that_a_killed_sweep_left_goes_but_not_that_of_a_live_one(tmp_path):
    (tmp_path / ".sweep-killed").mkdir()
    (tmp_path / ".sweep-killed" / "0").touch()
    folders = [signs.new_folder(tmp_path) for _ in range(2)]
    assert {*os.listdir(tmp_path)} == {Path(folder.name).name for folder in folders}
    for folder in folders:
        folder.cleanup()
    assert not os.listdir(tmp_path)


def test_a_rank_without_a_sign_of_life_ends_the_job_once_all_others_wait_for_it(
    tmp_path, monkeypatch
):
    ended = []
    monkeypatch.setattr(signs, "end", lambda ranks, status, why: ended.append((ranks.rank, why)))
    lives = [signs.Life(tmp_path, SimpleNamespace(rank=k, size=3, timeout=5.0)) for k in range(3)]
    for n in range(1, 10):
        for life in lives[:2]:  # rank 2 is stopped
            os.utime(life.mine, (n, n))
        for life in lives[:2]:
            life.look()
        assert [rank for rank, _ in ended] == [1] * (n - 5)
    assert "rank 2 gave no sign of life for 5 seconds" in ended[0][1]
    os.utime(lives[2].mine, (n, n))  # it goes on
    lives[1].look()
    assert len(ended) == 4


def test_the_file_of_a_sweep_tells_all_its_groups_to_stop(tmp_path):
    told = Told()
    told.file = tmp_path / "stop"
    assert not told.stop
    told.file.touch()
    assert told.stop


def test_a_run_that_another_job_trains_or_has_finished_is_left_alone(planned, made_up, capsys):
    runs = planned("seed=[1,2]", "data.file=digits.h5", "run.dir=runs")[1]
    made_up("seed=1", losses(5, [0.5] * 4, 0.5), "seed=1")
    folder = made_up("seed=2", losses(5, [0.5]), "seed=2")
    group = SimpleNamespace(rank=0, gather=lambda thing: [thing])
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert [sweep.train_one(run, group) for run in runs] == [(0, "")] * 2
    assert capsys.readouterr().out.count("left alone") == 2


def test_a_run_that_failed_before_it_began_is_known_and_can_be_tried_again(planned):
    words = "seed=[1,2]", "data.file=digits.h5", "run.dir=runs"
    run = planned(*words)[1][0]
    sweep.leave_behind(run, "why")
    assert [its.status for its in planned(*words)[1]] == ["failed", "new"]
    past = PastRun(run.directory)
    assert (past.status, past.note) == ("failed", "why")
    assert named("runs") == ["runs"]  # and so does not stand in the way of a picture
    directory = RunDirectory(run.directory, SimpleNamespace(rank=0))
    directory.claim(may_hold_a_run=True)
    assert directory.resume(phi=None) == {}


def test_a_run_that_could_not_leave_why_it_failed_is_told_with_its_reason(
    made_up, tmp_path, capsys
):
    (made_up("seed=1", losses(5, [0.5]), "seed=1") / "failure.txt").write_text("one")
    made_up("seed=2", losses(5, [0.5]), "seed=2")
    failed = {"seed=1": "one", "seed=10": "ten", "seed=2": "two"}
    sweep.conclude(tmp_path / "runs", failed)
    said = [line for line in capsys.readouterr().out.splitlines() if ": failed: " in line]
    assert [line.split()[0] + line.split()[-1] for line in said] == ["seed=2:two", "seed=10:ten"]


def test_each_run_falls_to_one_group(tmp_path):
    group = SimpleNamespace(rank=0, gather=lambda thing: [thing])
    groups = [shared_out(20, tmp_path, group) for _ in range(3)]
    taken = [next(groups[k % 3]) for k in range(10)]
    assert taken + [k for its in groups for k in its] == [*range(20)]


SHORT = "data.valid=100", "train.epochs=2", "train.weight_decay=[0.0,1e9,0.001]"


def phi(folder):
    with h5py.File(folder / "checkpoint.h5") as file:
        return file["phi"][...]


@pytest.fixture
def place(planned, tmp_path):
    """A folder with small.toml and its data."""
    planned("seed=[0]")
    return tmp_path


def test_a_sweep_makes_the_runs_of_train_and_goes_on_where_it_was(place, python):
    words = ["-m", "dpedf", "sweep", "small.toml", *SHORT]
    ran = python(*words, cwd=place)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert ran.stdout.count(": started") == 3 and ran.stdout.count("failed: step") == 1
    assert "best: weight_decay=0" in ran.stdout
    folder = place / "runs" / "small-sweep"
    assert {run.path.name: run.status for run in runs_in(folder)} == {
        "weight_decay=0": "finished",
        "weight_decay=0.001": "finished",
        "weight_decay=1e+09": "failed",
    }
    one = "data.valid=100", "train.epochs=2", "train.weight_decay=0.001", "run.dir=alone"
    assert python("-m", "dpedf", "train", "small.toml", *one, cwd=place).returncode == 0
    assert np.array_equal(phi(place / "alone"), phi(folder / "weight_decay=0.001"))
    (folder / "weight_decay=0" / "metrics.jsonl").write_text("")  # as if it had been killed
    past = PastRun(folder / "weight_decay=0")  # as its checkpoint says
    assert (past.status, past.step, past.last_step, past.ranks) == ("stopped", 54, 54, 1)
    again = python(*words, cwd=place)
    assert (again.returncode, again.stderr) == (1, "")
    assert again.stdout.count(": started") == 0 and again.stdout.count(": going on") == 1
    assert "1 finished, left alone" in again.stdout and "1 failed, left alone" in again.stdout
    retried = python(*words, "--retry", cwd=place).stdout
    assert retried.count(": going on") == 1 and retried.count(": failed: step") == 1
