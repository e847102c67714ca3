"""The directory of a run: who may write there, its metrics, and what it goes on from."""

import fcntl
import json
from math import inf
from pathlib import Path

from dpedf.data.disk import replace
from dpedf.errors import UserError, one_line, print_error
from dpedf.run import config
from dpedf.run.checkpoint import load, save

FILES = "config.toml", "metrics.jsonl", "checkpoint.h5", "best.h5"


class RunDirectory:
    """The directory of a live run.  Rank 0 alone reads and writes it."""

    def __init__(self, path, ranks):
        self.path, self.writes = Path(path), ranks.rank == 0

    def claim(self, may_hold_a_run):
        """Make the directory ours.  UserError: it holds a run, or a live job writes there."""
        if not self.writes:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock = open(self.path / ".lock", "w")  # locked as long as it is open
        except OSError as error:
            raise UserError(
                f"{self.path}: {one_line(error)}, expected a writable directory"
            ) from None
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{self.path}: a live job trains there, expected none") from None
        except OSError as error:  # as on many shared file systems
            print_error(f"{self.path}: {one_line(error)}: nothing would keep a second job away")
        if not may_hold_a_run and any((self.path / name).exists() for name in FILES):
            raise UserError(f"{self.path}: holds a run, expected none, or --resume or --overwrite")

    def save(self, name, phi, **state):
        if self.writes:
            save(self.path / name, phi, **state)

    def resume(self, phi, settings):
        """Set phi from checkpoint.h5, and return the rest of its state; {} where there is none.

        "tested" in the state: did the run come to its end?
        """
        if not self.writes or not (self.path / "checkpoint.h5").exists():
            return {}
        if (self.path / "config.toml").exists():
            config.expect_resumable(config.load(self.path / "config.toml"), settings)
        state = load(self.path / "checkpoint.h5", phi)
        last = ("test", state["step"])
        return state | {"tested": last in [(e["event"], e["step"]) for e in self.events()]}

    def events(self):
        """The events of metrics.jsonl, up to a line that a crash cut short."""
        file, events = self.path / "metrics.jsonl", []
        for event in file.read_text().splitlines() if file.exists() else ():
            try:
                events.append(json.loads(event))
            except ValueError:
                break
        return events

    def begin(self, settings, step):
        """Write config.toml, and keep the metrics up to this step; at step 0, keep no file."""
        if self.writes:
            kept = [e for e in self.events() if e["step"] <= step and e["event"] != "test"]
            for name in FILES if step == 0 else ():
                (self.path / name).unlink(missing_ok=True)
            replace(self.path / "config.toml", config.text(settings).encode())
            lines = "".join(json.dumps(event) + "\n" for event in kept)
            replace(self.path / "metrics.jsonl", lines.encode())
            self.metrics = open(self.path / "metrics.jsonl", "a", buffering=1)

    def event(self, kind, **values):
        """Append one line to metrics.jsonl, with null for nan and infinity."""
        if self.writes:
            numbers = {k: None if v != v or v in (inf, -inf) else v for k, v in values.items()}
            self.metrics.write(json.dumps({"event": kind, **numbers}) + "\n")
