"""The gradient of a whole minibatch: over slices one after the other, and over ranks.

A minibatch is cut into V slices of consecutive rows, and each rank computes some consecutive
ones.  With slices = 0 there is a slice a rank, and the sum is in the MPI library's order.
"""

import numpy as np

from dpedf.edf import Backward, Forward, context
from dpedf.errors import UserError
from dpedf.sums import LibrarySum, TreeSum, carry_out, climb, cuts


class Gradient:
    """gradient(x, y, B) leaves in phi.grad the gradient of (1/B) sum_b ell[b] over all B rows.

    x, y: this rank's rows, those of shard(B).  put(x, y) sets the Inputs.
    slices: V, or 0.  overlap: are buckets summed over ranks while Backward runs?
    bucket: numbers.  UserError: more ranks than slices.
    losses: (V,), the sum of ell over each slice of this rank, 0 elsewhere.
    """

    def __init__(self, ell, phi, ranks, put, slices=0, overlap=False, bucket=1 << 18):
        self.ell, self.phi, self.ranks, self.put = ell, phi, ranks, put
        self.overlap, self.bucket = overlap, bucket
        self.V = slices or ranks.size
        if self.V < ranks.size:
            raise UserError(
                f"train.slices = {slices}, expected 0 or at least the {ranks.size} ranks"
            )
        self.losses = np.zeros(self.V)
        owned = cuts(self.V, ranks.size)  # by rank q: slices owned[q]:owned[q+1]
        self.mine = slice(*owned[ranks.rank : ranks.rank + 2])
        climbs = [climb(*q, self.V) for q in zip(owned, owned[1:], strict=False)]
        self.steps = climbs[ranks.rank][0]
        tree = TreeSum(ranks, [partial for steps, partial in climbs], self.V)
        self.over_ranks = tree if slices else LibrarySum(ranks)
        extra = max(k for v, k, additions in self.steps)
        self.grads = [phi.grad, *(np.empty_like(phi.grad) for _ in range(extra))]
        self.views = [phi.views(grad) for grad in self.grads]

    def shard(self, B):
        """Where this rank's rows start among B, and where they end."""
        rows = cuts(B, self.V)
        return rows[self.mine.start], rows[self.mine.stop]

    def __call__(self, x, y, B):
        rows, phi, last = cuts(B, self.V), self.phi, self.mine.stop - 1
        start, context.B = rows[self.mine.start], B
        for v, k, additions in self.steps:
            phi.differentiate_into(self.grads[k], self.views[k])
            context.row, here = rows[v], slice(rows[v] - start, rows[v + 1] - start)
            self.put(x[here], y[here])
            Forward(self.ell, train=True)
            self.losses[v] = self.ell.value.astype(np.float64).sum()
            if v < last:
                Backward(self.ell, B)
                carry_out(additions, self.grads, 0, len(phi.grad))
        self.done, self.waiting = set(), len(phi.grad)
        Backward(self.ell, B, self.ready if self.overlap else None)
        self.add(self.waiting)
        if self.ranks.size > 1:
            self.over_ranks.finish(self.grads)
        phi.differentiate_into(self.grads[0], self.views[0])

    def ready(self, p):
        """Sum full buckets of what is complete: all that stands after a parameter to come."""
        self.done.add(p)
        complete = len(self.phi.parameters)
        while complete and self.phi.parameters[complete - 1] in self.done:
            complete -= 1
        while self.waiting - self.phi.offsets[complete] >= self.bucket:
            self.add(self.bucket)

    def add(self, n):
        """Finish the last n numbers of phi.grad that wait, and start their sum over ranks."""
        high = self.waiting
        self.waiting = low = high - n
        v, k, additions = self.steps[-1]
        carry_out(additions, self.grads, low, high)
        if self.ranks.size > 1:
            self.over_ranks.start(self.grads, low, high, self.overlap)
