"""dpedf.train as a user runs it, on one rank: what it ends with, writes, says and goes on from."""

import hashlib
import json
import math
import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from terminals import at_a_terminal

from dpedf.data import write
from dpedf.errors import short
from dpedf.parallel.ranks import Ranks
from dpedf.run.evaluate import Found
from dpedf.run.last_lines import last_lines
from dpedf.run.report import Report
from dpedf.run.saves import Saves
from dpedf.train import Training

# 1,300 rows to learn from: an epoch is 20 minibatches and one of 20 rows.
CONFIG = """
seed = 1

[data]
file = {file}
valid = 137

[model]
build = "mlp"
sizes = [64, 32, 10]

[train]
epochs = 2
batch_size = 64
learning_rate = 0.2
momentum = 0.9
nesterov = true
schedule = "cosine"
slices = 8

[run]
log_every = 3
"""

MODELS = '''
"""Models of a user's own."""

import os
import time

import numpy as np

from dpedf import models
from dpedf.edf import CompNode, Package, Parameter, context
from dpedf.ops import Affine, SquareLoss, Tanh
from dpedf.phi import dense


class At(CompNode):
    """ell; and at step STEP of training, this process gets the signal SIGNAL, or is slow."""

    def __init__(self, ell):
        self.ell = ell

    def forward(self):
        if context.train and str(context.step) == os.environ.get("STEP"):
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))
        if context.train and str(context.step) == os.environ.get("SLOW"):
            time.sleep(1.2 * len(self.ell.value) / context.B)  # in all passes together
        self.value = self.ell.value

    def backward(self):
        self.ell.addgrad(self.grad)


class WrongTanh(Tanh):
    def backward(self):
        self.x.addgrad(1.1 * self.grad * (1 - np.square(self.value)))


class Root(CompNode):
    """The square root of x, which is nan below 0."""

    def __init__(self, x):
        self.x = x

    def forward(self):
        with np.errstate(invalid="ignore"):
            self.value = np.sqrt(self.x.value)

    def backward(self):
        self.x.addgrad(self.grad / (2 * self.value))


def interrupted(x, y, sizes):
    Q, ell = models.mlp(x, y, sizes)
    return Q, At(ell)


def wrong(x, y, hidden):
    z = WrongTanh(Affine(dense(3, hidden), x))
    z = Affine(dense(hidden, 1), z)
    return z, SquareLoss(z, y)


def rooted(x, y):
    z = Affine(dense(3, 1), Root(x))
    return z, SquareLoss(z, y)


def linear(x, y):
    z = Affine(dense(3, 1), x)
    return z, SquareLoss(z, y)


def blank(x, y):
    z = Affine(Package(w=Parameter(np.full((3, 1), np.nan)), b=Parameter([0.0])), x)
    return z, SquareLoss(z, y)


def no_loss(x, y):
    Q, ell = models.mlp(x, y, [64, 10])
    return Q, Q
'''


@pytest.fixture
def train(python, digits, tmp_path):
    """train(*words) runs dpedf.train on digits.toml in tmp_path."""
    (tmp_path / "digits.toml").write_text(CONFIG.format(file=json.dumps(str(digits))))
    (tmp_path / "models.py").write_text(MODELS)

    def train(*words, file="digits.toml", **variables):
        words = [file, *words] if file else words
        return python("-m", "dpedf.train", *words, cwd=tmp_path, **variables)

    return train


@pytest.fixture
def run(tmp_path):
    """Where train leaves its run."""
    return tmp_path / "runs" / "digits"


@pytest.fixture(scope="module")
def finished(python, digits, tmp_path_factory):
    """A run that came to its end, and its directory; to be read, not changed."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "digits.toml").write_text(CONFIG.format(file=json.dumps(str(digits))))
    ran = python("-m", "dpedf.train", "digits.toml", cwd=folder)
    return ran, folder / "runs" / "digits"


def strict(number):
    raise ValueError(f"{number} is no JSON")


def events_of(run, kind=None):
    """The lines of metrics.jsonl, or those of one kind."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    events = [json.loads(line, parse_constant=strict) for line in lines]
    return [event for event in events if kind in (None, event["event"])]


def untimed(run):
    """What metrics.jsonl says, but for times and rates."""
    return [
        {key: e[key] for key in e if key not in ("seconds", "samples_per_second")}
        for e in events_of(run)
    ]


def saved(path):
    """All that a checkpoint holds, as bytes or numbers, but where it lies and how long it took."""
    with h5py.File(path) as file:
        arrays = {name: file[name][...].tobytes() for name in file if name != "parameters"}
        rest = {key: its for key, its in file.attrs.items() if key not in ("settings", "seconds")}
        return arrays | rest


def contents(run):
    """What the files of a run hold, and when they were written."""
    files = [file for file in run.iterdir() if file.name != ".lock"]
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def phi_sha256(ran):
    assert (ran.returncode, ran.stderr) == (0, "")
    last = ran.stdout.splitlines()[-1].split()
    assert last[0] == "phi_sha256" and len(last[1]) == 64
    return last[1]


def assert_refused(ran, *words):
    """Status 2, one line on stderr that has these words, and nothing else."""
    assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr
    assert ran.stderr.count("\n") == 1 and ran.stderr.endswith("\n"), ran.stderr
    for word in words:
        assert str(word) in ran.stderr


# A run that comes to its end.


def test_a_run_ends_with_status_0_and_says_its_phi(finished):
    ran, run = finished
    assert phi_sha256(ran) == events_of(run, "test")[0]["phi_sha256"]
    assert {"config.toml", "metrics.jsonl", "checkpoint.h5", "best.h5"} <= set(os.listdir(run))
    assert not list(run.glob("*.unfinished"))


def test_a_warm_up_that_is_longer_than_the_run_is_said(train):
    words = "train.schedule=constant", "train.epochs=0", "train.steps=3", "train.warmup_steps=4"
    said = "train.warmup_steps = 4: train.learning_rate is not reached in 3 steps"
    assert said in train(*words).stdout.splitlines()
    assert said not in train(*words, "train.steps=4", "--overwrite").stdout


def test_the_first_lines_say_what_runs_where(finished, digits):
    ran, run = finished
    for word in ("1 rank", "1 host", "cpu", "1 BLAS thread", str(digits), "1,300", "137", "360"):
        assert word in ran.stdout
    assert "2,410 parameters" in ran.stdout and "float32" in ran.stdout


def test_metrics_hold_the_documented_events_and_keys(finished):
    run = finished[1]
    learned, evaluated, tested = (events_of(run, kind) for kind in ("train", "eval", "test"))
    assert len(events_of(run)) == len(learned) + len(evaluated) + len(tested)
    assert [e["step"] for e in learned] == list(range(3, 43, 3))
    assert [(e["epoch"], e["step"]) for e in evaluated] == [(1, 21), (2, 42)]
    assert events_of(run)[-1:] == tested
    for e in learned:
        assert {"epoch", "loss", "learning_rate", "grad_norm", "samples_per_second"} <= set(e)
        assert e["epoch"] == -(-e["step"] // 21) and e["grad_norm"] > 0
    documented = {"train_loss", "valid_loss", "valid_accuracy", "samples_per_second", "seconds"}
    assert {e["steps_per_epoch"] for e in evaluated} == {21}
    for e in evaluated:
        assert documented | {"ranks", "phi_sha256"} <= set(e)
        assert e["ranks"] == 1 and e["samples_per_second"] > 0 and e["seconds"] > 0
    assert {"test_loss", "test_accuracy", "phi_sha256"} <= set(tested[0])


def test_the_learning_rate_follows_its_schedule(finished):
    for e in events_of(finished[1], "train"):
        expected = 0.2 * (1 + np.cos(np.pi * (e["step"] - 1) / 42)) / 2
        np.testing.assert_allclose(e["learning_rate"], expected, 1e-12)


def test_the_sha_is_that_of_phi_in_the_checkpoint(finished):
    run = finished[1]
    phi = saved(run / "checkpoint.h5")["phi"]
    sha256 = hashlib.sha256(phi).hexdigest()
    assert sha256 == events_of(run, "test")[0]["phi_sha256"]
    assert sha256 == events_of(run, "eval")[-1]["phi_sha256"]


def test_what_is_said_of_rows_is_what_a_few_lines_of_numpy_find(finished, digits):
    run = finished[1]
    with h5py.File(run / "checkpoint.h5") as file:
        Phi = file["phi"][...].astype(float)
    (w1, b1), (w2, b2) = (
        (Phi[a : a + I * J].reshape(I, J), Phi[a + I * J : a + I * J + J])
        for a, I, J in ((0, 64, 32), (2080, 32, 10))
    )
    with h5py.File(digits) as file:
        x, y = file["test/x"][...].reshape(-1, 64) / 16, file["test/y"][...]
    s = np.maximum(x @ w1 - b1, 0) @ w2 - b2
    losses = np.log(np.exp(s).sum(axis=1)) - s[np.arange(360), y]
    (said,) = events_of(run, "test")
    np.testing.assert_allclose(said["test_loss"], losses.mean(), 1e-5)
    assert said["test_accuracy"] == (s.argmax(axis=1) == y).mean() > 0.8


def test_a_run_does_the_same_again_with_the_settings_that_it_wrote(finished, train, run):
    ran = train("run.dir=again", file=finished[1] / "config.toml")
    assert phi_sha256(ran) == phi_sha256(finished[0])
    assert untimed(run.parents[1] / "again") == untimed(finished[1])


def test_another_seed_is_another_run(finished, train):
    assert phi_sha256(train("seed=2")) != phi_sha256(finished[0])


def test_the_loss_of_an_epoch_is_the_mean_over_its_rows(train, run):
    assert train("run.log_every=1").returncode == 0
    losses = np.array([e["loss"] for e in events_of(run, "train")]).reshape(2, 21)
    rows = np.array([64] * 20 + [20])
    means = [e["train_loss"] for e in events_of(run, "eval")]
    np.testing.assert_allclose(means, losses @ rows / 1300, 1e-12)


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_best_checkpoint_is_that_of_the_lowest_loss_on_rows_held_out(interrupted, train, run):
    words = "train.eval_every=4", "train.learning_rate=2.0", "train.schedule=constant"
    if interrupted:
        words = *words, "model.build=models.py:interrupted", "train.checkpoint_every=8"
        assert train(*words, STEP="37", SIGNAL="9").returncode == -9
        words = *words, "--resume"
    assert train(*words).returncode == 0
    evaluated = events_of(run, "eval")
    assert [e["step"] for e in evaluated] == [*range(4, 43, 4), 42]
    best = min(evaluated, key=lambda e: e["valid_loss"])
    assert 4 < best["step"] < 32  # or this would test little
    state = saved(run / "best.h5")
    assert (state["step"], state["best"]) == (best["step"], best["valid_loss"])
    assert hashlib.sha256(state["phi"]).hexdigest() == best["phi_sha256"]


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (["train.steps=5"], 5),
        (["train.steps=5", "train.epochs=0"], 5),
        (["train.steps=30", "train.epochs=1"], 21),
    ],
)
def test_a_run_is_as_long_as_the_shorter_of_steps_and_epochs(train, run, words, steps):
    phi_sha256(train(*words))
    assert [e["step"] for e in events_of(run, "eval")] == sorted({min(21, steps), steps})
    assert events_of(run, "test")[0]["step"] == saved(run / "checkpoint.h5")["step"] == steps


def test_where_the_rows_lie_and_how_they_are_summed_changes_nothing(
    finished, train, digits, tmp_path
):
    files = {"chunked": {"chunks": True}, "compressed": {"compression": "gzip"}}
    for name, options in files.items():
        with h5py.File(digits) as old, h5py.File(tmp_path / f"{name}.h5", "w") as new:
            new.attrs.update(old.attrs)
            for at in ("train/x", "train/y", "test/x", "test/y"):
                new.create_dataset(at, data=old[at][...], **options)
    for words in (
        ["data.cache=memory"],
        ["data.file=chunked.h5", "run.allreduce=whole"],
        ["data.file=compressed.h5", "run.allreduce=buckets", "run.bucket=100"],
        ["data.file=compressed.h5", "data.cache=memory"],
    ):
        assert phi_sha256(train(*words, "--overwrite")) == phi_sha256(finished[0])


@pytest.mark.parametrize(("rows", "together"), [(8, 1), (31, 3), (64, 8)])
def test_rows_of_a_pass_are_said_and_change_nothing(finished, train, rows, together):
    """A slice has 8 rows."""
    ran = train(f"train.rows={rows}")
    assert f"8 slices, {together} in a pass of {8 * together} rows" in ran.stdout
    assert phi_sha256(ran) == phi_sha256(finished[0])


def test_chunks_beyond_the_window_are_said_to_be_no_global_shuffle(train, tmp_path, python):
    n = 1437
    about = {"name": "a", "source": "b", "licence": "c", "classes": 10}
    random = np.random.default_rng(0)
    pair = random.integers(0, 17, (n, 64), np.uint8), random.integers(0, 10, n, np.uint8)
    write(tmp_path / "plain.h5", **about, train=pair, test=pair)
    with h5py.File(tmp_path / "plain.h5") as old, h5py.File(tmp_path / "chunked.h5", "w") as new:
        for at in ("train/x", "train/y", "test/x", "test/y"):
            new.create_dataset(at, data=old[at][...], chunks=(100, *old[at].shape[1:]))
    narrow = (
        "import sys; from dpedf import train; from dpedf.data import layout; "
        "from dpedf.parallel import job; layout.WINDOW = 3 * 6400; "
        "job.run(train.main, sys.argv[1:])"
    )
    words = "digits.toml", "train.epochs=1"
    for file, said in ("plain.h5", 0), ("chunked.h5", 1):
        ran = python(
            "-c", narrow, *words, f"data.file={file}", f"run.dir=runs/{file}", cwd=tmp_path
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        assert ran.stdout.count("not a global shuffle") == said
    assert "300 rows" in ran.stdout


def test_without_rows_to_validate_there_is_no_best(train, run):
    phi_sha256(train("data.valid=0"))
    for e in events_of(run, "eval"):
        assert e["valid_loss"] is None and e["valid_accuracy"] is None
    assert not (run / "best.h5").exists()
    assert "1,437 rows" in train("data.valid=0", "train.steps=1", "--overwrite").stdout


def test_a_gradient_that_is_too_long_is_shortened_before_the_step(train, run, tmp_path):
    moved = {}
    start = saved_after(train, run, "train.learning_rate=0")
    for most in 0, 0.25, 100:
        words = f"train.grad_clip={most}", "train.learning_rate=1", "train.warmup_steps=0"
        moved[most] = saved_after(train, run, *words) - start
        (said,) = events_of(run, "train")
        assert said["grad_norm"] > 0.5  # that before it is shortened
    full = np.linalg.norm(moved[0])
    np.testing.assert_allclose(full, said["grad_norm"], 1e-5)
    np.testing.assert_allclose(np.linalg.norm(moved[0.25]), 0.25, 1e-5)
    np.testing.assert_allclose(moved[0.25], moved[0] * 0.25 / full, 1e-4, 1e-6)
    np.testing.assert_array_equal(moved[100], moved[0])


def saved_after(train, run, *words):
    """Phi after one step of plain SGD."""
    plain = "train.steps=1", "train.momentum=0", "train.nesterov=false", "run.log_every=1"
    phi_sha256(train(*plain, *words, "train.schedule=constant", "--overwrite"))
    return np.frombuffer(saved(run / "checkpoint.h5")["phi"], np.float32).astype(float)


def test_adam_moves_by_the_learning_rate_in_every_step(train, run):
    """As it does where the gradient hardly changes: that of all rows, in steps so small."""
    plain = "train.momentum=0", "train.nesterov=false", "train.schedule=constant", "train.epochs=0"
    words = *plain, "train.optimizer=adam", "train.precision=float64", "train.batch_size=1300"
    values = []
    for steps, rate in (1, 0), (5, 1e-6):
        length = f"train.steps={steps}", f"train.learning_rate={rate}", "--overwrite"
        phi_sha256(train(*words, *length))
        values.append(np.frombuffer(saved(run / "checkpoint.h5")["phi"]))
    moved = np.abs(values[1] - values[0])
    np.testing.assert_allclose([moved.max(), np.median(moved)], 5e-6, 1e-2)


def test_a_run_that_diverges_ends_with_one_line(train, run):
    deep = "model.sizes=[64, 128, 64, 10]"
    ran = train(deep, "train.learning_rate=1e9", "train.epochs=1", "run.log_every=1")
    assert ran.returncode == 1 and ran.stderr.count("\n") == 1, ran.stderr
    assert "the loss is not finite" in ran.stderr and "Affine: forward made" in ran.stderr
    assert None not in [e["loss"] for e in events_of(run, "train")]
    assert not events_of(run, "test")


# What the user gave is wrong: status 2, one line, no run directory.

WRONG = {
    "no config": (None, ["CONFIG", "TOML"]),
    "no such config": ("nowhere.toml", ["nowhere.toml", "No such file"]),
    "a flag that is none": (["--resum"], ["--resum", "expected --resume"]),
    "two flags": (["--resume", "--overwrite"], ["--resume", "--overwrite"]),
    "a key that is none": (["train.epoch=3"], ["digits.toml", "train.epoch", "epochs"]),
    "a seed beyond 64 bits": ([f"seed={2**64}"], ["seed", 2**64]),
    "no such data": (["data.file=nowhere.h5"], ["nowhere.h5", "no such file"]),
    "no file for data": (["data.file="], ["data.file"]),
    "a folder for data": (["data.file=."], ["."]),
    "more rows held out": (["data.valid=1437"], ["data.valid = 1437", 1437]),
    "no such model": (["model.build=mpl"], ["model.build", "mpl", "mlp"]),
    "no such procedure": (["model.build=models.py:none"], ["model.build", "models.py:none"]),
    "a keyword that is none": (["model.depth=3"], ["depth"]),
    "sizes that do not fit": (["model.sizes=[63, 10]"], ["sizes", 63, 64]),
    "no loss of each row": (["model={build='models.py:no_loss'}"], ["model.build", "10", "(B,)"]),
    "a GPU": (["run.device=gpu"], ["run.device", "gpu", "cpu"]),
    "a precision of GPUs": (["train.precision=bfloat16"], ["train.precision", "bfloat16"]),
    "a cache on GPUs": (["data.cache=device"], ["data.cache", "device"]),
    "a file for a folder": (["run.dir=digits.toml"], ["digits.toml", "directory"]),
}


@pytest.mark.parametrize("what", WRONG)
def test_status_2_and_one_line_for(what, train, tmp_path):
    words, named = WRONG[what]
    before = {path.name for path in tmp_path.iterdir()}
    ran = train(*words) if isinstance(words, list) else train(file=words)
    assert_refused(ran, *named)
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == before


def test_fewer_rows_than_those_of_a_slice_are_refused_before_a_run_begins(train, run):
    assert_refused(train("train.rows=7"), "digits.toml", "train.rows = 7", "at least 8")
    assert not run.exists()


def test_a_label_out_of_range_is_named_with_its_row(train, digits, tmp_path):
    with h5py.File(digits) as old, h5py.File(tmp_path / "labels.h5", "w") as new:
        for group in old:
            old.copy(group, new)
        new.attrs.update(old.attrs)
        new["train/y"][77] = 10
    ran = train("data.file=labels.h5")
    assert_refused(ran, "labels.h5", "train/y", "label 10", "row 77", "0..9")
    assert not (tmp_path / "runs").exists()


def test_a_missing_data_file_says_what_makes_it(train, tmp_path):
    (tmp_path / "mine.py").touch()
    assert_refused(train("data.file=mine.h5"), "mine.h5", "python mine.py")


def test_gpus_that_were_granted_are_not_passed_over_in_silence(train):
    assert_refused(train(CUDA_VISIBLE_DEVICES="0"), "CUDA_VISIBLE_DEVICES", "run.device=cpu")
    for words, granted in ((["run.device=cpu"], "0"), ([], ""), ([], "-1")):
        ran = train(*words, "train.steps=1", "--overwrite", CUDA_VISIBLE_DEVICES=granted)
        assert ran.returncode == 0


@pytest.mark.parametrize(
    ("size", "rank"),
    [("PMI_SIZE", "PMI_RANK"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")],
    ids=["MPICH", "Open MPI"],
)
def test_under_the_wrong_launcher_one_process_says_so(size, rank, train, tmp_path):
    first, second = (train(**{size: "4", rank: str(number)}) for number in (0, 1))
    assert_refused(first, f"{size} = 4", "mpirun")
    assert (second.returncode, second.stdout, second.stderr) == (2, "", "")
    assert not (tmp_path / "runs").exists()


def test_help_is_no_error_and_shows_the_command(python):
    for word in "--help", "-h":
        ran = python("-m", "dpedf.train", word)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert "python -m dpedf train CONFIG" in ran.stdout
        assert "--resume" in ran.stdout and "--overwrite" in ran.stdout


# A directory that holds a run, or cannot.


def test_a_run_is_not_written_over_unless_told_to(train, run):
    first = train("train.epochs=1")
    before = contents(run)
    assert_refused(train("train.epochs=1"), "runs/digits", "--resume", "--overwrite")
    assert contents(run) == before
    again = train("train.epochs=1", "--overwrite")
    assert phi_sha256(again) == phi_sha256(first) and "resumed" not in again.stdout
    assert contents(run) != before and len(events_of(run, "test")) == 1


def test_a_run_directory_that_cannot_be_written_is_one_line(train, tmp_path, python):
    tmp_path.chmod(0o755)
    (tmp_path / "locked").mkdir(mode=0o555)
    (tmp_path / "plain.h5").symlink_to(tmp_path / "rows.h5")
    random = np.random.default_rng(0)
    pair = random.random((99, 64)), random.integers(0, 10, 99)
    write(tmp_path / "rows.h5", name="a", source="b", licence="c", train=pair, test=pair)
    drop = "os.geteuid() or os.setresuid(65534, 65534, 65534)"
    ready = "from dpedf.data import Data; Data('rows.h5'); from mpi4py import MPI"  # imports all
    imports = "import os, sys; from dpedf import train; from dpedf.parallel import job"
    code = f"{imports}; {ready}; {drop}; job.run(train.main, sys.argv[1:])"
    words = "digits.toml", "data.file=rows.h5", "data.valid=9"
    ran = python("-c", code, *words, "run.dir=locked/run", cwd=tmp_path)
    assert_refused(ran, "locked/run", "Permission denied")


@pytest.fixture
def live(train, run, environment, tmp_path):
    """A job that trains for long, once it has begun."""
    words = "digits.toml", "train.epochs=100000", "run.log_every=1"
    command = [sys.executable, "-m", "dpedf.train", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes) as job:
        for line in job.stdout:
            if line.startswith("epoch 1"):
                break
        yield job
        job.kill()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_job_that_is_told_to_stop_ends_with_status_75_and_a_checkpoint(live, run, number):
    live.send_signal(number)
    out, err = live.communicate(timeout=600)
    assert (live.returncode, err) == (75, "")
    step = saved(run / "checkpoint.h5")["step"]
    assert f"step {step}" in out.splitlines()[-1].replace(",", "")
    assert events_of(run)[-1]["event"] != "test" and "phi_sha256" not in out


def test_a_second_live_job_on_a_directory_is_refused(live, train):
    for words in [], ["--resume"], ["--overwrite"]:
        assert_refused(train(*words), "runs/digits", "live")
    assert live.poll() is None


# The end of a run.


def test_the_last_lines_say_where_things_lie_and_what_to_do_next(finished):
    ran, run = finished
    out, best = ran.stdout.splitlines(), saved(run / "best.h5")
    state, epoch = saved(run / "checkpoint.h5"), best["step"] // 21
    kept = f"checkpoint.h5 (step {state['step']}), best.h5 (epoch {epoch}, valid loss "
    assert out[-3] == f"runs/digits: {kept}{short(best['best'])})"
    plot = "; dpedf plot runs/digits" if find_spec("matplotlib") else ""
    assert out[-2] == f"next: dpedf evaluate runs/digits{plot}"
    assert out[-1].startswith("phi_sha256 ")


def test_the_confusions_at_the_end_of_a_run_are_those_of_its_test(finished):
    ran, run = finished
    table = ran.stdout.partition("rows are true, columns predicted.\n")[2].splitlines()[1:11]
    counts = np.array([[int(n) for n in line.split()[1:]] for line in table])
    accuracy = events_of(run, "test")[0]["test_accuracy"]
    assert counts.shape == (10, 10) and counts.sum() == 360
    assert counts.trace() / 360 == pytest.approx(accuracy)


@pytest.mark.parametrize("build, trust", [("mlp", ""), ("my run/mine.py:net", " --trust")])
def test_what_to_do_next_is_quoted_and_trusts_code_of_ones_own(build, trust, monkeypatch):
    run, enter = Path("my run"), "source .venv/bin/activate"
    monkeypatch.setattr("dpedf.run.last_lines.find_spec", lambda name: name == "matplotlib")
    training = Timed(1000)
    training.settings = SimpleNamespace(
        model={"build": build}, run=SimpleNamespace(check_nan=False, tensorboard=bool(trust))
    )
    training.directory = SimpleNamespace(given=run)
    training.saves.best_step, training.saves.best = 50, 1.25e23
    kept, following, *board = last_lines(training)
    assert board == ["in TensorBoard: tensorboard --logdir ."] * bool(trust)
    assert kept.endswith("best.h5 (step 50, valid loss 1.25e+23)")
    commands = f"dpedf evaluate '{run}'{trust}; dpedf plot '{run}'"
    assert following == f"next: {commands}"
    monkeypatch.setenv("DPEDF_ENTER", enter)
    assert last_lines(training)[1] == f"next: {enter}; {commands}"


# A run that goes on.


@pytest.fixture(scope="module")
def whole(python, digits, tmp_path_factory):
    """whole(*words): the directory of a run of models.py:interrupted that nothing interrupted."""
    folder, runs = tmp_path_factory.mktemp("whole"), {}
    (folder / "digits.toml").write_text(CONFIG.format(file=json.dumps(str(digits))))
    (folder / "models.py").write_text(MODELS)

    def of(*words):
        if words not in runs:
            run = runs[words] = folder / str(len(runs))
            ran = python("-m", "dpedf.train", "digits.toml", *words, f"run.dir={run}", cwd=folder)
            assert (ran.returncode, ran.stderr) == (0, "")
        return runs[words]

    return of


OFTEN = "model.build=models.py:interrupted", "train.eval_every=5", "train.checkpoint_every=4"


@pytest.mark.parametrize("slices", [0, 8])
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGUSR1, 75), (signal.SIGKILL, -9)], ids=["stopped", "killed"]
)
def test_a_run_that_was_interrupted_twice_ends_as_if_it_had_not_been(
    number, status, slices, train, run, whole
):
    words = *OFTEN, f"train.slices={slices}"
    told = {"SIGNAL": str(int(number))}
    for step, flags in (9, []), (22, ["--resume"]):  # amid an epoch, between two evaluations
        ran = train(*words, *flags, STEP=str(step), **told)
        assert (ran.returncode, ran.stderr) == (status, "")
        assert step - 4 < saved(run / "checkpoint.h5")["step"] < 42
    last = train(*words, "--resume")
    step = saved(run / "checkpoint.h5")["step"]
    assert last.returncode == 0 and "resumed" in last.stdout
    expected = whole(*words)
    assert untimed(run) == untimed(expected)
    assert step == 42 and saved(run / "checkpoint.h5") == saved(expected / "checkpoint.h5")
    assert saved(run / "best.h5") == saved(expected / "best.h5")


@pytest.mark.parametrize(
    ("optimizer", "momentum"), [("adam", 0), ("adamw", 0), ("rmsprop", 0), ("rmsprop", 0.9)]
)
def test_what_an_optimizer_remembers_is_kept_when_a_run_is_killed(
    optimizer, momentum, train, run, whole
):
    optimizer = f"train.optimizer={optimizer}", f"train.momentum={momentum}", "train.nesterov=false"
    words = *OFTEN, *optimizer, "train.learning_rate=0.003", "train.weight_decay=0.01"
    assert train(*words, STEP="9", SIGNAL="9").returncode == -9
    assert 0 < saved(run / "checkpoint.h5")["step"] <= 9
    assert train(*words, "--resume").returncode == 0
    expected = whole(*words)
    assert untimed(run) == untimed(expected)
    assert saved(run / "checkpoint.h5") == saved(expected / "checkpoint.h5")


def test_a_run_killed_before_its_first_checkpoint_starts_afresh_and_says_so(train, run, whole):
    words = *OFTEN, "train.slices=8"
    assert train(*words, STEP="3", SIGNAL="9").returncode == -9
    assert events_of(run)  # which the next run tells anew
    ran = train(*words, "--resume")
    assert ran.returncode == 0 and "no checkpoint" in ran.stdout and "afresh" in ran.stdout
    assert untimed(run) == untimed(whole(*words))


def test_to_resume_what_never_was_starts_afresh_and_says_so(train, run, finished):
    ran = train("--resume")
    assert "no checkpoint" in ran.stdout and "afresh" in ran.stdout
    assert phi_sha256(ran) == phi_sha256(finished[0])
    assert "afresh" not in finished[0].stdout


def test_to_resume_a_finished_run_does_nothing(train, run):
    assert train().returncode == 0
    before = contents(run)
    ran = train("--resume")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert contents(run) == before


def test_a_run_killed_before_its_test_is_tested_when_it_is_resumed(train, run, finished):
    assert train().returncode == 0
    *lines, last = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines) + last[: len(last) // 2])
    ran = train("--resume")
    assert phi_sha256(ran) == phi_sha256(finished[0])
    assert untimed(run) == untimed(finished[1])


def test_a_finished_run_may_go_on_for_longer_as_if_it_had_been_longer_from_the_first(train, run):
    constant = "train.schedule=constant"
    expected = train(constant, "train.epochs=4", "run.dir=long")
    assert train(constant).returncode == 0
    ran = train(constant, "train.epochs=4", "--resume")
    assert phi_sha256(ran) == phi_sha256(expected)
    assert untimed(run) == untimed(run.parents[1] / "long")
    assert len(events_of(run, "test")) == 1


def test_a_finished_run_cannot_be_stopped_by_being_shorter(train, run):
    assert train().returncode == 0
    ran = train("train.epochs=1", "--resume")
    assert ran.returncode in (0, 2)  # and not 75, which would ask for more of the same
    assert len(events_of(run, "test")) == 1


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("train.batch_size=32", "train.batch_size"),
        ("seed=2", "seed"),
        ("model.sizes=[64, 16, 10]", "model"),
    ],
)
def test_a_run_does_not_go_on_with_another(override, key, train, run):
    assert train("train.steps=3").returncode == 0
    before = contents(run)
    ran = train("train.steps=6", override, "--resume")
    assert_refused(ran, key)
    assert contents(run) == before


def test_a_run_does_not_go_on_with_other_rows_or_another_model_under_the_same_name(
    train, run, digits, tmp_path
):
    copy, models = tmp_path / "copy.h5", tmp_path / "models.py"
    copy.write_bytes(digits.read_bytes())
    words = "data.file=copy.h5", "model.build=models.py:interrupted"
    assert train(*words, "train.steps=3").returncode == 0
    before, text = contents(run), models.read_text()
    with h5py.File(copy, "a") as file:
        file["train/x"][...] = file["train/x"][...][::-1]
    assert_refused(train(*words, "train.steps=6", "--resume"), "checkpoint.h5", "the data is now")
    copy.write_bytes(digits.read_bytes())
    models.write_text(text.replace("self.ell = ell", "self.ell, self.rate = ell, 2"))
    assert_refused(train(*words, "train.steps=6", "--resume"), "the program is now", "rate = 2")
    assert contents(run) == before
    models.write_text(text)
    (tmp_path / "elsewhere.h5").write_bytes(digits.read_bytes())
    ran = train("data.file=elsewhere.h5", words[1], "train.steps=6", "--resume")
    assert ran.returncode == 0 and "data.file was 'copy.h5', is now" in ran.stdout
    assert "the learning rate of step 4 is" in ran.stdout  # the cosine had ended


def test_best_is_of_a_step_that_was_made_where_a_run_goes_on_with_another_rate(train, run):
    words = *OFTEN[:2], "train.checkpoint_every=12", "train.schedule=constant"
    assert train(*words, STEP="18", SIGNAL="9").returncode == -9
    gone = saved(run / "best.h5")
    assert gone["step"] == 15 > saved(run / "checkpoint.h5")["step"] == 12
    ran = train(*words, "train.learning_rate=0.0001", "train.steps=17", "--resume")
    assert ran.returncode == 0 and "train.learning_rate was 0.2, is now 0.0001" in ran.stdout
    evaluated = events_of(run, "eval")
    best, state = min(evaluated, key=lambda e: e["valid_loss"]), saved(run / "best.h5")
    assert (state["step"], state["best"]) == (best["step"], best["valid_loss"])
    assert hashlib.sha256(state["phi"]).hexdigest() == best["phi_sha256"]
    seconds = [e["seconds"] for e in evaluated]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize(("old", "new"), [(0, 0.9), (0.9, 0)])
def test_a_run_goes_on_with_another_momentum_or_is_refused(old, new, train):
    plain = "train.nesterov=false", "train.schedule=constant"
    assert train(*plain, f"train.momentum={old}", "train.steps=3").returncode == 0
    ran = train(*plain, f"train.momentum={new}", "train.steps=6", "--resume")
    if ran.returncode:
        assert_refused(ran, "train.momentum")


def test_a_checkpoint_may_be_due_by_time(train, run):
    words = *OFTEN[:-1], "train.checkpoint_every=1s"
    ran = train(*words, SLOW="3", STEP="12", SIGNAL="9")
    assert ran.returncode == -9
    assert 4 <= saved(run / "checkpoint.h5")["step"] <= 12


def test_the_checkpoint_before_the_last_is_an_earlier_one(train, run):
    train("train.epochs=0", "train.steps=12", "train.checkpoint_every=6")
    names = "checkpoint.previous.h5", "checkpoint.h5"
    assert [saved(run / name)["step"] for name in names] == [6, 12]


def test_a_checkpoint_is_due_every_so_many_steps(train, run):
    words = *OFTEN[:-1], "train.checkpoint_every=6"
    assert train(*words, STEP="17", SIGNAL="9").returncode == -9
    assert saved(run / "checkpoint.h5")["step"] == 12


class Noted(Saves):
    """at: the steps at which it saved."""

    def save(self, name, training):
        vars(self).setdefault("at", []).append(training.step.number)


class Timed(Training):
    """Its loop alone, of 100 steps that take a second each by a clock of its own."""

    def __init__(self, every):
        self.steps_per_epoch, self.last_step = 40, 100
        self.step = SimpleNamespace(number=0)
        self.ell, self.ranks, self.phi = (
            None,
            None,
            SimpleNamespace(skipped=np.zeros(1, int), value=np.zeros(1)),
        )
        self.settings = SimpleNamespace(train=SimpleNamespace(eval_every=0, checkpoint_every=every))
        self.saves = Noted(every, {})
        self.agreement = SimpleNamespace(stop=False, seconds=0.0, meet=self.meet)
        self.link = SimpleNamespace(raise_errors=lambda: None)
        self.report = SimpleNamespace(progress=lambda: None)

    def minibatches(self, epoch, first=0):
        return [(None, None, 8)] * (self.steps_per_epoch - first)

    def learn(self, x, y, B):
        self.step.number += 1

    def evaluate(self):
        pass

    def meet(self, step):
        self.agreement.seconds = float(self.step.number)
        return True


@pytest.mark.parametrize("every, step", [("15s", 15), ("1m", 60), (30, 30), (45, 45)])
def test_after_a_checkpoint_the_next_one_is_due_as_long_after_it(every, step):
    training = Timed(every)
    training.run()
    assert training.saves.at == [*range(step, 100, step), 100]  # at the end, too


def test_a_loss_of_validation_that_is_not_finite_chooses_no_best_h5_and_is_said():
    training, said = Timed(1000), []
    training.report.say = said.append
    for step, loss in enumerate([math.nan, 0.5, None, math.nan, -math.inf, math.inf, 0.4, 0.4], 1):
        training.step.number = step
        training.saves.compare(training, loss)
    assert training.saves.at == [2, 7] and training.saves.best == 0.4
    found = "the validation loss is {}, expected a finite one: best.h5 {}"
    assert said == [
        f"step {step}: {found.format(loss, stays)}"
        for step, loss, stays in [
            (1, "nan", "is not made yet"),
            (4, "nan", "stays that of step 2"),
            (5, "-inf", "stays that of step 2"),
            (6, "inf", "stays that of step 2"),
        ]
    ]


def test_samples_per_second_leave_out_what_is_no_training(monkeypatch):
    """20 rows in 4 seconds, with 30 seconds of evaluation before and a checkpoint of 9 after it."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("dpedf.run.report.time", clock)

    def last(seconds):
        clock.now += seconds
        return Found(0.5)

    training, events = Timed(1000), []
    training.ranks, training.saves = Ranks(), Saves(1000, {"best": 0.0})
    training.data, training.measured = SimpleNamespace(valid=None), lambda split: last(30)
    training.phi.sha256, training.step.take_losses = lambda: "", lambda: np.zeros(1)
    training.step.gradient = SimpleNamespace(losses=np.zeros(1))
    training.step.losses, training.step.state = np.zeros(1), dict
    training.step.expect_equal = lambda ranks: None
    training.directory = SimpleNamespace(
        event=lambda kind, **facts: events.append((kind, facts)),
        save=lambda name, phi, **state: last(9),
    )
    setup = SimpleNamespace(ranks=training.ranks, directory=training.directory)
    training.report = Report(setup, training.step, 100, 40)
    clock.now += 500  # of a trial of passes, and of a check of gradients
    with training.report.training():
        for rows in 10, 5:
            for _ in range(4):
                clock.now += 1
                training.report.learned(rows)
            training.saves.save("checkpoint.h5", training)
            Training.evaluate(training)
    training.report.train(0.1, None)
    rates = [(kind, facts["samples_per_second"]) for kind, facts in events]
    assert rates == [("eval", 10), ("eval", 5), ("train", 7.5)]
    assert [facts["seconds"] for kind, facts in events if kind == "eval"] == [543, 586]


DRAWS = """
from dpedf import models
from dpedf.edf import CompNode, context

class Looks(CompNode):
    def __init__(self, ell):
        self.ell = ell

    def forward(self):
        if context.train:
            print("seed", context.seed, "step", context.step)
        self.value = self.ell.value

    def backward(self):
        self.ell.addgrad(self.grad)

def looks(x, y, sizes):
    Q, ell = models.mlp(x, y, sizes)
    return Q, Looks(ell)
"""


def test_nodes_draw_by_the_seed_of_the_run_and_by_its_step(train, tmp_path):
    (tmp_path / "draws.py").write_text(DRAWS)
    words = "model.build=draws.py:looks", "seed=23", "train.slices=1"
    for steps, flags in ((0, 1), []), ((2, 3), ["--resume"]):
        ran = train(*words, f"train.steps={steps[-1] + 1}", "train.schedule=constant", *flags)
        looked = [line for line in ran.stdout.splitlines() if line.startswith("seed")]
        assert looked == [f"seed 23 step {step}" for step in steps], ran.stderr


# Trains, and before the third checkpoint, best.h5's or its own, fills the disk.
FILL = """
import sys
from dpedf import train
from dpedf.parallel import job
from dpedf.run import directory

save, saved = directory.save, []

def fill(path, phi, **state):
    saved.append(path)
    if len(saved) == 3:
        with open("filler", "wb", 0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
    save(path, phi, **state)

directory.save = fill
job.run(train.main, sys.argv[1:])
"""


def test_a_disk_that_fills_up_leaves_a_run_that_can_be_resumed(train, whole, on_a_small_disk):
    words = *OFTEN[1:], "train.slices=8"
    ran, kept = on_a_small_disk("-c", FILL, "../digits.toml", *words, "run.dir=run")
    assert ran.returncode == 1 and ran.stderr.count("\n") == 1
    assert ran.stderr.startswith("run/best.h5: No space left on device")
    assert not list(kept.glob("run/*.unfinished"))
    assert saved(kept / "run" / "checkpoint.h5")["step"] == 4
    assert train(*words, "--resume", f"run.dir={kept / 'run'}").returncode == 0
    assert untimed(kept / "run") == untimed(whole(*OFTEN, "train.slices=8"))


# Debugging.


def test_gradients_are_not_checked_in_float32(train):
    ran = train("run.check_gradients=true")
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1
    assert "float32" in ran.stderr and "float64" in ran.stderr


@pytest.fixture
def numbers(tmp_path):
    """numbers(x): a data file of x, (n, 3), and of y that follows from it."""

    def make(x):
        y = np.nan_to_num(x) @ [[1.0], [-2.0], [0.5]] - 3
        about = {"name": "a", "source": "b", "licence": "c"}
        write(tmp_path / "numbers.h5", **about, train=(x, y), test=(x[:9], y[:9]))

    return make


@pytest.fixture
def settings_of(train):
    """settings_of(build): the words for a model of models.py on the numbers."""

    def words(build, **keywords):
        keys = [f"build = 'models.py:{build}'", *(f"{k} = {v}" for k, v in keywords.items())]
        return f"model={{ {', '.join(keys)} }}", "data.file=numbers.h5", "data.valid=20"

    return words


def test_the_settings_for_debugging_pass_on_a_model_that_is_right(train, run):
    debug = "run.check_gradients=true", "run.check_nan=true", "train.precision=float64"
    plain = phi_sha256(train("train.precision=float64"))
    ran = train(*debug, "--overwrite")
    assert phi_sha256(ran) == plain
    found = r"gradients agree with finite differences: (\d+) numbers of (\d) parameters, 4 rows, "
    found = re.search(rf"{found}relative error up to (.*)\n", ran.stdout)
    assert 0 < float(found[3]) < 1e-6 and 0 < int(found[1]) <= 10 * int(found[2])
    assert "nan: every value and gradient" in ran.stdout
    assert f"nan: none in {saved(run / 'checkpoint.h5')['step']} steps" in ran.stdout


def test_a_loss_takes_few_characters_whatever_it_is():
    shown = {
        0.04712: "0.0471",
        0.0: "0.0000",
        2.30259: "2.3026",
        0.00099996: "0.001",
        93.79374: "93.7937",
        511.94421: "511.944",
        8298.9853: "8298.99",
        12345.678: "12345.7",
        123456.0: "1.235e+05",
    }
    shown |= {1.25e23: "1.25e+23", 123456789.0: "1.235e+08", 2e-9: "2e-09", 0.00012345: "0.0001234"}
    shown |= {-1.3e23: "-1.3e+23", math.nan: "nan", math.inf: "inf", -math.inf: "-inf"}
    assert {x: short(x) for x in shown} == shown


def test_a_model_whose_gradient_is_wrong_is_not_trained(train, run, numbers, settings_of):
    numbers(np.random.default_rng(0).normal(size=(100, 3)))
    words = *settings_of("wrong", hidden=4), "train.precision=float64"
    ran = train(*words, "run.check_gradients=true")
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1
    assert "Phi1.w" in ran.stderr and "finite differences" in ran.stderr
    assert not (run / "metrics.jsonl").exists() or not events_of(run, "train")


def test_a_model_that_begins_with_nan_is_not_trained(train, numbers, settings_of):
    numbers(np.ones((100, 3)))
    ran = train(*settings_of("blank"))
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1
    assert "models.py:blank: Phi1.w[0, 0] nan before the first step" in ran.stderr


def test_a_nan_is_named_with_the_node_that_made_it(train, numbers, settings_of):
    x = np.abs(np.random.default_rng(0).normal(size=(100, 3))) + 0.1
    x[57, 1] = -1
    numbers(x)
    words = *settings_of("rooted"), "run.check_nan=true", "data.valid=0"
    ran = train(*words, "train.batch_size=10")
    assert ran.returncode == 1
    assert "z1 = Root" in ran.stderr.splitlines()[-1] and "nan" in ran.stderr.splitlines()[-1]


def test_a_nan_in_the_data_is_named_before_an_old_run_is_overwritten(
    train, run, numbers, settings_of
):
    x = np.random.default_rng(0).normal(size=(100, 3))
    numbers(x)
    phi_sha256(train(*settings_of("linear"), "train.epochs=1"))
    before = contents(run)
    x[57, 1] = np.nan
    numbers(x)
    ran = train(*settings_of("linear"), "--overwrite")
    assert_refused(ran, "numbers.h5: train/x: nan in row 57")
    assert contents(run) == before


def test_a_model_of_a_users_file_learns_what_is_no_label(train, run, numbers, settings_of):
    numbers(np.random.default_rng(0).normal(size=(1000, 3)))
    words = *settings_of("linear"), "train.learning_rate=0.05", "train.epochs=10"
    ran = train(*words)
    assert ran.returncode == 0 and "accuracy" not in ran.stdout
    first, *_, last = events_of(run, "eval")
    assert first["valid_loss"] > 1e-3 > 1e-6 > last["valid_loss"]
    assert last["valid_accuracy"] is None
    (tested,) = events_of(run, "test")
    assert tested["test_loss"] < 1e-6 and tested["test_accuracy"] is None
    Phi = np.frombuffer(saved(run / "checkpoint.h5")["phi"], np.float32)
    np.testing.assert_allclose(Phi, [1, -2, 0.5, 3], 0, 1e-3)


# On a terminal.


def test_the_bar_is_shown_on_a_terminal_and_not_elsewhere(train, tmp_path, environment, finished):
    assert "%|" not in finished[0].stderr + finished[0].stdout
    command = [sys.executable, "-m", "dpedf.train", "digits.toml", "train.epochs=1"]
    how = {"stdout": subprocess.PIPE, "cwd": tmp_path, "env": environment}
    shown, out = at_a_terminal(command, 100, **how)
    assert "21/21" in shown and "loss" in shown  # that of the last steps
    assert "valid loss" in out and "21/21" not in out


def test_on_a_terminal_too_a_run_whose_output_nobody_reads_comes_to_its_end(
    train, tmp_path, environment
):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "dpedf.train", "digits.toml", "train.epochs=2"]
    shown, _ = at_a_terminal(command, 100, stdout=write, cwd=tmp_path, env=environment)
    os.close(write)
    assert "Error" not in shown
