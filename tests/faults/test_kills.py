"""Runs that are killed again and again, and resumed on other numbers of ranks."""

import json
import os
import signal
import time
from pathlib import Path
from random import Random

import h5py
import pytest
from launcher import LIMIT, ROOT, phi_sha256, start, train

WORDS = (
    *("model.sizes=[64,256,10]", "train.epochs=1000000", "train.schedule=constant"),
    *("train.checkpoint_every=20", "run.log_every=10"),
)


def descendants(pid):
    """The processes that a process has started, and those that they have."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        if parent == pid:
            child = int(status.parent.name)
            yield from [child, *descendants(child)]


def strike(job, random):
    """Kill a job's launcher, one of its processes or all of them, or tell the job to stop."""
    processes = [job.pid, *descendants(job.pid)]
    kind = random.choice(["launcher", "one", "all", "stop"])
    if kind == "stop":
        job.send_signal(signal.SIGUSR1)
    else:
        struck = {"launcher": processes[:1], "one": [random.choice(processes)], "all": processes}
        for process in struck[kind]:
            if Path(f"/proc/{process}").exists():
                os.kill(process, signal.SIGKILL)
    job.communicate(timeout=LIMIT)
    began = time.monotonic()
    while any(Path(f"/proc/{process}").exists() for process in processes):
        assert time.monotonic() - began < LIMIT, "a process outlives its job"
        time.sleep(0.01)


def steps_of(directory, kind):
    """The steps of the events of a kind, as they stand in metrics.jsonl."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [event["step"] for event in map(json.loads, lines) if event["event"] == kind]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_been(kills, digits, tmp_path):
    random, run, step = Random(kills), tmp_path / "run", 0
    arguments = [ROOT / "configs" / "digits_mlp.toml", f"data.file={digits}", *WORDS]
    for _ in range(kills):
        n = random.choice([1, 2, 3, 4])
        job = start(n, "-m", "dpedf.train", *arguments, f"run.dir={run}", "--resume")
        time.sleep(random.uniform(0, 3))
        strike(job, random)
        if (run / "checkpoint.h5").exists():
            with h5py.File(run / "checkpoint.h5") as checkpoint:
                assert step <= checkpoint.attrs["step"]
                step = int(checkpoint.attrs["step"])
    last = f"train.steps={step + 15}"
    whole = train(2, *arguments, f"run.dir={tmp_path / 'whole'}", last)
    assert phi_sha256(train(1, *arguments, f"run.dir={run}", last, "--resume")) == phi_sha256(whole)
    for kind in "train", "eval", "test":
        assert steps_of(run, kind) == steps_of(tmp_path / "whole", kind)
