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

from dpedf import check, comm, config, device, models
from dpedf.checkpoint import RunDirectory
from dpedf.data import Data
from dpedf.edf import Forward, context
from dpedf.errors import UserError, concerning
from dpedf.evaluate import evaluate
from dpedf.gradient import Gradient
from dpedf.optim import Momentum, clip, schedule
from dpedf.phi import Phi
from dpedf.pulse import Pulse
from dpedf.report import Report, introduce

STOPPED = 75  # the status of a run that was told to stop, and can be resumed


def try_out(ell, data):
    """Run the program on no rows: what does not fit shows before any training."""
    data.put(*data.train.take(data.train.rows[:0]))
    try:
        Forward(ell)
    except (ValueError, IndexError) as error:
        raise UserError(f"model.build: {error}, expected a model that fits the data") from None
    if ell.value.shape != (0,):
        found = f"(B, {', '.join(map(str, ell.value.shape[1:]))})"
        raise UserError(f"model.build: ell is {found}, expected (B,), the loss of each example")


class Training:
    """A run: what it trains, how far it is, and the loop."""

    def __init__(self, settings, ranks, data, Q, ell, phi, directory, state):
        train, run = settings.train, settings.run
        self.settings, self.ranks, self.directory = settings, ranks, directory
        self.data, self.Q, self.ell, self.phi = data, Q, ell, phi
        self.gradient = Gradient(ell, phi, ranks, data.put, train.slices, bucket=run.bucket)
        self.gradient.overlap = run.allreduce == "buckets"
        self.update = Momentum(phi, train.momentum, train.nesterov, train.weight_decay)
        self.per_epoch = -(-len(data.train) // train.batch_size)
        self.steps = min(train.epochs * self.per_epoch or inf, train.steps or inf)
        self.eta = schedule(train, self.steps)
        self.report = Report(ranks, directory, self.gradient, self.steps, state)
        self.step, self.best = state.get("step", 0), state.get("best", inf)
        self.update.v[...] = state.get("v", 0)
        self.saved = 0.0  # seconds of this run at its last checkpoint

    def save(self, name):
        state = self.report.state() | {"step": self.step, "best": self.best, "v": self.update.v}
        state |= {"overlap": self.gradient.overlap, "ranks": self.ranks.size}
        self.directory.save(name, self.phi, **state)

    def minibatches(self, epoch, first=0):
        """This rank's shards of the minibatches of an epoch, from the first on."""
        seed, B = self.settings.seed, self.settings.train.batch_size
        return self.data.train.minibatches(seed, epoch, B, self.gradient.shard, first)

    def choose_overlap(self, state):
        """Sum over ranks during Backward, or after it?  What a trial finds faster."""
        if state.get("ranks") == self.ranks.size:  # with slices = 0 the bits may depend on it
            self.gradient.overlap = bool(state["overlap"])
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
        pulse = Pulse(self.ranks)
        while not (self.finished or pulse.stop):
            epoch, first = divmod(self.step, self.per_epoch)
            for x, y, B in self.minibatches(epoch, first):
                self.learn(x, y, B)
                if self.due(self.settings.train.eval_every or self.per_epoch):
                    self.evaluate()
                if pulse.beat():
                    self.report.progress(self.step, epoch + 1)
                if self.checkpoint_due(pulse.seconds):
                    self.save("checkpoint.h5")
                if pulse.stop or self.finished:
                    break
        self.save("checkpoint.h5")

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

    def checkpoint_due(self, seconds):
        every = self.settings.train.checkpoint_every
        if isinstance(every, int):
            return self.step % every == 0
        if seconds - self.saved < int(every[:-1]) * {"s": 1, "m": 60, "h": 3600}[every[-1]]:
            return False
        self.saved = seconds
        return True

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
    with ranks.together():
        path, settings, flags = config.from_command_line(sys.argv[1:])
        run, dtype = settings.run, settings.train.precision
        with concerning(path):
            where = device.chosen(settings)
            data = Data(settings.data.file, settings.data.valid, settings.seed, dtype)
            Q, ell = models.built(settings.model, data.x, data.y)
            phi = Phi(ell, settings.seed, dtype)
            try_out(ell, data)
        directory = RunDirectory(run.dir, ranks)
        directory.claim("--resume" in flags, "--overwrite" in flags)
        state = directory.resume(phi, settings)
    ranks.same("the model", check.listing(ell))
    ranks.same("the settings", config.text(settings))
    ranks.broadcast(phi.value)
    state = ranks.gather(state)[0]
    threads = device.blas_threads(settings, ranks)
    threadpool_limits(threads, "blas")
    context.seed = settings.seed
    if settings.data.cache == "memory":
        data.keep_in_memory(ranks)
    elif ranks.host_rank == 0:
        data.read_through()

    ranks.watch(run.timeout)
    with ranks.together():
        training = Training(settings, ranks, data, Q, ell, phi, directory, state)
    if run.allreduce == "auto" and ranks.size > 1:
        training.choose_overlap(state)
    introduce(training, where, threads, "--resume" in flags)
    if state.get("tested") and training.finished:
        ranks.say(f"{run.dir}: finished at step {training.step}, nothing is left to do")
        return 0
    if run.check_gradients:
        with ranks.together():
            data.put(*data.train.take(data.train.rows[:4]))
            check.gradients(ell)
    if run.check_nan:
        check.nan(ell)
    overlap = "buckets" if training.gradient.overlap else "whole"
    run = replace(run, device=where, threads=threads, allreduce=overlap)
    directory.begin(replace(settings, run=run), training.step)
    training.run()
    if not training.finished:
        ranks.say(f"stopped at step {training.step}, to go on with --resume")
        return STOPPED
    training.test()
    return 0


if __name__ == "__main__":
    comm.run(main)
