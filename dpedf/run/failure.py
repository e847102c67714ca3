"""A loss that is not finite ends a run, with one line that says where this began."""

import numpy as np

from dpedf import check
from dpedf.device import host
from dpedf.edf import Parameters
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
        found = f"{parameters_not_finite(training.ell)[0]} before the first step"
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

    where = first_not_finite(training.ell, compute)
    return min(training.ranks.gather(where), key=lambda place_and_what: place_and_what[0])[1]


def first_not_finite(ell, compute):
    """(place, "z1 = Exp: forward made z1[0, 3] inf") of what a pass first makes that is not finite.

    compute(): runs Forward and Backward, once or several times.  Places are in the order of the
    program, forward before backward, so that those of several ranks can be compared.
    """
    before = "before the step, by the gradient of an earlier one"
    found = [(-1, f"{what} {before}") for what in parameters_not_finite(ell)]
    found.append((np.inf, "no node makes such a number when the step is repeated"))
    check.watch(ell, not_finite, lambda *place_and_what: found.append(place_and_what))
    compute()
    return min(found, key=lambda place_and_what: place_and_what[0])


def parameters_not_finite(ell):
    """ "Phi1.w[0, 3] nan", of each parameter that is not finite."""
    return [
        what for p in Parameters(ell) if (what := check.described(p, p.name, p.value, not_finite))
    ]


def not_finite(array):
    return ~np.isfinite(array)
