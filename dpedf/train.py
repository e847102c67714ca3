"""Train a model, data-parallel:

    mpirun -n 4 python -m dpedf.train CONFIG [section.key=value ...] [--resume | --overwrite]
    python -m dpedf.train CONFIG ...

CONFIG is a TOML file, such as configs/mnist.toml; section.key=value replaces one of its keys.
A directory that already holds a run is left alone, but for --resume, which goes on from its
checkpoint, and --overwrite.
"""

import sys
import time
from math import inf

from msgspec.structs import replace
from threadpoolctl import threadpool_limits

from dpedf import build, check, comm, config, device
from dpedf.checkpoint import RunDirectory
from dpedf.data import Data
from dpedf.edf import context
from dpedf.errors import concerning
from dpedf.evaluate import evaluate
from dpedf.gradient import Gradient
from dpedf.optim import Momentum, clip, schedule
from dpedf.phi import Phi
from dpedf.pulse import Pulse
from dpedf.report import Report, introduce

STOPPED = 75  # the status of a run that was told to stop, and can be resumed


class Training:
    """A run: what it trains, how far it is, and the loop.  UserError: more ranks than slices."""

    def __init__(self, settings, ranks, data, model, directory):
        train, run = settings.train, settings.run
        self.settings, self.ranks, self.data, self.directory = settings, ranks, data, directory
        self.Q, self.ell, self.phi = model
        overlap = run.allreduce == "buckets"
        self.gradient = Gradient(
            self.ell, self.phi, ranks, data.put, train.slices, overlap, run.bucket
        )
        self.update = Momentum(self.phi, train.momentum, train.nesterov, train.weight_decay)
        self.per_epoch = -(-len(data.train) // train.batch_size)
        self.steps = min(train.epochs * self.per_epoch or inf, train.steps or inf)
        self.eta = schedule(train, self.steps)
        self.report = Report(ranks, directory, self.gradient, self.steps)
        self.pulse = Pulse(ranks)
        self.checkpoint_seconds = config.seconds(train.checkpoint_every)

    def save(self, name):
        state = self.report.state() | {"step": self.step, "best": self.best, "v": self.update.v}
        state |= {"overlap": self.gradient.overlap, "ranks": self.ranks.size}
        self.directory.save(name, self.phi, **state)

    def go_on(self, state):
        """Start from rank 0's Phi, and from the state that it found beside it, if any."""
        self.update.v[...] = state.pop("v", 0)
        for vector in self.phi.value, self.update.v:
            self.ranks.broadcast(vector)
        self.state = state = self.ranks.gather(state)[0]
        self.step, self.best = state.get("step", 0), state.get("best", inf)
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
        minibatch, times = next(self.minibatches(0)), {False: [], True: []}
        for overlap in (False, True) * 4:
            self.gradient.overlap = overlap
            self.ranks.wait()
            start = time.perf_counter()
            self.gradient(*minibatch)
            times[overlap].append(time.perf_counter() - start)
        whole, buckets = self.ranks.largest(min(times[False][1:]), min(times[True][1:]))
        self.gradient.overlap = buckets < whole

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
        train = self.settings.train
        context.step = self.step
        self.gradient(x, y, B)
        logs = (self.step + 1) % self.settings.run.log_every == 0
        if train.grad_clip or logs:
            length = clip(self.phi.grad, train.grad_clip or inf)
        eta = self.eta(self.step)
        self.update(eta)
        self.step += 1
        self.report.step(B)
        if logs:
            self.report.train(self.step, self.epoch(), B, eta, length)

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


def prepared(words, ranks):
    """The Training of a command line, which all ranks agree on; its device, and BLAS threads."""
    with ranks.together():
        path, settings, flags = config.from_command_line(words)
        resuming, overwriting = "--resume" in flags, "--overwrite" in flags
        with concerning(path):
            where = device.chosen(settings)
            dtype = settings.train.precision
            data = Data(settings.data.file, settings.data.valid, settings.seed, dtype)
            Q, ell = build.built(settings.model, data.x, data.y)
            phi = Phi(ell, settings.seed, dtype)
            check.fits(Q, ell, data)
            directory = RunDirectory(settings.run.dir, ranks)
            training = Training(settings, ranks, data, (Q, ell, phi), directory)
        directory.claim(resuming or overwriting)
        state = directory.resume(phi, settings) if resuming else {}
    ranks.same("the model", check.listing(ell))
    ranks.same("the data", data.listing())
    ranks.same("the settings", config.text(settings))
    training.go_on(state)
    threads = device.blas_threads(settings, ranks)
    threadpool_limits(threads, "blas")
    if settings.data.cache == "memory":
        data.keep_in_memory(ranks)
    elif ranks.host_rank == 0:
        data.read_through()
    ranks.wait()  # for the reader, who may take longer than a step may
    return training, where, threads, resuming


def main(ranks):
    if {"--help", "-h"} & set(sys.argv):
        ranks.say(__doc__)
        return 0
    training, where, threads, resuming = prepared(sys.argv[1:], ranks)
    settings, run = training.settings, training.settings.run
    context.seed = settings.seed
    ranks.watch(run.timeout)
    if run.allreduce == "auto" and ranks.size > 1:
        training.choose_overlap()
    introduce(training, where, threads, resuming)
    if training.tested:
        ranks.say(f"{run.dir}: finished at step {training.step}, nothing is left to do")
        return 0
    if run.check_gradients:
        with ranks.together():
            training.data.put(*training.data.train.take(training.data.train.rows[:4]))
            check.gradients(training.ell)
    if run.check_nan:
        check.nan(training.ell)
    overlap = "buckets" if training.gradient.overlap else "whole"
    run = replace(run, device=where, threads=threads, allreduce=overlap)
    training.directory.begin(replace(settings, run=run), training.step)
    training.run()
    if not training.finished:
        ranks.say(f"stopped at step {training.step}, to go on with --resume")
        return STOPPED
    training.test()
    return 0


if __name__ == "__main__":
    comm.run(main)
