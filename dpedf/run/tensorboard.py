"""The curves of a run for TensorBoard: an event file with the numbers of metrics.jsonl."""

import os
import time
from weakref import finalize

from dpedf.data.disk import no_link, writing
from dpedf.errors import extra
from dpedf.run.measures import measured

BEGINS, ENDS = "events.out.tfevents.", ".dpedf"  # of its name; TensorBoard looks for "tfevents"

# What of each kind of event is a curve, and its name there.
CURVES = {
    "train": {
        "loss": "train/loss",
        "learning_rate": "train/learning_rate",
        "grad_norm": "train/grad_norm",
        "samples_per_second": "samples_per_second",
    },
    "eval": {
        "train_loss": "train/mean_loss",  # since the evaluation before
        "valid_loss": "valid/loss",
        "valid_accuracy": "valid/accuracy",
    },
    "test": {"test_loss": "test/loss", "test_accuracy": "test/accuracy"},
}


def expect_writer():
    """UserError: what writes event files is missing."""
    with extra("tensorboard", "run.tensorboard = true"):
        import tensorboard.compat.proto.event_pb2
        import tensorboard.summary.writer.record_writer  # noqa: F401


def event_files(directory):
    """Those that runs have written there; not those of others."""
    return sorted(directory.glob(f"{BEGINS}*{ENDS}"))


class EventFile:
    """The event file of a live run, which begins with the events so far.

    A run that goes on writes another one, from metrics.jsonl, and then removes those before it: no
    point stands there twice, and none that was lost with a step.  At the START of a session
    TensorBoard forgets what it has read of them.  The time of a point is that of its writing.
    RunError: the disk cannot be written.
    """

    def __init__(self, directory, events):
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        older = event_files(directory)
        self.path = directory / f"{BEGINS}{time.time_ns()}{ENDS}"
        with writing(self.path):
            self.file = open(self.path, "xb", opener=no_link)
            finalize(self, self.file.close)
            self.records = RecordWriter(self.file)
            self.write(file_version="brain.Event:2")
            self.write(session_log=SessionLog(status=SessionLog.START), step=0)
        for event in events:
            self.add(event)
        self.sync()
        with writing(directory):
            for file in older:
                file.unlink()

    def add(self, event):
        """Write the numbers of an event, nan and infinity too."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        curves = CURVES[event["event"]]
        found = {
            name: event[key] for key, name in curves.items() if isinstance(event.get(key), float)
        }
        for rows in "valid", "test":
            found |= {f"{rows}/{name}": its for name, its in measured(rows, event).items()}
        values = [Summary.Value(tag=name, simple_value=number) for name, number in found.items()]
        with writing(self.path):
            self.write(step=event["step"], summary=Summary(value=values))
            self.file.flush()  # who looks on sees it at once

    def write(self, **fields):
        from tensorboard.compat.proto.event_pb2 import Event

        self.records.write(Event(wall_time=time.time(), **fields).SerializeToString())

    def sync(self):
        """Wait until all of it is on the disk."""
        with writing(self.path):
            self.file.flush()
            os.fsync(self.file.fileno())
