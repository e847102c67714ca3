"""What a run saves, and when: the newest state, and the best one."""

from math import inf, isfinite

from dpedf.run.config import seconds
from dpedf.run.failure import expect_finite


class Saves:
    """Saves checkpoint.h5 of a Training when it is due, and best.h5 at the lowest validation loss.

    every: steps, or a time, between checkpoints.  state: of the checkpoint that a run goes on from.
    best: the lowest loss so far; best_step: after which step; since_best: evaluations since then,
    of which so many as patience end the run; 0: no number does.
    """

    def __init__(self, every, state, patience=0):
        self.every, self.patience = every, patience
        self.best, self.best_step = state.get("best", inf), state.get("best_step", 0)
        self.since_best = state.get("since_best", 0)
        self.saved, self.saved_at = 0.0, None  # at its last checkpoint: seconds of this run, step

    @property
    def out_of_patience(self):
        """Did the last evaluations find no lower loss, as many as patience?"""
        return 0 < self.patience <= self.since_best

    def due(self, training):
        """Is it time for a checkpoint?"""
        if duration := seconds(self.every):
            return training.agreement.seconds - self.saved >= duration
        return training.step.number % self.every == 0

    def checkpoint(self, training):
        if self.saved_at != training.step.number:
            self.save("checkpoint.h5", training)
        self.saved, self.saved_at = training.agreement.seconds, training.step.number

    def compare(self, training, loss):
        """Save best.h5, if this loss of validation, or None, is finite and the lowest so far."""
        if loss is None:
            return
        self.since_best += 1
        if not isfinite(loss):
            stays = (
                f"stays that of step {self.best_step:,}" if self.best_step else "is not made yet"
            )
            found = f"the validation loss is {loss}, expected a finite one: best.h5 {stays}"
            training.report.say(f"step {training.step.number:,}: {found}")
        elif loss < self.best:
            self.best, self.best_step, self.since_best = loss, training.step.number, 0
            self.save("best.h5", training)

    def save(self, name, training):
        """RunError: what would be saved is not finite, or not the same on all ranks."""
        expect_finite(training)
        with training.report.aside():
            training.step.expect_equal(training.ranks)
            best = {"best": self.best, "best_step": self.best_step, "since_best": self.since_best}
            state = training.step.state() | training.report.state() | best
            training.directory.save(name, training.phi, **state)
