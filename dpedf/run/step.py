"""A step of training, after which Phi is the same on every rank."""

from contextlib import contextmanager
from functools import partial

import numpy as np

from dpedf.device import CPU, host, overwrite
from dpedf.errors import concerning
from dpedf.kernels.gemm import unchanging
from dpedf.kernels.vector import norm
from dpedf.optim import clip
from dpedf.parallel.equality import expect_equal
from dpedf.parallel.passes import memory_of_passes
from dpedf.program import during
from dpedf.run.average import averaged
from dpedf.run.checkpoint import expect_vectors


class Step:
    """step(x, y, B, eta): the gradient of a minibatch over all ranks, then the update of Phi.

    update: a rule of dpedf.optim.  seed: of the draws of nodes.  max_norm: a longer gradient is
    clipped to this length; 0 for no clipping.
    number: how many steps were made.  losses: (V,), the sum of ell over each slice, 0 for
    those of other ranks, added over the minibatches since take_losses.
    """

    def __init__(self, gradient, update, device=None, seed=0, max_norm=0.0):
        self.gradient, self.update, self.device = gradient, update, device or CPU()
        self.seed, self.max_norm, self.number = seed, max_norm, 0
        self.losses, self.unchanging_phi = gradient.totals, unchanging(gradient.phi.value)

    def __call__(self, x, y, B, eta, measure=False):
        """The length that the gradient had before it was clipped; None unless measure."""
        gradient, now = self.gradient, (self.number, self.gradient.phi.value.dtype.type(eta))
        with memory_of_passes():
            if gradient.link.recordable:
                length = self.replay(self.whole, x, y, *now, B=B, measure=measure)
            else:  # MPI cannot be a part of a CUDA graph
                if gradient.overlap or gradient.mixer or gradient.counts.masks:
                    self.add_slices(x, y, self.number, B)
                else:
                    self.replay(self.add_slices, x, y, self.number, B=B)
                gradient.add_ranks()
                length = self.replay(self.update_phi, *now, measure=measure)
        self.number += 1
        return host(length).item() if measure else None

    def replay(self, function, *arguments, **constants):
        """function(*arguments, **constants), which a GPU records for these constants."""
        key = function.__name__, *constants.values()
        return self.device.run(key, partial(function, **constants), *arguments)

    def context(self, number=None):
        """with step.context(): nodes find the seed and the number of the step in their context."""
        return during(seed=self.seed, step=self.number if number is None else number)

    @contextmanager
    def evaluating(self):
        """with step.evaluating(): the same, and Phi is its average, if the rule keeps one."""
        with self.context(), averaged(self.update):
            yield

    def whole(self, x, y, number, eta, B, measure):
        self.add_slices(x, y, number, B)
        self.gradient.add_ranks()
        return self.update_phi(number, eta, measure)

    def add_slices(self, x, y, number, B):
        """Compute this rank's part of the gradient."""
        with self.context(number), self.unchanging_phi:
            self.gradient.counts.begin(self.gradient, x, y, B)
            self.gradient.add_slices(x, y, B)

    def update_phi(self, number, eta, measure):
        """Update Phi by its gradient; return the length of the gradient, if it was computed."""
        grad, length = self.gradient.phi.grad, None
        if self.max_norm:
            length = clip(grad, self.max_norm)
        elif measure:
            length = norm(grad)
        self.update(eta, number)
        return length

    def take_losses(self):
        """The losses, which then begin at 0 again."""
        losses = host(self.losses).copy()
        self.losses.fill(0)
        return losses

    def vectors(self):
        """All that is the same on every rank, by name."""
        phi = self.gradient.phi
        return {"phi": phi.value, **self.update.state, **phi.state}

    def expect_equal(self, ranks, every=1):
        """After every so many steps; 0: never.  AgreedRunError: the ranks differ in a vector."""
        if ranks.size > 1 and every and self.number % every == 0:
            found = {name: host(vector) for name, vector in self.vectors().items()}
            expect_equal(ranks, self.number, found)

    def state(self):
        """What a checkpoint keeps of it beside Phi."""
        vectors = {name: host(vector) for name, vector in self.update.state.items()}
        gradient = self.gradient
        how = {
            "overlap": gradient.overlap,
            "passes": gradient.passes.count,
            "ranks": gradient.link.size,
        }
        return vectors | {"step": self.number} | how

    def restore(self, state, ranks):
        """Start from rank 0's Phi, and from the state that rank 0 found in a checkpoint, if any.

        Returns the state of rank 0 without its vectors.  UserError: they are not those of the
        update rule.
        """
        with ranks.together(), concerning(state.pop("source", "state")):
            if state:
                found = {k: its for k, its in state.items() if isinstance(its, np.ndarray)}
                found.pop("losses", None)
                expect_vectors(found, self.update.state)
        for name, vector in self.vectors().items():
            values = state.pop(name, host(vector))
            ranks.broadcast(values)
            overwrite(vector, values)
        state = ranks.gather(state)[0]
        self.number, losses = state.get("step", 0), state.get("losses", ())
        mine, here = self.gradient.passes.mine, np.zeros(self.gradient.passes.V)
        if len(losses) == len(here):
            here[mine] = losses[mine]
        elif ranks.rank == 0:  # the number of slices, or without slices of ranks, has changed
            here[0] = np.sum(losses)
        overwrite(self.losses, here)
        return state
