"""The gradient of a whole minibatch: over slices of its rows, and over ranks.

A minibatch is cut into V slices of rows, and each rank computes some consecutive ones (passes.py).
With slices = 0 each rank is one slice, and the MPI library chooses the order of the sum.
"""

import numpy as np

from dpedf.edf import Backward, CompNodes, Forward
from dpedf.kernels.losses import add_losses
from dpedf.kernels.slices import merge
from dpedf.parallel.buckets import Buckets
from dpedf.parallel.counts import Counts
from dpedf.parallel.passes import Passes
from dpedf.parallel.sums import sum_over
from dpedf.program import context, during, program


class Gradient:
    """gradient(x, y, B) leaves in phi.grad the gradient of (1/B) sum_b ell[b] over all B rows.

    x, y: this rank's rows, those of shard(B).  put(x, y) sets the Inputs.
    link: the ranks, or how arrays on GPUs reach other ranks (links.py).
    slices: V, or 0.  A pass takes one, unless compute_in says otherwise.  UserError: V < ranks.
    overlap: are buckets of so many numbers summed over ranks during Backward?
    losses: (V,), the sum of ell over each slice of this rank, and 0 for those of other ranks.
    totals: (V,), the sum of losses over minibatches, since somebody last wrote there.
    mixer: a node that mixes the rows of the minibatch, of which a pass takes all of this rank.
    counts: what nodes count in the whole minibatch; shares: what they found there, or 1.
    """

    def __init__(self, ell, phi, link, put, slices=0, overlap=False, bucket=1 << 18):
        self.ell, self.phi, self.link, self.put, self.overlap = ell, phi, link, put, overlap
        self.buckets, self.passes = Buckets(phi, bucket), Passes(slices, link.rank, link.size)
        self.over_ranks, self.in_nodes = (sum_over(link, self.passes) for _ in range(2))
        self.mixer = next((n for n in CompNodes(ell) if getattr(n, "mixes", False)), None)
        self.train, self.shard, self.summed, self.counts = True, self.passes.shard, (), Counts(ell)
        self.shares = self.counts.shares(np.ones_like(phi.value, shape=self.counts.ends[-1]), 1)
        self.losses, self.totals = (np.zeros(self.passes.V, like=phi.value) for _ in range(2))
        self.compute_in(1 if self.mixer else self.passes.most)

    def compute_in(self, passes):
        """From now on, compute the rows of a rank in so many passes, or in fewer."""
        self.passes.divide(passes)
        if len(self.summed) != self.passes.vectors:
            n, vectors = self.phi.summed.shape[1], self.passes.vectors
            # Each begins at a multiple of 256 bytes, on which the choice of a GEMM may depend.
            aligned = -(-n // 64) * 64
            self.summed = np.zeros_like(self.phi.value, shape=(vectors, aligned))[:, :n]

    def __call__(self, x, y, B):
        with during(step=program(self.ell).step(self.train)):
            self.counts.begin(self, x, y, B)
            self.add_slices(x, y, B)
            self.add_ranks()

    def add_slices(self, x, y, B):
        """Compute this rank's part of the gradient; buckets start their sum over ranks."""
        if self.phi.summed is not self.summed:  # at first, or after another Gradient
            self.phi.differentiate_into(self.summed)
        self.buckets.restart()
        self.over_ranks.pending.clear()  # what an abandoned recording (device/graphs.py) left
        first, passes, whole = self.shard(B)[0], self.passes.of(B), self.passes.slices > 0
        add = self.add_in_nodes if self.train else context.add
        known = {"B": B, "add": add, "shares": self.shares}
        for rows, slices, numbers in passes:  # whole: it has all rows of its slices
            begins, ends = rows is passes[0][0], rows is passes[-1][0]
            ready = self.ready if self.overlap and ends else None
            with during(row=first + rows.start, slices=slices, **known):
                self.put(x[rows], y[rows])
                Forward(self.ell, self.train)
                sums = self.losses[numbers], self.totals[numbers], self.phi.failed
                add_losses(self.ell.value, slices, *sums, whole or begins, whole or ends)
                Backward(self.ell, B, ready, keep=False)

    def add_ranks(self):
        """Finish the sum over ranks, of which add_slices may have started some buckets."""
        self.start(0, self.buckets.left)
        if self.link.size > 1:
            self.over_ranks.finish(self.summed)

    def ready(self, p):
        """Start the sum over ranks of the buckets that are complete, now that p.grad is."""
        for low, high in self.buckets.complete(p):
            self.start(low, high)

    def start(self, low, high):
        """Start the sum over ranks of phi.summed[0, low:high], in pieces that the link takes."""
        if self.link.size == 1 or low == high:
            return
        piece = self.link.piece or high - low
        for end in range(high, low, -piece):
            self.over_ranks.start(self.summed, max(low, end - piece), end, self.overlap)

    def add_in_nodes(self, parts):
        """The sum over all slices, of all ranks, of parts, (slices of this rank, n): (n,)"""
        vectors = np.zeros_like(parts, shape=(len(self.summed), parts.shape[1]))
        merge(vectors, parts, self.passes.whole_tree())
        return self.over_ranks_in_nodes(vectors)

    def over_ranks_in_nodes(self, vectors):
        """The sum over all ranks of these vectors, as many as this rank's slices leave."""
        if self.link.size > 1:
            self.in_nodes.start(vectors, 0, vectors.shape[1], overlap=False)
            self.in_nodes.finish(vectors)
        return vectors[0]
