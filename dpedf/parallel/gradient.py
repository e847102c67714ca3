"""The gradient of a whole minibatch: over slices of its rows, and over ranks.

A minibatch is cut into V slices of consecutive rows, and each rank computes some consecutive slices,
in one pass or in several.  With slices = 0 each rank is one slice, and the MPI library chooses the
order of the sum.
"""

from itertools import pairwise

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
        self.slices, self.buckets, self.V = slices, Buckets(phi, bucket), slices or link.size
        if self.V < link.size:
            found = f"train.slices = {slices}"
            raise UserError(f"{found}, expected 0 or at least the {link.size} ranks")
        self.train = True  # but in a trial (trial.py)
        self.mixer = next((n for n in CompNodes(ell) if getattr(n, "mixes", False)), None)
        owned = cuts(self.V, link.size)  # rank q computes the slices owned[q]:owned[q+1]
        self.mine = slice(*owned[link.rank : link.rank + 2])
        self.most = max(end - first for first, end in pairwise(owned))  # slices of a rank
        plans = [plan(*ends, self.V) for ends in pairwise(owned)]
        self.tree, partial = plans[link.rank][0], [partial for _, partial in plans]
        self.partial = len(partial[link.rank])  # sums that the tree of this rank leaves
        self.over_ranks, self.in_nodes = (
            TreeSum(link, partial, self.V) if slices else LibrarySum(link) for _ in range(2)
        )
        self.grads, self.losses = (), np.zeros(self.V, like=phi.value)
        self.compute_in(1 if self.mixer else self.most)

    def compute_in(self, passes):
        """From now on, compute the rows of a rank in so many passes, or in fewer.

        With slices, a pass takes some of them.  Without, it takes a part of the rows, and what it
        adds to the gradient is rounded by how many passes there are.
        """
        self.count, self.passes, tree = passes, {}, self.tree
        if not self.slices:
            tree = [(0, ())] + (passes - 1) * [(1, ((0, 1),))]
        self.together = -(-self.most // passes)  # slices of a pass, at most
        steps = range(0, len(tree), self.together)
        self.trees = [tuple(tree[v : v + self.together]) for v in steps]
        n, vectors = len(self.phi.value), 1 + max(k for k, additions in tree)
        if vectors != len(self.grads):
            # Each begins at a multiple of 256 bytes, on which the choice of a GEMM may depend.
            aligned = -(-n // 64) * 64
            self.grads = np.zeros_like(self.phi.value, shape=(vectors, aligned))[:, :n]
            self.phi.differentiate_into(self.grads)

    def shard(self, B):
        """Where this rank's rows start among B, and where they end."""
        rows = cuts(B, self.V)
        return rows[self.mine.start], rows[self.mine.stop]

    def rows_of_pass(self, B):
        """How many of B rows a pass takes, at most."""
        each = -(-B // self.V)  # rows of a slice or, without slices, of a rank
        return each * self.together if self.slices else -(-each // self.count)

    def cut(self, B):
        """[(rows, slices, losses)] of each pass: its rows of those of this rank, how they are cut,
        and where the losses of its slices go."""
        if B not in self.passes:
            first, last = self.shard(B)
            ends, v, made = cuts(last - first, self.count), 0, []
            if self.slices:
                ends = [end - first for end in cuts(B, self.V)[self.mine.start : self.mine.stop + 1]]
            for tree in self.trees:
                low, *_ = here = ends[v : v + len(tree) + 1]
                whole = not self.slices and self.count == 1
                slices = WHOLE if whole else Slices([end - low for end in here], tree)
                at = self.mine.start + v * bool(self.slices)
                made.append((slice(low, here[-1]), slices, self.losses[at : at + len(tree)]))
                v += len(tree)
            self.passes[B] = made
        return self.passes[B]

    def __call__(self, x, y, B):
        self.add_slices(x, y, B)
        self.add_ranks()

    def add_slices(self, x, y, B):
        """Compute this rank's part of the gradient; buckets start their sum over ranks."""
        self.buckets.restart()
        self.over_ranks.pending.clear()  # what an abandoned recording (device/graphs.py) left
        self.losses.fill(0)
        first, passes = self.shard(B)[0], self.cut(B)
        for number, (rows, slices, losses) in enumerate(passes, 1):
            with during(B=B, row=first + rows.start, slices=slices, add=self.add_in_nodes):
                self.put(x[rows], y[rows])
                Forward(self.ell, self.train)
                for these, ell in slices.cut(self.ell.value):
                    sums = losses[these]
                    sums += sum_of_rows(ell.astype(np.float64))
                ready = self.ready if self.overlap and number == len(passes) else None
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
