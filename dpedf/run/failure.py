"""A loss that is not finite ends a run, with one line that says where this began."""

import numpy as np

from dpedf import check
from dpedf.device import host
from dpedf.errors import AgreedRunError


def expect_finite(training):
    """AgreedRunError: the loss of a step so far was not finite.  All ranks call this together.

    Phi was not updated by that step and those after it, so the step can be made once more, to find
    the node in which it begins.
    """
    step, ranks, ell, phi = training.step, training.ranks, training.ell, training.phi
    skipped = host(phi.skipped).item()
    if not skipped:
        return
    number = step.number - skipped
    epoch, first = divmod(number, training.steps_per_epoch)
    x, y, B = next(training.minibatches(epoch, first))
    training.device.stop_recording("the loss is not finite")

    def compute():
        step.add_slices(x, y, number, B)

    Phi = host(phi.value)
    largest = np.max(np.abs(Phi), where=np.isfinite(Phi), initial=0)
    where = check.first_not_finite(ell, compute)
    _, what = min(ranks.gather(where), key=lambda place_and_what: place_and_what[0])
    raise AgreedRunError(
        f"step {number + 1}, epoch {epoch + 1}: the loss is not finite, at learning rate "
        f"{training.eta(number):g}, with |Phi| up to {largest:g}: "
        f"{what}; try a smaller train.learning_rate, train.warmup_steps or train.grad_clip"
    )
