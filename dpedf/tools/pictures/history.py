"""How a run went, as its metrics.jsonl tells it: what was measured, and when."""

from pathlib import Path

import numpy as np

from dpedf.errors import UserError, one_line
from dpedf.run import metrics
from dpedf.run.directory import METRICS
from dpedf.run.metrics import count, number

DRAWN = 1e100  # larger numbers no picture can show


class History:
    """The events of a run, by kind: trained, evaluated, and tested, of which there is one or none.

    axes: what it may be drawn over, of "step", "epoch" and "time".
    notes: lines on what is damaged.  UserError: there is no run, or nothing has happened yet.
    """

    def __init__(self, run):
        self.run, self.path = Path(run), Path(run) / METRICS
        if not self.run.is_dir():
            raise UserError(f"{run}: no such directory, expected that of a run, such as runs/mnist")
        try:
            events, self.notes = metrics.read(self.path)
        except OSError as error:
            raise UserError(f"{self.path}: {one_line(error)}, expected those of a run") from None
        if not events:
            raise UserError(f"{self.path}: no event yet, expected a run that has reported some")
        kinds = {kind: [e for e in events if e["event"] == kind] for kind in metrics.KINDS}
        self.trained, self.evaluated, self.tested = (
            kinds["train"],
            kinds["eval"],
            kinds["test"][-1:],
        )
        lengths = [count(e.get("steps_per_epoch")) for e in self.evaluated]
        lengths = [length for length in lengths if length]
        self.steps_per_epoch = lengths[0] if lengths else None  # older versions did not tell it
        timed = any(number(e.get("seconds")) is not None for e in self.evaluated)
        self.axes = ["step", *["epoch"] * bool(lengths), *["time"] * timed]

    def curve(self, key, by):
        """(x, y), two arrays: what evaluations found under this key.

        Before the second evaluation, train_loss is the loss of single minibatches.
        """
        if key == "train_loss" and len(self.evaluated) < 2 and self.trained and by != "time":
            return self.drawn(self.trained, "loss", by)
        return self.drawn(self.evaluated, key, by)

    def test(self, key, by):
        """(x, y), of no point or of one: what the test found."""
        x, y = self.drawn(self.tested, key, by)
        if by == "time":  # the test has none; it follows the last evaluation
            x = self.drawn(self.evaluated, key, by)[0][-1:][: len(y)]
        return x, y

    def drawn(self, events, key, by):
        """(x, y): what events have by this key; nan, which is not drawn, where it is no number."""

        def numbers(key):
            found = np.array([number(e.get(key)) for e in events], np.float64)  # nan for None
            return np.where(np.abs(found) < DRAWN, found, np.nan)

        x = numbers("seconds" if by == "time" else "step")
        return x / self.steps_per_epoch if by == "epoch" else x, numbers(key)
