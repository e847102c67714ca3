"""What a loss counts in a whole minibatch, or a whole split, before that is computed in parts.

A node counts the numbers that are not 0 of its whole_mask, if that is a node.  They depend on no
other part of the program, so that they are known before the rest is computed.
"""

import numpy as np

from dpedf.edf import CompNodes, Node
from dpedf.program import during, program


class Counts:
    """Of a loss: count() gives how many numbers are not 0, of each mask, in the rows at hand.

    masks: {node that counts: its mask}.  before: what the masks are computed by.
    """

    def __init__(self, ell):
        self.ell, masks = ell, {n: getattr(n, "whole_mask", None) for n in CompNodes(ell)}
        self.masks = {n: mask for n, mask in masks.items() if isinstance(mask, Node)}
        needed = {n for mask in self.masks.values() for n in program(mask).nodes}
        self.before = [n for n in CompNodes(ell) if n in needed]
        if any(getattr(n, "mixes", False) for n in self.before):  # it would learn twice a step
            raise ValueError("a mask of LogLoss depends on a node that mixes rows, as BatchNorm")

    def count(self, train=False):
        """(n,), float64"""
        program(self.ell).forward(train, self.before)
        found = [(mask.value != 0).sum(dtype=np.float64) for mask in self.masks.values()]
        return np.stack(found)

    def begin(self, gradient, x, y, B):
        """Tell a Gradient the shares in a whole minibatch, of which this rank has the rows x, y.

        All ranks call this together, before the passes.
        """
        if not self.masks:
            return
        first, total = gradient.shard(B)[0], 0
        for rows, slices, _ in gradient.passes.of(B):
            with during(B=B, row=first + rows.start, slices=slices):
                gradient.put(x[rows], y[rows])
                total = total + self.count(gradient.train)
        vectors = np.zeros_like(total, shape=(len(gradient.summed), len(total)))
        vectors[0] = total
        gradient.shares = self.shares(gradient.over_ranks_in_nodes(vectors), B)

    def shares(self, total, rows):
        """{node: how many numbers there are per row}, as context.shares, of the total over rows."""
        return {n: total[k] / rows for k, n in enumerate(self.masks)}
