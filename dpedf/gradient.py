"""The gradient of a whole minibatch: over slices one after the other, and over ranks.

A minibatch is cut into V slices of consecutive rows, and each rank computes some consecutive
ones.  With slices = 0 there is a slice a rank, and the sum is in the MPI library's order.
"""

import time
from contextlib import contextmanager
from functools import partial

import numpy as np

from dpedf.edf import Backward, CompNodes, Forward, context
from dpedf.errors import UserError
from dpedf.kernels.vector import add_in_order
from dpedf.sums import LibrarySum, TreeSum, climb, cuts


class Gradient:
    """gradient(x, y, B) leaves in phi.grad the gradient of (1/B) sum_b ell[b] over all B rows.

    x, y: this rank's rows, those of shard(B).  put(x, y) sets the Inputs.
    wire: the ranks, or how arrays of GPUs reach them.
    slices: V, or 0.  overlap: are buckets summed over ranks while Backward runs?
    bucket: numbers.  UserError: more ranks than slices, or slices of what mixes rows.
    losses: (V,), the sum of ell over each slice of this rank, 0 elsewhere.
    """

    def __init__(self, ell, phi, wire, put, slices=0, overlap=False, bucket=1 << 18):
        self.ell, self.phi, self.wire, self.put = ell, phi, wire, put
        self.overlap, self.bucket = overlap, bucket
        self.V = slices or wire.size
        if self.V < wire.size:
            raise UserError(
                f"train.slices = {slices}, expected 0 or at least the {wire.size} ranks"
            )
        self.mixer = next((n for n in CompNodes(ell) if getattr(n, "mixes", False)), None)
        if slices and self.mixer:
            what = f"{self.mixer.name} = {type(self.mixer).__name__} mixes the rows of a minibatch"
            raise UserError(f"train.slices = {slices}, expected 0: {what}")
        self.losses = np.zeros(self.V, like=phi.value)
        owned = cuts(self.V, wire.size)  # by rank q: slices owned[q]:owned[q+1]
        self.mine = slice(*owned[wire.rank : wire.rank + 2])
        climbs = [climb(*q, self.V) for q in zip(owned, owned[1:], strict=False)]
        self.steps = climbs[wire.rank][0]
        tree = TreeSum(wire, [partial for steps, partial in climbs], self.V)
        self.over_ranks = tree if slices else LibrarySum(wire)
        n, vectors = len(phi.value), 1 + max(k for v, k, additions in self.steps)
        # Each begins at a multiple of 256 bytes, on which the choice of a GEMM may depend.
        aligned = -(-n // 64) * 64
        self.grads = np.zeros((vectors, aligned), phi.value.dtype, like=phi.value)[:, :n]
        self.vectors = [(grad, phi.views(grad)) for grad in (self.grads[k] for k in range(vectors))]
        phi.differentiate_into(*self.vectors[0])

    def shard(self, B):
        """Where this rank's rows start among B, and where they end."""
        rows = cuts(B, self.V)
        return rows[self.mine.start], rows[self.mine.stop]

    def __call__(self, x, y, B):
        self.add_slices(x, y, B)
        self.add_ranks()

    def add_slices(self, x, y, B):
        """The part of the gradient that this rank computes; buckets start their sum over ranks."""
        rows, phi, last = cuts(B, self.V), self.phi, self.mine.stop - 1
        start, context.B, context.add = rows[self.mine.start], B, self.added
        self.done, self.waiting = set(), len(phi.value)
        self.over_ranks.pending.clear()  # where recording was given up, some is left
        for v, k, additions in self.steps:
            phi.differentiate_into(*self.vectors[k])
            context.row, here = rows[v], slice(rows[v] - start, rows[v + 1] - start)
            self.put(x[here], y[here])
            Forward(self.ell, train=True)
            self.losses[v] = self.ell.value.sum(dtype=np.float64)
            if v < last:
                Backward(self.ell, B, keep=False)
                add_in_order(self.grads, additions, 0, self.waiting)
        Backward(self.ell, B, self.ready if self.overlap else None, keep=False)
        self.rest = self.complete(self.waiting)

    def added(self, array):
        """The sum over ranks of an array, in place, for a node that mixes rows."""
        if self.wire.size > 1:
            self.wire.start_add(array, False).Wait()
        return array

    def add_ranks(self):
        """Finish what add_slices began, the sum over ranks."""
        self.start(*self.rest)
        if self.wire.size > 1:
            self.over_ranks.finish(self.grads)
        self.phi.differentiate_into(*self.vectors[0])

    def ready(self, p):
        """Sum full buckets of what is complete: all that stands after a parameter to come."""
        self.done.add(p)
        complete = len(self.phi.parameters)
        while complete and self.phi.parameters[complete - 1] in self.done:
            complete -= 1
        while self.waiting - self.phi.offsets[complete] >= self.bucket:
            self.start(*self.complete(self.bucket))

    def complete(self, n):
        """Add the slices of the last n numbers of phi.grad that wait; where they lie."""
        high = self.waiting
        self.waiting = low = high - n
        v, k, additions = self.steps[-1]
        add_in_order(self.grads, additions, low, high)
        return low, high

    def start(self, low, high):
        """Start the sum over ranks of phi.grad[low:high], in the pieces that the wire asks for."""
        if self.wire.size == 1 or low == high:
            return
        piece = self.wire.piece or high - low
        for end in range(high, low, -piece):
            self.over_ranks.start(self.grads, max(low, end - piece), end, self.overlap)


@contextmanager
def unchanged(phi):
    """What is tried inside leaves the running values of computed nodes as they were."""
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
