"""A loss that is not finite ends a run, with one line that says where this began."""

import numpy as np

from dpedf import check
from dpedf.device import host
from dpedf.errors import AgreedError, AgreedRunError

ADVICE = "try a smaller train.learning_rate, more train.warmup_steps, or train.grad_clip"


def expect_finite(training):
    """AgreedRunError: the loss of a step so far was not finite, or Phi is not.  AgreedError: it
    never was.

    All ranks call this together.  Phi was not updated by the step whose loss was not finite, nor
    by those after it, so the step can be made once more, to find the node in which it begins.
    """
    phi, finite = training.phi, np.isfinite(training.phi.value)
    skipped = host(phi.skipped).item()
    if not skipped and host(finite.all()):
        return
    if not training.step.number:
        found = f"{check.parameters_not_finite(training.ell)[0]} before the first step"
        raise AgreedError(
            f"model.build = {training.settings.model['build']}: {found}, expected numbers"
        )
    number = training.step.number - max(skipped, 1)
    epoch, first = divmod(number, training.steps_per_epoch)
    if skipped:
        found, what = "the loss is not finite", beginning(training, number, epoch, first)
    else:
        found = "the gradient was not finite, and so Phi is not"
        what = "to go back with --resume run.check_nan=true names the node"
    numbers = host(phi.value)[host(finite)]
    largest = f"{np.abs(numbers).max():g}" if len(numbers) else "nan"
    raise AgreedRunError(
        f"step {number + 1}, epoch {epoch + 1}: {found}, at learning rate "
        f"{training.eta(number):g}, with |Phi| up to {largest}: {what}; {ADVICE}"
    )


def beginning(training, number, epoch, first):
    """Which node is the first whose value or gradient is not finite in this step, on any rank."""
    x, y, B = next(training.minibatches(epoch, first))
    training.device.stop_recording("the loss is not finite")

    def compute():
        training.step.add_slices(x, y, number, B)

    where = check.first_not_finite(training.ell, compute)
    return min(training.ranks.gather(where), key=lambda place_and_what: place_and_what[0])[1]
