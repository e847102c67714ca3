"""Sum over ranks during Backward, or after it?  A trial before the first step decides."""

import time
from contextlib import contextmanager
from functools import partial


@contextmanager
def unchanged(phi):
    """After the with block, the running values of computed nodes are what they were before."""
    before = {name: array.copy() for name, array in phi.state.items()}
    try:
        yield
    finally:
        for name, array in before.items():
            phi.state[name][...] = array


def choose_overlap(step, minibatches, ranks, state):
    """Let a Step sum over ranks during Backward if this is faster than after it.

    A resumed run keeps the choice in the state of its checkpoint, because without slices the
    choice changes the bits.
    """
    gradient = step.gradient
    if state.get("ranks") == ranks.size:
        gradient.overlap = bool(state["overlap"])
    elif gradient.link.recordable:
        with step.context(), unchanged(gradient.phi):
            gradient.overlap = overlap_is_faster(gradient, next(minibatches), ranks, step.device)


def overlap_is_faster(gradient, minibatch, ranks, device):
    """Are buckets that are summed over ranks during Backward faster than one sum after it?"""
    (x, y, B), times = minibatch, {False: [], True: []}
    for overlap in (False, True) * 4:
        gradient.overlap = overlap
        ranks.wait()
        start = time.perf_counter()
        device.run((gradient, overlap), partial(gradient, B=B), x, y)
        device.wait()
        times[overlap].append(time.perf_counter() - start)
    whole, buckets = ranks.largest(min(times[False][1:]), min(times[True][1:]))
    return buckets < whole
