"""The gradient of a whole minibatch: over slices of its rows, and over ranks.

A minibatch is cut into V slices of consecutive rows, and each rank computes some consecutive slices,
in one pass or in several.  With slices = 0 each rank is one slice, and the MPI library chooses the
order of the sum.
"""

import numpy as np

from dpedf.edf import Backward, CompNodes, Forward
from dpedf.errors import UserError
from dpedf.kernels.slices import WHOLE, Slices, merge, sum_of_rows
from dpedf.parallel.buckets import Buckets
from dpedf.parallel.sums import LibrarySum, TreeSum, cuts, plan
from dpedf.program import during


class Gradient:
    """gradient(x, y, B) leaves in phi.grad the gradient of (1/B) sum_b ell[b] over all B rows.

    x, y: this rank's rows, those of shard(B).  put(x, y) sets the Inputs.
    link: the ranks, or how arrays on GPUs reach other ranks (links.py).
    slices: V, or 0.  overlap: are buckets of so many numbers summed over ranks during Backward?
    A pass takes one slice, unless compute_in says otherwise, and all of them where a node mixes rows.
    losses: (V,), the sum of ell over each slice of this rank, and 0 for those of other ranks.
    UserError: there are more ranks than slices.
    """

    def __init__(self, ell, phi, link, put, slices=0, overlap=False, bucket=1 << 18):
        self.ell, self.phi, self.link, self.put, self.overlap = ell, phi, link, put, overlap
        self.slices, self.buckets = slices, Buckets(phi, bucket)
        if 0 < slices < link.size:
            found = f"train.slices = {slices}"
            raise UserError(f"{found}, expected 0 or at least the {link.size} ranks")
        self.mixer = next((n for n in CompNodes(ell) if getattr(n, "mixes", False)), None)
        owned = cuts(slices or link.size, link.size)  # rank q computes the slices owned[q]:owned[q+1]
        self.most = max(b - a for a, b in zip(owned, owned[1:], strict=False))  # slices of a rank
        plans = [plan(*ends, slices) for ends in zip(owned, owned[1:], strict=False)]
        self.tree, partial = plans[link.rank][0], [partial for _, partial in plans]
        self.over_ranks, self.in_nodes = (
            TreeSum(link, partial, slices) if slices else LibrarySum(link) for _ in range(2)
        )
        self.compute_in(1 if self.mixer else self.most)

    def compute_in(self, passes):
        """From now on, compute the rows of each rank in so many passes, or in fewer."""
        size, rank = self.link.size, self.link.rank
        if self.slices:
            self.V, tree, together = self.slices, self.tree, -(-self.most // passes)
        else:  # passes follow one another, and each is added to what is there
            self.V, tree, together = size * passes, [(0, ())] + (passes - 1) * [(1, ((0, 1),))], 1
        owned = cuts(self.V, size)
        self.mine = slice(*owned[rank : rank + 2])
        self.trees = [tree[v : v + together] for v in range(0, len(tree), together)]
        self.passes = {}  # by B
        n, vectors = len(self.phi.value), 1 + max(k for k, additions in tree)
        # Each begins at a multiple of 256 bytes, on which the choice of a GEMM may depend.
        aligned = -(-n // 64) * 64
        self.grads = np.zeros_like(self.phi.value, shape=(vectors, aligned))[:, :n]
        self.losses = np.zeros(self.V, like=self.phi.value)
        self.phi.differentiate_into(self.grads)

    def shard(self, B):
        """Where this rank's rows start among B, and where they end."""
        rows = cuts(B, self.V)
        return rows[self.mine.start], rows[self.mine.stop]

    def cut(self, B):
        """Yield (its rows of those at hand, the first of all B, slices, their numbers) of each pass."""
        rows, v = cuts(B, self.V), self.mine.start
        for tree in self.trees:
            end = v + len(tree)
            part = slice(rows[v] - rows[self.mine.start], rows[end] - rows[self.mine.start])
            ends = [row - rows[v] for row in rows[v : end + 1]]
            whole = not self.slices and len(self.trees) == 1
            yield part, rows[v], WHOLE if whole else Slices(ends, tree), slice(v, end)
            v = end

    def __call__(self, x, y, B):
        self.add_slices(x, y, B)
        self.add_ranks()

    def add_slices(self, x, y, B):
        """Compute this rank's part of the gradient; buckets start their sum over ranks."""
        self.buckets.restart()
        self.over_ranks.pending.clear()  # what an abandoned recording (device/graphs.py) left
        if B not in self.passes:
            self.passes[B] = [*self.cut(B)]
        for part, row, slices, numbers in self.passes[B]:
            ready = self.ready if self.overlap and numbers.stop == self.mine.stop else None
            with during(B=B, row=row, slices=slices, add=self.add_in_nodes):
                self.put(x[part], y[part])
                Forward(self.ell, train=True)
                losses = self.losses[numbers]
                for these, ell in slices.cut(self.ell.value):
                    losses[these] = sum_of_rows(ell.astype(np.float64))
                Backward(self.ell, B, ready, keep=False)

    def add_ranks(self):
        """Finish the sum over ranks, of which add_slices may have started some buckets."""
        self.start(0, self.buckets.left)
        if self.link.size > 1:
            self.over_ranks.finish(self.grads)

    def ready(self, p):
        """Start the sum over ranks of the buckets that are complete, now that p.grad is."""
        for low, high in self.buckets.complete(p):
            self.start(low, high)

    def start(self, low, high):
        """Start the sum over ranks of phi.grad[low:high], in the pieces that the link asks for."""
        if self.link.size == 1 or low == high:
            return
        piece = self.link.piece or high - low
        for end in range(high, low, -piece):
            self.over_ranks.start(self.grads, max(low, end - piece), end, self.overlap)

    def add_in_nodes(self, parts):
        """The sum over slices and ranks of parts, (slices of this rank, n), for a node that mixes."""
        vectors = np.zeros_like(parts, shape=(len(self.grads), parts.shape[1]))
        merge(vectors, parts, self.trees[0])
        if self.link.size > 1:
            self.in_nodes.start(vectors, 0, parts.shape[1], overlap=False)
            self.in_nodes.finish(vectors)
        return vectors[0]
