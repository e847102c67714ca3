"""What a run says of itself: lines, a bar, metrics.jsonl.  Rank 0 alone talks."""

import sys
import time

import numpy as np
from tqdm import tqdm

from dpedf import __version__
from dpedf.device import host, overwrite
from dpedf.errors import counted

LINE_EVERY = 5  # seconds between lines of progress, where there is no bar


def introduce(start, step):
    """The first lines: what runs where, from this step on."""
    ranks, data, settings = start.ranks, start.data, start.settings
    train, path, split = settings.train, data.path, data.train
    learnt, held, tested = (f"{len(split):,}" for split in (data.train, data.valid, data.test))
    places = {"none": "streamed", "memory": "in memory", "device": "on the device"}
    kept = places[settings.data.cache]
    device, places = data.device, ranks.gather(data.device.place)
    where = "cpu" if device.unit == "cpu" else f"{len(set(places))} x {device.kind}"
    allreduce = "buckets" if start.gradient.overlap else "whole"
    lines = [
        f"dpedf {__version__} on {counted(ranks.size, 'rank')}, {counted(ranks.hosts, 'host')}, "
        f"{where}, {counted(start.threads, 'BLAS thread')} a rank, {ranks.mpi}",
        f"{path}: {learnt} rows to learn from, {held} to validate, {tested} to test, {kept}",
        f"{settings.model['build']}: {counted(len(start.phi.value), 'parameter')}, "
        f"{train.precision}, {counted(train.slices, 'slice')}, allreduce {allreduce}",
    ]
    if device.note:
        lines.append(f"{device.name}: {device.note}")
    if not data.train.global_shuffle:
        window = f"windows of {split.window * split.chunk:,} rows"
        lines.append(f"{path}: shuffled by chunks in {window}, which is not a global shuffle")
    if step:
        lines.append(f"resumed from {settings.run.dir}/checkpoint.h5 at step {step:,}")
    elif start.resuming:
        lines.append(f"{settings.run.dir}: no checkpoint to resume from, starting afresh")
    ranks.say("\n".join(lines))


class Clock:
    """Examples a second since it was last read."""

    def __init__(self):
        self.rows, self.since = 0, time.monotonic()

    def read(self):
        now = time.monotonic()
        rate = self.rows / (now - self.since)
        self.rows, self.since = 0, now
        return round(rate, 1)


class Report:
    """Of a run of so many steps.

    Losses are added by step for each slice, then over slices: the same bits on any number of
    ranks.  losses, (V,), and rows are those since the last evaluation.
    """

    def __init__(self, ranks, directory, gradient, steps):
        self.ranks, self.directory, self.gradient = ranks, directory, gradient
        self.losses, self.rows = np.zeros_like(gradient.losses), 0
        self.clocks = self.since_event, self.since_evaluation = Clock(), Clock()
        self.began = self.said = time.monotonic()
        self.steps, self.said_loss = steps, ""
        self.bar = tqdm(disable=True)

    def go_on(self, state):
        """From what state() gave, if that is there."""
        self.rows, losses = state.get("rows", 0), state.get("losses", ())
        mine, ours = self.gradient.mine, np.zeros(self.gradient.V)
        if len(losses) == self.gradient.V:
            ours[mine] = losses[mine]
        elif self.ranks.rank == 0:  # slices, or ranks without, are not as many as they were
            ours[0] = np.sum(losses)
        overwrite(self.losses, ours)

    def open_bar(self, step):
        seen = self.ranks.rank == 0 and sys.stderr.isatty()
        self.bar = tqdm(total=self.steps, initial=step, unit="step", disable=not seen)

    def say(self, line):
        if self.bar.disable:
            self.ranks.say(line)
        else:
            self.bar.write(line)  # above the bar

    def step(self, B):
        """One more step was made, of B examples."""
        self.rows += B
        for clock in self.clocks:
            clock.rows += B
        self.bar.update()

    def train(self, step, epoch, B, eta, length):
        """The minibatch of this step: its mean loss, and the length of its gradient."""
        loss = self.of_all_ranks(self.gradient.losses).sum().item() / B
        self.said_loss = f", loss {loss:.4f}"
        self.bar.set_postfix_str(f"loss {loss:.4f}")
        self.directory.event(
            "train",
            **dict(step=step, epoch=epoch, loss=loss, learning_rate=eta, grad_norm=length),
            samples_per_second=self.since_event.read(),
        )

    def state(self):
        """What a run that goes on has to know: the losses of all ranks."""
        return {"losses": self.of_all_ranks(self.losses), "rows": self.rows}

    def of_all_ranks(self, losses):
        losses = host(losses).copy()
        self.ranks.add(losses)
        return losses

    def progress(self, step, epoch):
        """A line every few seconds."""
        now = time.monotonic()
        if self.bar.disable and now - self.said > LINE_EVERY:
            self.said = now
            self.say(f"epoch {epoch}, step {step} of {self.steps}{self.said_loss}")

    def evaluated(self, step, epoch, loss, accuracy, sha256, took):
        """The mean loss of training since the last evaluation, and what that one found."""
        for clock in self.clocks:
            clock.since += took
        train_loss = self.of_all_ranks(self.losses).sum().item() / self.rows
        self.losses.fill(0)
        self.rows, self.said = 0, time.monotonic()
        rate = self.since_evaluation.read()
        self.directory.event(
            "eval",
            **dict(epoch=epoch, step=step, train_loss=train_loss),
            **dict(valid_loss=loss, valid_accuracy=accuracy),
            **dict(samples_per_second=rate, seconds=round(self.said - self.began, 3)),
            **dict(ranks=self.ranks.size, phi_sha256=sha256),
        )
        found = f", {described('valid', loss, accuracy)}" if loss is not None else ""
        self.say(
            f"epoch {epoch}, step {step}: train loss {train_loss:.4f}{found}, {rate:,.0f} rows/s"
        )

    def tested(self, step, loss, accuracy, sha256):
        self.directory.event(
            "test", step=step, test_loss=loss, test_accuracy=accuracy, phi_sha256=sha256
        )
        self.say(f"{described('test', loss, accuracy)}\nphi_sha256 {sha256}")


def described(rows, loss, accuracy):
    correct = "" if accuracy is None else f", {rows} accuracy {100 * accuracy:.2f} %"
    return f"{rows} loss {loss:.4f}{correct}"
