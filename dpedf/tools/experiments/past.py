"""Runs as they lie on a disk: what each of them has left, whoever made it.  No Phi is read."""

import os
import re
from pathlib import Path

from dpedf.data.disk import expect_regular
from dpedf.errors import UserError, one_line
from dpedf.optim import last_step
from dpedf.run import config, metrics
from dpedf.run.checkpoint import glance, looks_whole
from dpedf.run.directory import CHECKPOINT, FAILURE, METRICS
from dpedf.run.lock import live
from dpedf.run.measures import measured
from dpedf.run.metrics import count, number

OF_A_RUN = "config.toml", METRICS, CHECKPOINT  # one of them makes a directory that of a run
MOST_SAID = 300  # characters of a failure


class PastRun:
    """A run in a directory, live or not.

    settings: its Config, None where that cannot be read.
    step: of its last event, or of its checkpoint.  last_step: at which it ends, None where that is
    not known.  valid_loss, valid_accuracy: at the lowest loss so far.  test_loss, test_accuracy.
    since_best: evaluations since the lowest loss.
    measured: {"valid": {"r2": number}}, metrics and parts, at the lowest loss; {"test": ...}.
    seconds, ranks: of its last evaluation, or of its checkpoint.  Each is None where there is none.
    status: "finished", it was tested at its end; "live", a job trains it; "failed", an error has
    ended it; "stopped", it can be resumed; "damaged", it cannot.
    note: a line on why, or "".
    """

    def __init__(self, path):
        self.path, self.settings, self.note = Path(path), None, ""
        self.last_step = self.tested = None
        self.valid_loss = self.valid_accuracy = self.test_loss = self.test_accuracy = None
        self.measured = {"valid": {}, "test": {}}
        self.status = "live" if live(path) else None  # before what it may be writing meanwhile
        kept = glance(self.path / CHECKPOINT)
        self.step, self.per_epoch = count(kept.get("step")) or 0, count(kept.get("steps_per_epoch"))
        self.since_best = count(kept.get("since_best")) or 0
        self.seconds, self.ranks = number(kept.get("seconds")), count(kept.get("ranks"))
        try:
            self.settings = settings_in(self.path / "config.toml")
            self.read_events()
        except UserError as error:
            self.note = str(error).removeprefix(f"{self.path}/")
        self.status = self.status or self.judged()

    def read_events(self):
        """UserError: metrics.jsonl is there, but cannot be read."""
        file, kept = self.path / METRICS, self.step
        try:
            for event in metrics.glance(file):
                self.step = max(self.step, count(event["step"]) or 0)
                if event["event"] == "eval":
                    self.take_evaluation(event, newer=event["step"] >= kept)
                elif event["event"] == "test":
                    self.tested = event["step"]
                    self.test_loss = number(event.get("test_loss"))
                    self.test_accuracy = number(event.get("test_accuracy"))
                    self.take_measured("test", event)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise UserError(f"{file}: {one_line(error)}, expected the metrics of a run") from None
        train = self.settings.train
        if self.per_epoch or not train.epochs:
            self.last_step = last_step(train, train.batch_size * (self.per_epoch or 0))

    def take_evaluation(self, event, newer):
        """newer: than the checkpoint."""
        self.per_epoch = count(event.get("steps_per_epoch")) or self.per_epoch
        loss = number(event.get("valid_loss"))
        if loss is not None and (self.valid_loss is None or loss < self.valid_loss):
            self.valid_loss, self.valid_accuracy = loss, number(event.get("valid_accuracy"))
            self.take_measured("valid", event)
        if newer:
            seconds, self.ranks = number(event.get("seconds")), count(event.get("ranks"))
            self.seconds = None if seconds is None or seconds < 0 else seconds

    def take_measured(self, rows, event):
        found = measured(rows, event)
        self.measured[rows] = {name: its for name, its in found.items() if number(its) is not None}

    def judged(self):
        """The status of a run that is not live."""
        if self.note:
            return "damaged"
        early = 0 < self.settings.train.patience <= self.since_best
        end = self.step if early else self.last_step or self.step
        if self.tested is not None and self.tested == end:
            return "finished"
        if os.path.lexists(self.path / FAILURE):
            self.note = said(self.path / FAILURE)
            return "failed"
        if looks_whole(self.path / CHECKPOINT):
            return "stopped"
        self.note = f"{CHECKPOINT}: not whole, or not there, expected one to resume from"
        return "damaged"


def settings_in(file):
    """The Config of a run.  UserError: its file is not there, or is none."""
    if not os.path.lexists(file):
        raise UserError(f"{file}: not there, expected the settings of the run")
    return config.load(file)


def said(file):
    """The line that a run has left in failure.txt."""
    try:
        expect_regular(file)
        with open(file, errors="replace") as failure:
            return " ".join(failure.read(MOST_SAID).split())
    except OSError as error:
        return f"{file}: {one_line(error)}"


def holds_run(path):
    return any(os.path.lexists(os.path.join(path, name)) for name in OF_A_RUN)


def runs_in(directory):
    """The PastRuns in a directory and below it, in the order of their names.

    UserError: there is no such directory.
    """
    found = []

    def refuse(error):
        if Path(error.filename) == Path(directory):
            what = f"{one_line(error)}, expected a directory with runs"
            raise UserError(f"{directory}: {what}; dpedf train CONFIG makes one in runs")

    for path, folders, files in os.walk(directory, onerror=refuse):
        folders.sort()
        if {*OF_A_RUN} & {*files}:
            found.append(PastRun(path))
    return sorted(found, key=lambda run: in_order(str(run.path)))


def named(path):
    """The runs that a path names: itself, or where it holds none, those below it, if any.

    One that has made no step yet, or failed before, is left out.
    """
    within = Path(path).is_dir() and not holds_run(path)
    return [run.path for run in runs_in(path) if run.step] or [path] if within else [path]


def in_order(name):
    """A key by which run-2 comes before run-10, and rate=1e-3 before rate=0.02."""
    parts = re.split(r"([0-9]+(?:\.[0-9]+)?(?:e-?[0-9]+)?)", name)
    return [float(part) if k % 2 else part for k, part in enumerate(parts)]
