"""What a run reports: lines, a bar, and the events of metrics.jsonl.  Rank 0 alone talks."""

import sys
import time
from contextlib import contextmanager

from tqdm import tqdm

from dpedf import __version__
from dpedf.data.form import form_of
from dpedf.device import host
from dpedf.errors import figures, percent, plural, short
from dpedf.parallel.equality import mixture
from dpedf.parallel.launcher import command
from dpedf.parallel.terminal import terminal
from dpedf.run.last_lines import kept, last_lines, limits
from dpedf.run.measures import said as in_words
from dpedf.run.scores import confusion_table
from dpedf.run.settings.pointless import codes_as_numbers, pointless

LINE_EVERY = 5  # seconds between lines of progress, where there is no bar
FEW_CLASSES = 20  # of which a run that ends shows the confusions


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
    lines += codes_as_numbers(settings.model["build"], data.columns)
    if settings.run.check_nan:
        lines.append("nan: every value and gradient of every node is checked in every step")
    if differing := mixture(ranks, setup.threads):
        lines.append(differing)
    if device.note:
        lines.append(f"{device.name}: {device.note}")
    if not data.train.global_shuffle:
        window = f"windows of {split.window * split.chunk:,} rows"
        lines.append(f"{path}: shuffled by chunks in {window}, which is not a global shuffle")
    lines += data.targets.notes() if data.targets else []
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
        self.rows, self.B = 0, 1
        self.clocks = self.since_event, self.since_evaluation = Clock(), Clock()
        self.began = self.said = time.monotonic()
        self.bar, self.erase = tqdm(disable=True), ""

    def restore(self, state):
        """Go on from what state() returned, if that is there."""
        self.rows = state.get("rows", 0)
        self.began -= state.get("seconds", 0)

    @contextmanager
    def training(self):
        """Training takes place inside, and a terminal shows how far it has come."""
        for clock in self.clocks:
            clock.start()
        screen = terminal(sys.stderr) if self.ranks.rank == 0 and self.ranks.shows_bar else None
        if screen:
            width = screen.columns - 1
            made = dict(total=self.last_step, initial=self.step.number, unit="step")
            self.bar = tqdm(**made, ncols=width, file=sys.stderr)
            out = terminal(sys.stdout)
            if out and out.device == screen.device:
                self.erase = f"\r{' ' * width}\r"
        try:
            yield
        finally:
            self.bar.close()

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
        """Print a line above the bar.

        It erases the bar itself: a launcher may pass on stdout before or after stderr.
        """
        self.ranks.say(line, self.erase)
        self.bar.refresh()

    def learned(self, B):
        """One more step was made, of B examples."""
        self.rows, self.B = self.rows + B, B
        for clock in self.clocks:
            clock.rows += B
        self.bar.update()

    def loss(self):
        """The mean loss of the newest minibatch.  All ranks call this together."""
        return self.of_all_ranks(self.step.gradient.losses).sum().item() / self.B

    def train(self, eta, length):
        """Report the loss of this step's minibatch, and the length of its gradient."""
        self.directory.event(
            "train",
            **dict(step=self.step.number, epoch=self.epoch, loss=self.loss()),
            **dict(learning_rate=eta, grad_norm=length),
            samples_per_second=self.since_event.read(),
        )

    def state(self):
        """What a checkpoint keeps: the losses of all ranks, of how many rows, and the seconds."""
        losses, seconds = self.of_all_ranks(self.step.losses), time.monotonic() - self.began
        found = {"losses": losses, "rows": self.rows, "seconds": seconds}
        return found | {"steps_per_epoch": self.steps_per_epoch}  # for who looks on

    def of_all_ranks(self, losses):
        losses = host(losses).copy()
        self.ranks.add(losses)
        return losses

    def progress(self):
        """The newest loss: in the bar, or every few seconds in a line.  For all ranks together."""
        loss, now = f"loss {short(self.loss())}", time.monotonic()
        self.bar.set_postfix_str(loss)
        if self.bar.disable and now - self.said > LINE_EVERY:
            self.said = now
            at = f"epoch {self.epoch}, step {self.step.number:,} of {self.last_step:,}"
            self.say(f"{at}, {loss}")

    def evaluated(self, found, sha256):
        """Report what measure found, and the mean training loss before it."""
        train_loss = self.of_all_ranks(self.step.take_losses()).sum().item() / self.rows
        self.rows, self.said = 0, time.monotonic()
        rate = self.since_evaluation.read()
        self.directory.event(
            "eval",
            **dict(epoch=self.epoch, step=self.step.number, steps_per_epoch=self.steps_per_epoch),
            **dict(train_loss=train_loss, valid_loss=found.loss, valid_accuracy=found.accuracy),
            **{f"valid_{name}": its for name, its in found.metrics.items()},
            **dict(samples_per_second=rate, seconds=round(self.said - self.began, 3)),
            **dict(ranks=self.ranks.size, phi_sha256=sha256),
        )
        said = [f"epoch {self.epoch}, step {self.step.number:,}: loss {short(train_loss)}"]
        said += [] if found.loss is None else [f"valid loss {short(found.loss)}"]
        said += [] if found.accuracy is None else [percent(found.accuracy)]
        said += in_words(found.metrics) or [f"{rate:,.0f} rows/s"]  # which 80 columns hold
        self.say(", ".join(said))

    def tested(self, training, found):
        """Report the test, and the end of the run.  found: what measure found."""
        sha256, scores = training.phi.sha256(), found.scores
        results = dict(test_loss=found.loss, test_accuracy=found.accuracy)
        results |= {f"test_{name}": its for name, its in found.metrics.items()}
        self.directory.event("test", step=self.step.number, **results, phi_sha256=sha256)
        said = [figures("test", found.loss, found.accuracy), *in_words(found.metrics)]
        lines = [f"{', '.join(said)}, after the last step"]
        if scores and len(scores.confusion) <= FEW_CLASSES:
            lines.append(confusion_table(scores.confusion, form_of(training.data).names))
        self.say("\n".join([*lines, *last_lines(training), f"phi_sha256 {sha256}"]))

    def was_finished(self, training):
        """Report that there is nothing to resume."""
        more = f"nothing is left to do; a larger {limits(training)} goes on"
        found = f"finished at step {self.step.number:,}, {more}"
        self.say("\n".join([found, *last_lines(training)]))

    def stopped(self, training, words):
        """Report that the run was told to stop.  words: its command line."""
        words = [word for word in words if word not in ("--resume", "--overwrite")]
        how = f"to go on with --resume: {command(self.ranks, 'train', *words, '--resume')}"
        self.say(f"{kept(training)}\nstopped at step {self.step.number:,}, {how}")
