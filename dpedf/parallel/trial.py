"""Trials before the first step: what is faster, or fits into memory, on the first minibatch."""

import time
from contextlib import closing, contextmanager
from functools import partial
from math import inf

from dpedf.errors import AgreedError, concerning
from dpedf.parallel.passes import memory_of_passes
from dpedf.parallel.together import name_of, why_apart

ROUNDS, SECONDS = 4, 2.0  # of a trial of passes, at most
FEWEST = 64  # rows in a pass, where there are no slices
FASTER = 0.9  # of the time, for what changes the bits


@contextmanager
def unchanged(step):
    """After the with block, sums of losses, and running values of nodes, are what they were."""
    arrays = [step.losses, *step.gradient.phi.state.values()]
    before = [array.copy() for array in arrays]
    try:
        yield
    finally:
        for array, its in zip(arrays, before, strict=True):
            array[...] = its


def choose(step, minibatches, setup, state):
    """Choose how a Step computes, on the first of these minibatches.

    setup: a run's Setup, or what has its path, ranks, data and settings.  state: of a checkpoint.
    Returns a line for the user, or None.  UserError: the settings cannot be met.
    """
    ranks, train, run = setup.ranks, setup.settings.train, setup.settings.run
    n, B = len(setup.data.train), train.batch_size
    sizes = {min(n, B), n % B or B}
    with closing(minibatches), concerning(setup.path):
        minibatch = next(minibatches)
        note = choose_passes(step, minibatch, ranks, state, sizes, train.rows)
        if run.allreduce == "auto" and ranks.size > 1:
            choose_overlap(step, minibatch, ranks, state)
    return note


def choose_passes(step, minibatch, ranks, state, sizes, most_rows=0):
    """Choose in how many passes a Step computes its gradient.

    minibatch: (x, y, B).  sizes: {B} of all minibatches.  most_rows: in a pass; 0 asks for a trial.
    A resumed run keeps the choice in the state of its checkpoint, because without slices the
    choice changes the bits.
    Returns a line for the user about what decided, if not a trial; or None.  UserError: there are
    no such passes.
    """
    gradient, device, (x, y, B) = step.gradient, step.device, minibatch
    with step.context(), unchanged(step):
        why = note = None
        passes = gradient.passes.needed(most_rows, B) if most_rows and not gradient.mixer else 1
        if gradient.passes.slices and gradient.passes.most > 1:
            found = ranks.gather(why_apart(gradient, x, y, sizes, device.put, passes))
            why = next((reason for reason in found if reason), None)
            ranks.alive()
        if gradient.mixer:
            if why:
                found = f"train.slices = {gradient.passes.slices}, expected 0"
                mixer = name_of(gradient, gradient.mixer)
                raise AgreedError(f"{found}: {why}, and {mixer} needs them in one pass")
        elif why:
            passes, note = gradient.passes.most, f"a pass takes one slice: {why}"
        elif not most_rows and (gradient.passes.slices or state.get("ranks") != ranks.size):
            passes = fastest(gradient, x, y, B, ranks, device)
        elif not most_rows:
            passes = state.get("passes", 1)
        gradient.compute_in(passes)
    if gradient.mixer and 0 < most_rows < gradient.passes.rows(B):
        what = f"{name_of(gradient, gradient.mixer)} needs all rows of a rank in one pass"
        note = f"train.rows = {most_rows} is not met: {what}"
    return note


def fastest(gradient, x, y, B, ranks, device):
    """The number of passes with which the slowest rank is fastest.  UserError: none fits."""
    V, rows = gradient.passes.slices, gradient.passes.rows_of_slice(B)
    most = gradient.passes.most if V else max(1, rows // FEWEST)
    numbers, overlap = [1], gradient.overlap
    while numbers[-1] < most:
        numbers.append(min(2 * numbers[-1], most))
    if len(numbers) == 1:
        return 1
    times, start, gradient.overlap = {passes: [] for passes in numbers}, time.perf_counter(), False
    for _ in range(ROUNDS):
        for passes in reversed(numbers):  # the last one takes the most memory
            gradient.compute_in(passes)
            times[passes].append(seconds(partial(gradient.add_slices, x, y, B), device))
            ranks.alive()
        if ranks.largest(time.perf_counter() - start)[0] > SECONDS:
            break
    gradient.overlap = overlap
    slowest = ranks.largest(*(min(times[passes][1:] or times[passes]) for passes in numbers))
    best = min(slowest)
    if best == inf:
        fits = f"train.slices above {V}" if V else f"train.rows below {-(-rows // most)}"
        what = f"one of {most} passes over {B} rows does not fit into memory"
        raise AgreedError(f"{what}, expected {fits}")
    if not V and best > FASTER * slowest[0]:
        return 1
    return numbers[slowest.index(best)]


def seconds(work, device):
    """How long it takes; infinitely long, if there is not enough memory for it."""
    device.wait()
    start = time.perf_counter()
    try:
        work()
    except MemoryError:
        return inf
    device.wait()
    return time.perf_counter() - start


def choose_overlap(step, minibatch, ranks, state):
    """Let a Step sum over ranks during Backward if this is faster than after it.

    A resumed run keeps the choice in the state of its checkpoint, because without slices the
    choice changes the bits.
    """
    gradient = step.gradient
    if state.get("ranks") == ranks.size:
        gradient.overlap = bool(state["overlap"])
    elif gradient.link.recordable:
        with unchanged(step), memory_of_passes():
            gradient.overlap = overlap_is_faster(step, minibatch, ranks)


def gradient_of(step, B, x, y, number):
    """Compute the gradient of a minibatch over all ranks, as a Step does."""
    step.add_slices(x, y, number, B)
    step.gradient.add_ranks()


def overlap_is_faster(step, minibatch, ranks):
    """Are buckets that are summed over ranks during Backward faster than one sum after it?"""
    (x, y, B), times, run = minibatch, {False: [], True: []}, step.device.run
    for overlap in (False, True) * 4:
        step.gradient.overlap = overlap
        ranks.wait()
        start = time.perf_counter()
        run(("trial", overlap), partial(gradient_of, step, B), x, y, step.number)
        step.device.wait()
        times[overlap].append(time.perf_counter() - start)
        ranks.alive()
    whole, buckets = ranks.largest(min(times[False][1:]), min(times[True][1:]))
    return buckets < whole
