"""What a run saves, and when: the newest state, and the best one."""

from math import inf

from dpedf.run.config import seconds
from dpedf.run.failure import expect_finite


class Saves:
    """Saves checkpoint.h5 when it is due, and best.h5 at the lowest loss of validation.

    state: of the checkpoint that a run goes on from.
    best: the lowest loss so far; best_step: after which step.
    """

    def __init__(self, training, state):
        self.training, self.every = training, training.settings.train.checkpoint_every
        self.best, self.best_step = state.get("best", inf), state.get("best_step", 0)
        self.saved, self.saved_at = 0.0, None  # at its last checkpoint: seconds of this run, step

    def due(self):
        """Is it time for a checkpoint?"""
        if duration := seconds(self.every):
            return self.training.agreement.seconds - self.saved >= duration
        return self.training.step.number % self.every == 0

    def checkpoint(self):
        if self.saved_at != self.training.step.number:
            self.save("checkpoint.h5")
        self.saved, self.saved_at = self.training.agreement.seconds, self.training.step.number

    def compare(self, loss):
        """Save best.h5, if this loss of validation, or None, is the lowest so far."""
        if loss is not None and loss < self.best:
            self.best, self.best_step = loss, self.training.step.number
            self.save("best.h5")

    def save(self, name):
        """RunError: what would be saved is not finite, or not the same on all ranks."""
        training = self.training
        expect_finite(training)
        training.step.expect_equal(training.ranks)
        best = {"best": self.best, "best_step": self.best_step}
        state = training.step.state() | training.report.state() | best
        training.directory.save(name, training.phi, **state)
