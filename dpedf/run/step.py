"""A step of training, after which Phi is the same on every rank."""

from functools import partial

import numpy as np

from dpedf.device import CPU, host, overwrite
from dpedf.kernels.vector import norm
from dpedf.optim import clip
from dpedf.parallel.passes import memory_of_passes
from dpedf.program import context, during


class Step:
    """step(x, y, B, eta): the gradient of a minibatch over all ranks, then the update of Phi.

    update: a rule of dpedf.optim.  seed: of the draws of nodes.  max_norm: a longer gradient is
    clipped to this length; 0 for no clipping.
    number: how many steps were made.  losses: (V,), the sum of ell over each slice of this rank,
    added over the steps since take_losses.
    """

    def __init__(self, gradient, update, device=None, seed=0, max_norm=0.0):
        self.gradient, self.update, self.device = gradient, update, device or CPU()
        self.seed, self.max_norm, self.number = seed, max_norm, 0
        self.losses = np.zeros_like(gradient.losses)
        self.eta = np.zeros((), gradient.phi.value.dtype, like=gradient.phi.value)

    def __call__(self, x, y, B, eta, measure=False):
        """The length that the gradient had before it was clipped; None unless measure."""
        run, gradient = self.device.run, self.gradient
        self.eta.fill(eta)
        with self.context(), memory_of_passes():
            if gradient.link.recordable:
                length = run(("step", B, measure), partial(self.whole, B=B, measure=measure), x, y)
            else:  # MPI cannot be a part of a CUDA graph
                add_slices = partial(gradient.add_slices, B=B)
                if gradient.overlap or gradient.mixer:
                    add_slices(x, y)
                else:
                    run(("slices", B), add_slices, x, y)
                gradient.add_ranks()
                length = run(("update", measure), partial(self.update_phi, measure))
        self.number += 1
        return host(length).item() if measure else None

    def context(self):
        """with step.context(): nodes find the seed and the number of the step in their context."""
        return during(seed=self.seed, step=self.device.step(self.number))

    def whole(self, x, y, B, measure):
        self.gradient(x, y, B)
        return self.update_phi(measure)

    def update_phi(self, measure):
        """Update Phi by its gradient; return the length of the gradient, if it was computed."""
        grad, length = self.gradient.phi.grad, None
        self.losses += self.gradient.losses
        if self.max_norm:
            length = clip(grad, self.max_norm)
        elif measure:
            length = norm(grad)
        self.update(self.eta, context.step)
        return length

    def take_losses(self):
        """The losses, which then begin at 0 again."""
        losses = host(self.losses).copy()
        self.losses.fill(0)
        return losses

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

        Returns the state of rank 0 without its vectors.
        """
        phi = self.gradient.phi
        for name, vector in {"phi": phi.value, **self.update.state, **phi.state}.items():
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
