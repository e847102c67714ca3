"""The gradient of a whole minibatch: over slices one after the other, and over ranks.

A minibatch is cut into V slices of consecutive rows, and each rank computes some consecutive
slices.  With slices = 0 each rank is one slice, and the MPI library chooses the order of the sum.
"""

import numpy as np

from dpedf.edf import Backward, CompNodes, Forward
from dpedf.errors import UserError
from dpedf.kernels.vector import add_in_order
from dpedf.parallel.buckets import Buckets
from dpedf.parallel.sums import LibrarySum, TreeSum, cuts, plan
from dpedf.program import during, program


class Gradient:
    """gradient(x, y, B) leaves in phi.grad the gradient of (1/B) sum_b ell[b] over all B rows.

    x, y: this rank's rows, those of shard(B).  put(x, y) sets the Inputs.
    link: the ranks, or how arrays on GPUs reach other ranks (links.py).
    slices: V, or 0.  overlap: are buckets of so many numbers summed over ranks during Backward?
    losses: (V,), the sum of ell over each slice of this rank, and 0 for those of other ranks.
    UserError: there are more ranks than slices, or slices of a node that mixes rows.
    """

    def __init__(self, ell, phi, link, put, slices=0, overlap=False, bucket=1 << 18):
        self.ell, self.phi, self.link, self.put, self.overlap = ell, phi, link, put, overlap
        self.V, self.buckets = slices or link.size, Buckets(phi, bucket)
        if self.V < link.size:
            found = f"train.slices = {slices}"
            raise UserError(f"{found}, expected 0 or at least the {link.size} ranks")
        self.mixer = next((n for n in CompNodes(ell) if getattr(n, "mixes", False)), None)
        if slices and self.mixer:
            name = program(ell).names[self.mixer]
            what = f"{name} = {type(self.mixer).__name__} mixes the rows of a minibatch"
            raise UserError(f"train.slices = {slices}, expected 0: {what}")
        owned = cuts(self.V, link.size)  # rank q computes the slices owned[q]:owned[q+1]
        self.mine = slice(*owned[link.rank : link.rank + 2])
        plans = [plan(*ends, self.V) for ends in zip(owned, owned[1:], strict=False)]
        self.plan = plans[link.rank][0]
        tree = TreeSum(link, [partial for _, partial in plans], self.V)
        self.over_ranks = tree if slices else LibrarySum(link)
        n, vectors = len(phi.value), 1 + max(k for v, k, additions in self.plan)
        # Each begins at a multiple of 256 bytes, on which the choice of a GEMM may depend.
        aligned = -(-n // 64) * 64
        self.grads = np.zeros((vectors, aligned), phi.value.dtype, like=phi.value)[:, :n]
        self.vectors = [(grad, phi.views(grad)) for grad in (self.grads[k] for k in range(vectors))]
        self.losses = np.zeros(self.V, like=phi.value)
        phi.differentiate_into(*self.vectors[0])

    def shard(self, B):
        """Where this rank's rows start among B, and where they end."""
        rows = cuts(B, self.V)
        return rows[self.mine.start], rows[self.mine.stop]

    def __call__(self, x, y, B):
        self.add_slices(x, y, B)
        self.add_ranks()

    def add_slices(self, x, y, B):
        """Compute this rank's part of the gradient; buckets start their sum over ranks."""
        rows, last = cuts(B, self.V), self.mine.stop - 1
        self.buckets.restart()
        self.over_ranks.pending.clear()  # what an abandoned recording (device/graphs.py) left
        for v, k, additions in self.plan:
            part = slice(rows[v] - rows[self.mine.start], rows[v + 1] - rows[self.mine.start])
            self.phi.differentiate_into(*self.vectors[k])
            with during(B=B, row=rows[v], add=self.add_in_nodes):
                self.put(x[part], y[part])
                Forward(self.ell, train=True)
                self.losses[v] = self.ell.value.sum(dtype=np.float64)
                ready = self.ready if v == last and self.overlap else None
                Backward(self.ell, B, ready, keep=False)
            add_in_order(self.grads, additions, 0, self.buckets.left)

    def add_ranks(self):
        """Finish the sum over ranks, of which add_slices may have started some buckets."""
        self.start(0, self.buckets.left)
        if self.link.size > 1:
            self.over_ranks.finish(self.grads)
        self.phi.differentiate_into(*self.vectors[0])

    def ready(self, p):
        """Start the sum over ranks of the buckets that are complete, now that p.grad is."""
        for low, high in self.buckets.complete(p):
            add_in_order(self.grads, self.plan[-1][2], low, high)
            self.start(low, high)

    def start(self, low, high):
        """Start the sum over ranks of phi.grad[low:high], in the pieces that the link asks for."""
        if self.link.size == 1 or low == high:
            return
        piece = self.link.piece or high - low
        for end in range(high, low, -piece):
            self.over_ranks.start(self.grads, max(low, end - piece), end, self.overlap)

    def add_in_nodes(self, array):
        """The sum over ranks of an array, in place, for a node that mixes rows."""
        if self.link.size > 1:
            self.link.start_add(array, overlap=False).Wait()
        return array
