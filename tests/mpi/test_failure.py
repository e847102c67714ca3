"""It ends: whatever happens to one rank, and whatever the user gave."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import h5py
import pytest
from launcher import (
    ENVIRONMENT,
    LIMIT,
    ROOT,
    assert_timeout_ends,
    mpirun,
    phi_sha256,
    start,
    start_watched,
    train,
)
from trainings import PROGRAM as TRAININGS

DIGITS = ROOT / "configs" / "digits_mlp.toml"
FAULTS = {
    "raises": "raise RuntimeError('a fault of this test')",
    "leaves with status 0": "sys.exit(0)",
    "leaves with status 1": "sys.exit(1)",
    "is ended by the operating system": "os.kill(os.getpid(), signal.SIGKILL)",
    "touches memory that is not its own": "ctypes.string_at(0)",
    "exits at once": "os._exit(3)",
    "fails in a thread": "threading.Thread(target=lambda: 1 / 0).start()",
    "fails in the loader's thread": "np.take = None",
}
MODEL = """
import ctypes, os, signal, sys, threading
import numpy as np
from dpedf import models
from dpedf.parallel.ranks import Ranks
from dpedf.edf import CompNode, context

class Fault(CompNode):
    def __init__(self, x):
        self.x = x
    def forward(self):
        self.value = self.x.value
        if context.step == 20 and os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK")) == "1":
            {fault}
    def backward(self):
        self.x.addgrad(self.grad)

def faulty(x, y, sizes, activation="relu"):
    Q, ell = models.mlp(x, y, sizes, activation)
    return Q, Fault(ell)
"""  # noqa: E501


def settings(digits, directory, *more):
    return [DIGITS, f"data.file={digits}", f"run.dir={directory}", *more]


# What is promised where the machine has nothing else to do, and what a busy one is given.
in_time = pytest.mark.parametrize("limit", [LIMIT, pytest.param(5, marks=pytest.mark.slow)])


@in_time
@pytest.mark.parametrize("what", FAULTS)
def test_a_rank_that_fails_ends_the_job_in_time(digits, tmp_path, what, limit):
    model = tmp_path / "model.py"
    model.write_text(MODEL.format(fault=FAULTS[what]))
    more = f"model.build={model}:faulty", "train.epochs=1000000", "run.log_every=1"
    job = start(3, "-m", "dpedf.train", *settings(digits, tmp_path / "run", *more))
    metrics = tmp_path / "run" / "metrics.jsonl"
    while job.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= 20):
        time.sleep(0.01)
    began = time.monotonic()
    job.communicate(timeout=LIMIT)
    assert time.monotonic() - began < limit
    assert job.returncode not in (0, 2, 75)


@in_time
def test_a_rank_that_is_killed_ends_the_job_in_time(digits, tmp_path, limit):
    job, ranks = start_watched(3, *settings(digits, tmp_path))
    began = time.monotonic()
    os.kill(ranks[-1], signal.SIGKILL)
    job.communicate(timeout=LIMIT)
    assert time.monotonic() - began < limit
    assert job.returncode not in (0, 2, 75)


@in_time
def test_a_rank_that_is_stopped_ends_the_job_after_the_timeout(digits, tmp_path, limit):
    assert_timeout_ends(3, *settings(digits, tmp_path), limit=limit)


WRONG = {
    "a missing config": (["configs/no.toml"], "configs/no.toml"),
    "an unknown key": ([DIGITS, "train.batchsize=3"], "batchsize"),
    "a wrong type": ([DIGITS, "train.batch_size=many"], "batch_size"),
    "an impossible value": ([DIGITS, "train.batch_size=0"], "batch_size"),
    "no config at all": ([], "CONFIG"),
    "a missing data file": ([DIGITS, "data.file=data/no.h5"], "data/no.h5"),
    "a model that does not fit": (["model.sizes=[63,10]"], "63"),
    "a run directory that cannot be": (["run.dir=/proc/no/run"], "/proc/no/run"),
    "no GPU": (["run.device=gpu"], "gpu"),
}


@pytest.fixture(scope="module")
def refused(digits, tmp_path_factory):
    """refused(what): what 3 ranks, in one job for all, say of it on stdout, and on stderr."""
    folder = tmp_path_factory.mktemp("wrong")

    def words_of(what):
        arguments, _ = WRONG[what]
        if arguments and arguments[0] not in (DIGITS, "configs/no.toml"):
            arguments = settings(digits, folder / "run", *arguments)
        return list(map(str, arguments))

    (folder / "runs.json").write_text(json.dumps([*map(words_of, WRONG)]))
    done = mpirun(3, TRAININGS, folder / "runs.json")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    said = re.findall(r"(run \d+\n(?:(?!run ).*\n)*)", done.stdout)
    lines = done.stderr.splitlines()
    assert len(said) == len(lines) == len(WRONG), done.stdout + done.stderr
    return dict(zip(WRONG, zip(said, lines, strict=True), strict=True)).get


@pytest.mark.parametrize("what", WRONG)
def test_a_users_error_is_one_line_and_status_2_once(refused, what):
    said, line = refused(what)
    assert said.splitlines()[1:] == ["status 2"]
    assert WRONG[what][1] in line


def test_a_users_error_is_the_status_of_the_job(digits, tmp_path):
    wrong = settings(digits, tmp_path / "run", "train.batch_size=0")
    done = mpirun(3, "-m", "dpedf.train", *wrong)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("batch_size") == done.stderr.count("\n") == 1


def test_an_error_that_one_rank_alone_meets_is_everyones(digits, tmp_path):
    """Rank 1 is given another file, as where a host lacks it."""
    common = settings(digits, tmp_path / "run")[2:]
    train_it = ["-m", "dpedf.train", DIGITS, *common]
    here, there = f"data.file={digits}", "data.file=data/elsewhere.h5"
    done = mpirun(1, *train_it, here, ":", *another(train_it, there))
    assert done.returncode == 2
    assert done.stderr.count("data/elsewhere.h5") == 1


def test_ranks_of_other_settings_or_models_stop_with_one_line(digits, tmp_path):
    train_it = ["-m", "dpedf.train", *settings(digits, tmp_path / "run")]
    for one, other in (
        ("train.learning_rate=0.1", "train.learning_rate=0.2"),
        ("model.sizes=[64,32,10]", "model.sizes=[64,33,10]"),
    ):
        done = mpirun(1, *train_it, one, ":", *another(train_it, other))
        assert done.returncode == 2, done.stderr
        ours = [line for line in done.stderr.splitlines() if "rank 1 has" in line]
        assert len(ours) == 1, done.stderr


def another(*arguments):
    """The words that add a rank with a command line of its own."""
    train_it, *more = arguments
    return ["-n", "1", sys.executable, *train_it, *more]


def test_help_is_printed_once_and_is_no_error():
    done = mpirun(3, "-m", "dpedf.train", "--help")
    assert done.returncode == 0
    assert done.stdout.count("CONFIG") >= 1
    assert done.stdout.count("Train a model") == 1


def test_a_job_told_to_stop_goes_on_elsewhere_as_if_nothing_had_been(digits, tmp_path):
    """SIGUSR1 to mpirun: status 75 and a checkpoint; then more and fewer ranks finish it."""
    parts, step = tmp_path / "parts", 0
    more = "train.epochs=1000000", "train.schedule=constant", "run.log_every=1"
    arguments = settings(digits, parts, *more)
    for n in 2, 3:
        job = start(n, "-m", "dpedf.train", *arguments, "--resume")
        wait_for_step(job, parts, step + 30)
        job.send_signal(signal.SIGUSR1)
        job.communicate(timeout=LIMIT)
        assert job.returncode == 75
        with h5py.File(parts / "checkpoint.h5") as file:
            step = int(file.attrs["step"])
    last = f"train.steps={step + 30}"
    expected = train(2, *settings(digits, tmp_path / "whole", *more, last))
    assert phi_sha256(train(1, *arguments, last, "--resume")) == phi_sha256(expected)


def wait_for_step(job, directory, step):
    """Until it is in metrics.jsonl."""
    metrics = directory / "metrics.jsonl"
    while not metrics.exists() or f'"train", "step": {step},' not in metrics.read_text():
        assert job.poll() is None, job.communicate()
        time.sleep(0.01)


@pytest.mark.parametrize("which", [0, -1])
def test_one_rank_that_is_told_to_stop_stops_all(digits, tmp_path, which):
    job, ranks = start_watched(3, *settings(digits, tmp_path, f"run.timeout={LIMIT}"))
    try:
        os.kill(ranks[which], signal.SIGUSR1)
        out, err = job.communicate(timeout=LIMIT)
    finally:
        job.kill()
    assert job.returncode == 75, out + err
    assert (tmp_path / "checkpoint.h5").exists() and "to go on with --resume" in out


WAITS = """
from dpedf.errors import UserError
from dpedf.parallel import job

def main(ranks):
    if ranks.rank == {}:
        raise UserError("a = 1, expected 2")
    ranks.wait()

job.run(main)
"""


@pytest.mark.parametrize("rank", [0, 2])
def test_a_users_error_that_one_rank_alone_knows_ends_those_that_wait_with_status_2(rank):
    done = mpirun(3, "-c", WAITS.format(rank))
    assert done.returncode == 2 and done.stderr.count("a = 1, expected 2") == 1, done.stderr
    assert "Traceback" not in done.stderr


def test_ranks_that_find_other_data_stop_with_one_line(digits, tmp_path):
    """Each host has a file of that name, but not the same one."""
    for name, rows in ("here", 1437), ("there", 900):
        (tmp_path / name).mkdir()
        with h5py.File(digits) as whole, h5py.File(tmp_path / name / "digits.h5", "w") as part:
            part.attrs.update(whole.attrs)
            for dataset in "train/x", "train/y", "test/x", "test/y":
                part[dataset] = whole[dataset][:rows]
    train_it = ["-m", "dpedf.train", DIGITS, f"run.dir={tmp_path}/run", "data.file=digits.h5"]
    here, there = (["-wdir", str(tmp_path / name)] for name in ("here", "there"))
    job = ["mpirun", *here, "-n", "1", sys.executable, *map(str, train_it)]
    job += [":", *there, "-n", "1", sys.executable, *map(str, train_it)]
    done = subprocess.run(job, capture_output=True, text=True, timeout=LIMIT, env=ENVIRONMENT)
    assert done.returncode == 2, done.stderr
    assert len([line for line in done.stderr.splitlines() if "the data: rank 1 has" in line]) == 1


STOPS = """
import os, signal
from dpedf import models
from dpedf.edf import CompNode
from dpedf.ops import LogLoss

class Stop(CompNode):
    def __init__(self, x):
        self.x = x
    def forward(self):
        self.value = self.x.value
        rank = os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK"))
        if rank == os.environ.get("STOPPED", "none"):
            print("stops", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
    def backward(self):
        self.x.addgrad(self.grad)

def stopping(x, y, sizes, activation="relu"):
    Q = Stop(models.mlp(x, y, sizes, activation)[0])
    return Q, LogLoss(Q, y)
"""


@pytest.mark.slow
@pytest.mark.parametrize("by", ["its timeout", "Ctrl-C"])
def test_a_tool_of_which_a_rank_is_stopped_ends(digits, tmp_path, by):
    model, run = tmp_path / "model.py", tmp_path / "run"
    model.write_text(STOPS)
    more = f"model.build={model}:stopping", f"run.timeout={3 if by == 'its timeout' else 600}"
    train(1, *settings(digits, run, "train.epochs=1", *more))
    out = tmp_path / "out.csv"
    for words in ["evaluate", run], ["predict", run, digits, "--split", "test", "-o", out]:
        stopped = {"env": ENVIRONMENT | {"STOPPED": "1"}}
        job = start(3, "-m", "dpedf", *words, "--trust", **stopped)
        assert "stops" in job.stdout.readline()
        if by == "Ctrl-C":
            job.send_signal(signal.SIGINT)
        _, err = job.communicate(timeout=60)
        assert job.returncode not in (0, 2, 75)
        said = "rank 1 not running" if by == "its timeout" else "stopped by Ctrl-C"
        assert said in err, err
    assert not out.exists()
