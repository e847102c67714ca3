"""Train a model, data-parallel:

    mpirun -n 4 python -m dpedf train CONFIG [section.key=value ...]
    dpedf train CONFIG [section.key=value ...] [--resume | --overwrite]

CONFIG is a TOML file, such as configs/mnist.toml, of which section.key=value
replaces a key.  A directory that already holds a run is left alone.
"""

import sys

import numpy as np
from threadpoolctl import threadpool_limits

from dpedf.parallel import job
from dpedf.parallel.agreement import Agreement
from dpedf.parallel.trial import choose
from dpedf.run.command_line import help_of_training
from dpedf.run.evaluate import measure
from dpedf.run.failure import expect_finite
from dpedf.run.report import Report, introduce
from dpedf.run.saves import Saves
from dpedf.run.setup import Setup
from dpedf.run.step import Step

STOPPED = 75  # the status of a run that was told to stop, and can be resumed


class Training:
    """A run: what it trains, how far it has come, and the loop."""

    def __init__(self, setup):
        self.settings, self.ranks, self.link = setup.settings, setup.ranks, setup.link
        self.device, self.data, self.directory = setup.device, setup.data, setup.directory
        self.Q, self.ell, self.phi, self.gradient = setup.Q, setup.ell, setup.phi, setup.gradient
        self.last_step, self.eta, self.metrics = setup.last_step, setup.eta, setup.metrics
        train, seed = self.settings.train, self.settings.seed
        self.step = Step(self.gradient, setup.update, self.device, seed, train.grad_clip)
        self.steps_per_epoch = -(-len(self.data.train) // train.batch_size)
        self.report = Report(setup, self.step, self.last_step, self.steps_per_epoch)
        self.agreement = Agreement(self.ranks)
        self.state = state = self.step.restore(setup.state, self.ranks)
        self.report.restore(state)
        self.saves = Saves(train.checkpoint_every, state, train.patience)

    def minibatches(self, epoch, first=0):
        """This rank's shards of the minibatches of an epoch, from the first on."""
        seed, B = self.settings.seed, self.settings.train.batch_size
        return self.data.train.minibatches(seed, epoch, B, self.gradient.shard, first)

    def run(self):
        """Train to the last step, or until told to stop."""
        agreement, report = self.agreement, self.report
        eval_every = self.settings.train.eval_every or self.steps_per_epoch
        while not (self.finished or agreement.stop):
            epoch, first = divmod(self.step.number, self.steps_per_epoch)
            for x, y, B in self.minibatches(epoch, first):
                self.learn(x, y, B)
                if self.step.number % eval_every == 0 or self.finished:
                    self.evaluate()
                self.link.raise_errors()
                if agreement.meet(self.step.number):  # about twice a second
                    expect_finite(self)
                    report.progress()
                if self.saves.due(self):
                    self.saves.checkpoint(self)
                if agreement.stop or self.finished:
                    break
        self.saves.checkpoint(self)

    @property
    def finished(self):
        return self.step.number >= self.last_step or self.saves.out_of_patience

    def learn(self, x, y, B):
        logs = (self.step.number + 1) % self.settings.run.log_every == 0
        eta = self.eta(self.step.number)
        length = self.step(x, y, B, eta, measure=logs)
        self.report.learned(B)
        self.step.expect_equal(self.ranks, self.settings.run.check_every)
        if logs:
            expect_finite(self)
            self.report.train(eta, length)

    def evaluate(self):
        expect_finite(self)
        with self.report.aside():
            found, sha256 = self.measured(self.data.valid), self.phi.sha256()
        self.report.evaluated(found, sha256)
        self.saves.compare(self, found.loss)

    def test(self):
        """Evaluate on the test rows, once."""
        self.report.tested(self, self.measured(self.data.test, pairs=True))

    def measured(self, split, pairs=False):
        """What measure finds over the rows of a split."""
        B = min(self.settings.train.batch_size, len(self.data.train))
        with self.step.evaluating():
            how = self.gradient.passes.fewest_rows(B), pairs, self.metrics
            return measure(self.Q, self.ell, self.data, split, self.ranks, *how)


def main(ranks, words):
    job.watch(ranks)
    if {"--help", "-h"} & {*words}:
        ranks.say(help_of_training(__doc__))
        return 0
    setup = Setup(words, ranks)
    warnings = np.errstate(all="ignore")  # what is not finite has a line of its own, in failure.py
    with setup, threadpool_limits(setup.threads, "blas"), warnings:
        training = Training(setup)
        training.agreement.expect_no_stop(training.step.number)
        setup.read()
        note = choose(training.step, training.minibatches(0), setup, training.state)
        setup.watch_nan()
        introduce(setup, training.step.number, note)
        if training.state.get("tested") and training.finished:
            training.report.was_finished(training)
            return 0
        setup.check_gradients(training.step)
        training.agreement.expect_no_stop(training.step.number)
        setup.begin(training)
        with training.report.training():
            training.run()
        if not training.finished:
            training.report.stopped(training, words)
            return STOPPED
        training.test()
        return 0


if __name__ == "__main__":
    job.run(main, sys.argv[1:])
