"""What a run reports: lines, a bar, and the events of metrics.jsonl.  Rank 0 alone talks."""

import sys
import time
from contextlib import contextmanager

from tqdm import tqdm

from dpedf import __version__
from dpedf.device import host
from dpedf.errors import plural
from dpedf.parallel.equality import mixture
from dpedf.run.pointless import pointless

LINE_EVERY = 5  # seconds between lines of progress, where there is no bar


def introduce(setup, step, note):
    """Print the first lines: what runs where, from this step on.  note: about passes, or None."""
    ranks, data, settings = setup.ranks, setup.data, setup.settings
    train, path, split = settings.train, data.path, data.train
    learnt, held, tested = (f"{len(split):,}" for split in (data.train, data.valid, data.test))
    kept = {"none": "streamed", "memory": "in memory", "device": "on the device"}
    device, devices = data.device, set(ranks.gather(data.device.place))
    where = "cpu" if device.unit == "cpu" else f"{len(devices)} x {device.kind}"
    passes = cut(setup.gradient.passes, min(train.batch_size, len(split)))
    allreduce = "buckets" if setup.gradient.overlap else "whole"
    lines = [
        f"dpedf {__version__} on {plural(ranks.size, 'rank')}, {plural(ranks.hosts, 'host')}, "
        f"{where}, {plural(setup.threads, 'BLAS thread')} a rank "
        f"({setup.why_threads}), {ranks.mpi}",
        f"{path}: {learnt} rows to learn from, {held} to validate, {tested} to test, "
        f"{kept[settings.data.cache]}",
        f"{settings.model['build']}: {plural(len(setup.phi.value), 'parameter')}, "
        f"{train.precision}, {passes}, allreduce {allreduce}",
    ]
    if note:
        lines.append(f"{settings.model['build']}: {note}")
    lines += pointless(settings, data, ranks.size)
    if differing := mixture(ranks, setup.threads):
        lines.append(differing)
    if device.note:
        lines.append(f"{device.name}: {device.note}")
    if not data.train.global_shuffle:
        window = f"windows of {split.window * split.chunk:,} rows"
        lines.append(f"{path}: shuffled by chunks in {window}, which is not a global shuffle")
    lines += [*data.notes, *setup.directory.notes]
    if step:
        lines.append(f"resumed from {setup.directory.source} at step {step:,}")
    elif setup.resuming:
        lines.append(f"{setup.directory.path}: no checkpoint of a step to resume, starting afresh")
    ranks.say("\n".join(lines))


def cut(passes, B):
    """8 slices, 4 in a pass of 64 rows"""
    rows = plural(min(passes.rows(B), B), "row")
    if not passes.slices:
        return f"no slices, {rows} in a pass"
    return f"{plural(passes.slices, 'slice')}, {passes.together} in a pass of {rows}"


class Clock:
    """samples_per_second: examples a second of training, since it was last read.

    Neither evaluations nor checkpoints are timed, nor what is done before the first step.
    """

    def __init__(self):
        self.start()

    def start(self):
        self.rows, self.since = 0, time.monotonic()

    def read(self):
        rate = self.rows / (time.monotonic() - self.since)
        self.start()
        return round(rate, 1)


class Report:
    """Reports on a run of last_step steps, of which an epoch has steps_per_epoch.

    step.losses are added for each slice, then over slices: the same bits on any number of ranks.
    rows: training examples since the last evaluation, the same ones as in step.losses.
    """

    def __init__(self, setup, step, last_step, steps_per_epoch):
        self.ranks, self.directory, self.step = setup.ranks, setup.directory, step
        self.last_step, self.steps_per_epoch = last_step, steps_per_epoch
        self.rows, self.latest_loss = 0, ""
        self.clocks = self.since_event, self.since_evaluation = Clock(), Clock()
        self.began = self.said = time.monotonic()
        self.bar = tqdm(disable=True)

    def restore(self, state):
        """Go on from what state() returned, if that is there."""
        self.rows = state.get("rows", 0)
        self.began -= state.get("seconds", 0)

    def start(self):
        """Training starts now."""
        for clock in self.clocks:
            clock.start()
        seen = self.ranks.rank == 0 and self.ranks.shows_bar and sys.stderr.isatty()
        first = self.step.number
        self.bar = tqdm(total=self.last_step, initial=first, unit="step", disable=not seen)

    @contextmanager
    def aside(self):
        """What is done inside takes no time of training."""
        began = time.monotonic()
        yield
        for clock in self.clocks:
            clock.since += time.monotonic() - began

    @property
    def epoch(self):
        """The epoch of the last step, from 1."""
        return -(-self.step.number // self.steps_per_epoch)

    def say(self, line):
        if self.bar.disable:
            self.ranks.say(line)
        else:
            with self.bar.external_write_mode():  # above the bar
                self.ranks.say(line)

    def learned(self, B):
        """One more step was made, of B examples."""
        self.rows += B
        for clock in self.clocks:
            clock.rows += B
        self.bar.update()

    def train(self, B, eta, length):
        """Report the mean loss of this step's minibatch, and the length of its gradient."""
        loss = self.of_all_ranks(self.step.gradient.losses).sum().item() / B
        self.latest_loss = f", loss {loss:.4f}"
        self.bar.set_postfix_str(f"loss {loss:.4f}")
        self.directory.event(
            "train",
            **dict(step=self.step.number, epoch=self.epoch, loss=loss),
            **dict(learning_rate=eta, grad_norm=length),
            samples_per_second=self.since_event.read(),
        )

    def state(self):
        """What a checkpoint keeps: the losses of all ranks, of how many rows, and the seconds."""
        losses, seconds = self.of_all_ranks(self.step.losses), time.monotonic() - self.began
        return {"losses": losses, "rows": self.rows, "seconds": seconds}

    def of_all_ranks(self, losses):
        losses = host(losses).copy()
        self.ranks.add(losses)
        return losses

    def progress(self):
        """A line every few seconds."""
        now = time.monotonic()
        if self.bar.disable and now - self.said > LINE_EVERY:
            self.said = now
            at = f"epoch {self.epoch}, step {self.step.number} of {self.last_step}"
            self.say(at + self.latest_loss)

    def evaluated(self, loss, accuracy, sha256):
        """Report an evaluation, and the mean training loss before it."""
        train_loss = self.of_all_ranks(self.step.take_losses()).sum().item() / self.rows
        self.rows, self.said = 0, time.monotonic()
        rate = self.since_evaluation.read()
        self.directory.event(
            "eval",
            **dict(epoch=self.epoch, step=self.step.number, steps_per_epoch=self.steps_per_epoch),
            **dict(train_loss=train_loss, valid_loss=loss, valid_accuracy=accuracy),
            **dict(samples_per_second=rate, seconds=round(self.said - self.began, 3)),
            **dict(ranks=self.ranks.size, phi_sha256=sha256),
        )
        found = f", {described('valid', loss, accuracy)}" if loss is not None else ""
        at = f"epoch {self.epoch}, step {self.step.number}"
        self.say(f"{at}: train loss {train_loss:.4f}{found}, {rate:,.0f} rows/s")

    def tested(self, loss, accuracy, sha256):
        found = dict(test_loss=loss, test_accuracy=accuracy, phi_sha256=sha256)
        self.directory.event("test", step=self.step.number, **found)
        self.say(f"{described('test', loss, accuracy)}\nphi_sha256 {sha256}")


def described(rows, loss, accuracy):
    correct = "" if accuracy is None else f", {rows} accuracy {100 * accuracy:.2f} %"
    return f"{rows} loss {loss:.4f}{correct}"
