"""Sum over ranks during Backward, or after it?  A trial before the first step decides."""

import time
from contextlib import contextmanager
from functools import partial


@contextmanager
def unchanged(phi):
    """Inside the with block, a trial may change the running values of computed nodes."""
    before = {name: array.copy() for name, array in phi.state.items()}
    yield
    for name, array in before.items():
        phi.state[name][...] = array


def overlap_is_faster(gradient, minibatch, ranks, device):
    """Are buckets that are summed over ranks during Backward faster than one sum after it?"""
    (x, y, B), times = minibatch, {False: [], True: []}
    with unchanged(gradient.phi):
        for overlap in (False, True) * 4:
            gradient.overlap = overlap
            ranks.wait()
            start = time.perf_counter()
            device.run((gradient, overlap), partial(gradient, B=B), x, y)
            device.wait()
            times[overlap].append(time.perf_counter() - start)
    whole, buckets = ranks.largest(min(times[False][1:]), min(times[True][1:]))
    return buckets < whole


def choose_overlap(gradient, minibatch, ranks, device, state):
    """Set gradient.overlap to what is faster; in a run that goes on, from its checkpoint's state.

    Without slices the bits depend on it, and another trial might end otherwise.
    """
    if state.get("ranks") == ranks.size:
        gradient.overlap = bool(state["overlap"])
    else:
        recordable = gradient.link.recordable
        gradient.overlap = recordable and overlap_is_faster(gradient, minibatch, ranks, device)
