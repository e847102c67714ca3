"""dpedf.run: a run goes on only as what it was, and nothing of it is lost unnoticed."""

import json
import os
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
from damage import damaged
from test_checkpoint import ALONE, model

from dpedf.errors import RunError, UserError, visible
from dpedf.parallel.ranks import Ranks
from dpedf.run import checkpoint, config
from dpedf.run.directory import RunDirectory
from dpedf.run.resume import Identity, expect_resumable
from dpedf.run.step import Step

CONFIG = """
[data]
file = "digits.h5"
[model]
build = "mlp"
[train]
epochs = 1
batch_size = 8
learning_rate = 0.1
"""


@pytest.fixture
def settings(tmp_path):
    """settings(*overrides) of a run."""
    (tmp_path / "c.toml").write_text(CONFIG)
    return lambda *overrides: config.load(tmp_path / "c.toml", overrides)


@pytest.fixture
def claimed(settings, tmp_path):
    """claimed(*overrides, data, program): the directory of a run, claimed by a job of its own."""
    live = []

    def claim(*overrides, data="80 rows\nof rows aa", program="ell = LogLoss(z1)"):
        for directory in live:
            directory.lock.close()
        of = Identity(settings(*overrides), 80, data, program)
        live.append(RunDirectory(tmp_path / "run", ALONE, of))
        live[-1].claim(True)
        return live[-1]

    return claim


@pytest.fixture
def begun(claimed, settings):
    """A run that has two checkpoints, of steps 5 and 10, and the best step, 8, between them."""
    directory = claimed()
    directory.begin(settings(), 0)
    for step, best in (5, (0.5, 4)), (8, (0.25, 8)), (10, (0.25, 8)):
        directory.event("train", step=step, loss=0.5)
        if step == 5:
            directory.save("best.h5", model(seed=4), step=4, best=0.5, best_step=4)
        name = "best.h5" if step == 8 else "checkpoint.h5"
        directory.save(name, model(seed=step), step=step, best=best[0], best_step=best[1])
    return directory.path


def spoil(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def seed_of(phi):
    return next(k for k in range(20) if (model(seed=k).value == phi.value).all())


# A checkpoint proves itself.


def test_no_bit_and_no_end_of_a_checkpoint_is_lost_unnoticed(tmp_path):
    path, phi, random = tmp_path / "checkpoint.h5", model(seed=1), Random(0)
    checkpoint.save(path, phi, step=3, v=np.arange(3.0), settings="a")
    whole = path.read_bytes()
    for _ in range(300):
        content = bytearray(whole)
        content[random.randrange(len(whole))] ^= 1 << random.randrange(8)
        path.write_bytes(content)
        with pytest.raises(UserError):
            checkpoint.load(path, model())
    for k in range(100):
        path.write_bytes(whole[: k * len(whole) // 100])
        with pytest.raises(UserError):
            checkpoint.load(path, model())
        path.write_bytes(damaged(whole, random) + b"x")
        with pytest.raises(UserError):
            checkpoint.load(path, model())


def test_what_is_not_finite_is_not_saved(tmp_path):
    path, phi = tmp_path / "checkpoint.h5", model(seed=1)
    checkpoint.save(path, phi, step=3)
    with pytest.raises(RunError, match="checkpoint.h5: v is not finite"):
        checkpoint.save(path, phi, v=np.array([1, np.inf]))
    phi.value[3] = np.nan
    with pytest.raises(RunError, match="checkpoint.h5: phi is not finite"):
        checkpoint.save(path, phi, step=4)
    assert checkpoint.load(path, model()) == {"step": 3}


def test_a_checkpoint_of_an_older_version_is_one_line(tmp_path, refused):
    path = tmp_path / "checkpoint.h5"
    checkpoint.save(path, model(), step=3)
    path.write_bytes(path.read_bytes()[checkpoint.HEAD :])
    with refused(path, "older version"):
        checkpoint.load(path, model())


v = np.zeros(3)
VECTORS = {
    "one too few": ({}, "v is missing"),
    "one too many": ({"v": v, "m": v}, "m is float64 (3,), expected no such vector"),
    "a shorter one": ({"v": v[:1]}, "v is float64 (1,), expected float64 (3,)"),
    "another type": ({"v": v.astype("f4")}, "v is float32"),
}


@pytest.mark.parametrize("what", VECTORS)
def test_a_step_does_not_go_on_with(what, refused):
    found, said = VECTORS[what]
    phi = SimpleNamespace(value=np.zeros(3), state={})
    gradient = SimpleNamespace(phi=phi, totals=None)
    step = Step(gradient, SimpleNamespace(state={"v": np.zeros(3)}))
    with refused("run/checkpoint.h5", said):
        step.restore({"step": 1, "source": "run/checkpoint.h5", **found}, Ranks())


def test_the_checkpoint_before_a_damaged_one_is_taken_and_said(begun, claimed, settings):
    spoil(begun / "checkpoint.h5")
    phi, directory = model(), claimed()
    assert directory.resume(phi)["step"] == 5 and seed_of(phi) == 5
    (said,) = directory.notes
    assert "checkpoint.h5: damaged" in said and "checkpoint.previous.h5" in said
    directory.begin(settings(), 5)
    phi, directory = model(), claimed()  # killed before another checkpoint
    assert directory.resume(phi)["step"] == 5 and not directory.notes
    assert checkpoint.read(begun / "best.h5")["rest"]["step"] == 4


def test_two_damaged_checkpoints_are_one_line(begun, claimed, refused):
    spoil(begun / "checkpoint.h5")
    spoil(begun / "checkpoint.previous.h5")
    with refused("checkpoint.h5", "checkpoint.previous.h5", "damaged"):
        claimed().resume(model())


# A run goes on as what it was.


def test_settings_that_may_not_change_are_all_named(settings, refused):
    new = settings("seed=2", "train.nesterov=true", "model.depth=3", "train.learning_rate=0.2")
    with refused("seed = 2, expected 0", "train.nesterov = True", "model.depth = 3, expected noth"):
        expect_resumable(settings(), new)


def test_a_changed_rate_is_said_and_what_it_comes_to(settings):
    def said(old, new, step):
        state = {"step": step, **Identity(settings(*old), 80).texts()}
        return Identity(settings(*new), 80).compare(state)

    assert said([], ["train.epochs=9", "run.device=cpu", "data.cache=memory"], 5) == []
    assert said([], ["train.learning_rate=0.05"], 5) == [
        "train.learning_rate was 0.1, is now 0.05",
        "the learning rate of step 6 is 0.05, and would have been 0.1",
    ]
    cosine = "train.schedule=cosine"
    assert said([cosine], [cosine, "train.epochs=2"], 10) == [
        "the learning rate of step 11 is 0.05, and would have been 0"
    ]


def test_other_data_and_another_program_are_refused_with_the_line_that_differs(
    begun, claimed, refused
):
    with refused("checkpoint.h5", "data is now of rows bb, expected of rows aa"):
        claimed(data="80 rows\nof rows bb").resume(model())
    with refused("checkpoint.h5", "program is now ell = Other(z1), expected ell = LogLoss(z1)"):
        claimed(program="ell = Other(z1)").resume(model())


def test_code_of_the_user_that_has_changed_is_said(settings):
    """Of which a comment may be all that changed, so it is not refused."""
    old, new = (Identity(settings(), 80, "rows", "ell", code) for code in ("aa", "bb"))
    (line,) = new.compare(old.texts() | {"step": 3})
    assert "mlp has changed" in line
    assert old.compare(old.texts() | {"step": 3}) == []


def test_the_best_step_is_one_that_the_checkpoint_knows(begun, claimed, settings):
    directory = claimed()
    directory.resume(model())
    directory.begin(settings(), 10)
    for step in 12, 14:  # better ones, which this job's end takes back
        directory.save("best.h5", model(seed=step), step=step, best=1 / step, best_step=step)
    directory = claimed()
    state = directory.resume(model())
    directory.begin(settings(), 10)
    assert (state["best"], state["best_step"]) == (0.25, 8) and not directory.notes
    assert checkpoint.read(begun / "best.h5")["rest"]["step"] == 8


def test_a_best_step_that_is_lost_is_said_and_kept_aside(begun, claimed, settings):
    spoil(begun / "best.h5")
    directory = claimed()
    assert "best" not in directory.resume(model())
    assert "best.h5: not that of step 8" in directory.notes[0]
    directory.begin(settings(), 10)
    assert not (begun / "best.h5").exists() and (begun / "best.dropped.h5").exists()


@pytest.mark.parametrize("name", ["best.h5", "metrics.jsonl", "config.toml"])
@pytest.mark.parametrize("link", [False, True])
def test_a_run_without_its_checkpoint_is_left_alone(name, link, claimed, refused, tmp_path):
    directory = claimed()
    (directory.path / name).write_text("precious")
    if link:  # to what is not mounted
        (directory.path / "checkpoint.h5").symlink_to(tmp_path / "elsewhere")
    with refused(directory.path, "checkpoint.h5"):
        directory.resume(model())
    assert (directory.path / name).read_text() == "precious"


@pytest.mark.parametrize("name", ["config.toml", "best.h5", "checkpoint.h5.unfinished"])
def test_a_directory_in_the_place_of_a_file_is_refused_before_anything_is_removed(
    name, begun, claimed, refused
):
    (begun / name).unlink(missing_ok=True)
    (begun / name).mkdir()
    with refused(begun / name, "a directory"):
        claimed()
    assert (begun / "checkpoint.h5").exists()


def test_a_new_run_removes_the_old_checkpoints_first(begun, claimed, settings, monkeypatch):
    """A kill in between cannot bring the old run back."""
    gone, unlink = [], type(begun).unlink
    monkeypatch.setattr(
        type(begun), "unlink", lambda p, **how: (gone.append(p.name), unlink(p, **how))
    )
    claimed().begin(settings(), 0)
    assert gone[:2] == ["checkpoint.h5", "checkpoint.previous.h5"]


# Metrics.


def test_lines_that_are_no_events_are_said_and_the_others_kept(begun, claimed, settings):
    metrics = begun / "metrics.jsonl"
    bad = '{"event": "tr', "[" * 5000, "null", '{"step": 1}', '{"event": "train", "step": true}'
    more = '{"event": "train", "step": 1, "loss": NaN}', '{"event": "train", "step": 1, "loss": []}'
    one, two, three = metrics.read_text().splitlines()
    metrics.write_bytes("\n".join([one, *bad, *more, two, "\x00\xff", three, ""]).encode("latin-1"))
    directory = claimed()
    directory.resume(model())
    (said,) = directory.notes
    assert "metrics.jsonl: 8 lines" in said and "2, 3, 4, 5, 6, ..." in said
    directory.begin(settings(), 10)
    assert metrics.read_text().splitlines() == [one, two, three]
    metrics.write_text(f"{one}\n{three}\n")
    directory = claimed()
    directory.resume(model())
    assert directory.notes == [f"{metrics}: 2 events up to step 10, expected 3"]


def test_an_event_has_null_for_what_json_has_not(claimed, settings):
    directory = claimed()
    directory.begin(settings(), 0)
    directory.event("eval", step=3, valid_loss=float("nan"), train_loss=np.inf)
    event = json.loads((directory.path / "metrics.jsonl").read_text())
    assert event == {"event": "eval", "step": 3, "valid_loss": None, "train_loss": None}


# Files of a run stay in its directory.


def test_nothing_is_written_through_a_link(begun, claimed, settings, tmp_path, refused):
    precious = tmp_path / "precious"
    precious.write_text("precious")
    directory = claimed()
    directory.resume(model())
    for name in "checkpoint.h5.unfinished", "config.toml.unfinished", "metrics.jsonl.unfinished":
        (begun / name).symlink_to(precious)
    (begun / "config.toml").unlink()
    (begun / "config.toml").symlink_to(precious)
    directory.begin(settings(), 10)
    (begun / "checkpoint.h5").rename(tmp_path / "elsewhere")
    (begun / "checkpoint.h5").symlink_to(tmp_path / "elsewhere")
    before = (tmp_path / "elsewhere").read_bytes()
    directory.save("checkpoint.h5", model(), step=11)
    assert (tmp_path / "elsewhere").read_bytes() == before
    assert checkpoint.load(begun / "checkpoint.h5", model())["step"] == 11
    assert not (begun / "config.toml").is_symlink() and precious.read_text() == "precious"
    (begun / ".lock").unlink()
    (begun / ".lock").symlink_to(precious)
    with refused(".lock", "a link"):
        claimed()
    assert precious.read_text() == "precious"


def test_a_file_larger_than_memory_is_one_line(tmp_path, refused):
    path = tmp_path / "checkpoint.h5"
    with open(path, "wb") as file:
        file.truncate(1 << 43)  # of which the disk holds nothing
    with refused(path, "free memory"):
        checkpoint.load(path, model())


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(begun, claimed, refused):
    for name in "metrics.jsonl", "checkpoint.h5":
        (begun / name).unlink()
        os.mkfifo(begun / name)
        with refused(name, "not a regular file"):
            claimed().resume(model())


def test_what_moves_the_cursor_or_hides_is_shown(capsys):
    assert visible("\x1b[31mü\u202e\udc80\n") == "\\x1b[31mü\\u202e\\udc80\\n"
    assert visible("a\tb\n", "\n\t") == "a\tb\n"
    Ranks().say("a\x1b[2J\nb")
    assert capsys.readouterr().out == "a\\x1b[2J\nb\n"
