"""Train a model, data-parallel:

    mpirun -n 4 python -m dpedf.train CONFIG [section.key=value ...] [--resume | --overwrite]
    python -m dpedf.train CONFIG ...

CONFIG is a TOML file, such as configs/mnist.toml; section.key=value replaces one of its keys.
A directory that already holds a run is left alone, but for --resume, which goes on from its
checkpoint, and --overwrite.
"""

import sys
import time
from contextlib import closing
from functools import partial
from math import inf

import numpy as np
from msgspec.structs import replace

from dpedf import check, comm, config, watchdog
from dpedf.device import host, overwrite
from dpedf.edf import context
from dpedf.evaluate import evaluate
from dpedf.gradient import overlap_is_faster, unchanged
from dpedf.kernels.vector import norm
from dpedf.optim import clip, schedule, update_rule
from dpedf.pulse import Pulse
from dpedf.report import Report, introduce
from dpedf.start import Start

STOPPED = 75  # the status of a run that was told to stop, and can be resumed


class Training:
    """A run: what it trains, how far it is, and the loop."""

    def __init__(self, start):
        self.settings, self.ranks, self.wire = start.settings, start.ranks, start.wire
        self.device, self.data, self.directory = start.device, start.data, start.directory
        self.Q, self.ell, self.phi, self.gradient = start.Q, start.ell, start.phi, start.gradient
        train = self.settings.train
        self.update = update_rule(self.phi, train)
        self.per_epoch = -(-len(self.data.train) // train.batch_size)
        self.steps = min(train.epochs * self.per_epoch or inf, train.steps or inf)
        self.eta = schedule(train, self.steps)
        self.eta_now = np.zeros((), self.phi.value.dtype, like=self.phi.value)
        self.report = Report(self.ranks, self.directory, self.gradient, self.steps)
        self.pulse = Pulse(self.ranks)
        self.checkpoint_seconds = config.seconds(train.checkpoint_every)
        self.go_on(start.state)

    def save(self, name):
        state = self.report.state() | {"step": self.step, "best": self.best}
        state |= {"overlap": self.gradient.overlap, "ranks": self.ranks.size}
        vectors = {key: host(vector) for key, vector in self.update.state.items()}
        self.directory.save(name, self.phi, **state, **vectors)

    def go_on(self, state):
        """Start from rank 0's Phi, and from the state that it found beside it, if any."""
        vectors = {"phi": self.phi.value, **self.update.state, **self.phi.state}
        for name, vector in vectors.items():
            here = state.pop(name, host(vector))
            self.ranks.broadcast(here)
            overwrite(vector, here)
        self.state = state = self.ranks.gather(state)[0]
        self.step, self.best = state.get("step", 0), state.get("best", inf)
        context.step = self.device.step(self.step)
        self.tested = state.get("tested", False) and self.finished
        self.report.go_on(state)
        self.saved = 0.0  # seconds of this run at its last checkpoint

    def minibatches(self, epoch, first=0):
        """This rank's shards of the minibatches of an epoch, from the first on."""
        seed, B = self.settings.seed, self.settings.train.batch_size
        return self.data.train.minibatches(seed, epoch, B, self.gradient.shard, first)

    def choose_overlap(self):
        """Sum over ranks during Backward, or after it?  What a trial finds faster."""
        if self.state.get("ranks") == self.ranks.size:  # without slices the bits depend on it
            self.gradient.overlap = bool(self.state["overlap"])
            return
        self.gradient.overlap = self.wire.recordable and overlap_is_faster(
            self.gradient, next(self.minibatches(0)), self.ranks, self.device
        )

    def run(self):
        """Train to the last step, or until told to stop."""
        pulse, report = self.pulse, self.report
        report.open_bar(self.step)
        while not (self.finished or pulse.stop):
            epoch, first = divmod(self.step, self.per_epoch)
            for x, y, B in self.minibatches(epoch, first):
                self.learn(x, y, B)
                if self.due(self.settings.train.eval_every or self.per_epoch):
                    self.evaluate()
                self.wire.check()
                if pulse.beat():
                    report.progress(self.step, epoch + 1)
                if self.checkpoint_due():
                    self.save("checkpoint.h5")
                    self.saved = pulse.seconds
                if pulse.stop or self.finished:
                    break
        self.save("checkpoint.h5")
        report.bar.close()

    @property
    def finished(self):
        return self.step >= self.steps

    def learn(self, x, y, B):
        """One step: the gradient of a minibatch over all ranks, then the same update on each."""
        run, gradient = self.device.run, self.gradient
        logs, eta = (self.step + 1) % self.settings.run.log_every == 0, self.eta(self.step)
        context.step = self.device.step(self.step)
        self.eta_now.fill(eta)
        if self.wire.recordable:
            before = run(("step", B, logs), partial(self.one_step, B=B, logs=logs), x, y)
        else:  # MPI can be no part of a CUDA graph
            add_slices = partial(gradient.add_slices, B=B)
            if gradient.overlap or gradient.mixer:
                add_slices(x, y)
            else:
                run(("slices", B), add_slices, x, y)
            gradient.add_ranks()
            before = run(("update", logs), partial(self.change, logs))
        self.step += 1
        self.report.step(B)
        if logs:
            self.report.train(self.step, self.epoch(), B, eta, host(before).item())

    def one_step(self, x, y, B, logs):
        self.gradient(x, y, B)
        return self.change(logs)

    def change(self, logs):
        """Update Phi by its gradient; the length that this had, where it was asked for."""
        longest, grad, before = self.settings.train.grad_clip, self.phi.grad, None
        self.report.losses += self.gradient.losses
        if longest:
            before = clip(grad, longest)
        elif logs:
            before = norm(grad)
        self.update(self.eta_now, context.step)
        return before

    def epoch(self):
        """That of the last step, from 1."""
        return -(-self.step // self.per_epoch)

    def due(self, every):
        return self.step % every == 0 or self.finished

    def checkpoint_due(self):
        if self.checkpoint_seconds:
            return self.pulse.seconds - self.saved >= self.checkpoint_seconds
        return self.step % self.settings.train.checkpoint_every == 0

    def evaluate(self):
        start = time.monotonic()
        loss, accuracy = evaluate(self.Q, self.ell, self.data, self.data.valid, self.ranks)
        sha256, took = self.phi.sha256(), time.monotonic() - start
        self.report.evaluated(self.step, self.epoch(), loss, accuracy, sha256, took)
        if loss is not None and loss < self.best:
            self.best = loss
            self.save("best.h5")

    def test(self):
        """Look at the test rows, once."""
        loss, accuracy = evaluate(self.Q, self.ell, self.data, self.data.test, self.ranks)
        self.report.tested(self.step, loss, accuracy, self.phi.sha256())


def main(ranks):
    if {"--help", "-h"} & set(sys.argv):
        ranks.say(__doc__)
        return 0
    start = Start(sys.argv[1:], ranks)
    training, settings, run = Training(start), start.settings, start.settings.run
    start.read()  # which takes its time, so that signals are listened to by now
    with closing(start.device) as where:
        context.seed = settings.seed
        watchdog.watch(ranks, run.timeout)
        if run.check_nan:
            where.launch_eagerly("run.check_nan = true")
            check.nan(start.ell)
        if run.allreduce == "auto" and ranks.size > 1:
            training.choose_overlap()
        introduce(start, training.step)
        if training.tested:
            ranks.say(f"{run.dir}: finished at step {training.step}, nothing is left to do")
            return 0
        if run.check_gradients:
            with ranks.together(), unchanged(start.phi):
                start.data.put(*start.data.train.take(start.data.train.rows[:4]))
                check.gradients(start.ell)
        overlap = "buckets" if start.gradient.overlap else "whole"
        run = replace(run, device=where.unit, threads=start.threads, allreduce=overlap)
        start.directory.begin(replace(settings, run=run), training.step)
        training.run()
        if not training.finished:
            ranks.say(f"stopped at step {training.step}, to go on with --resume")
            return STOPPED
        training.test()
        return 0


if __name__ == "__main__":
    comm.run(main)
