"""What a loss counts in a whole minibatch, or a whole split, before that is computed in parts.

A node counts the numbers that are not 0 of its whole_mask, if that is a node.  If it is by_label,
it counts labels of each class, which its whole_mask, (B, J), has for each row, and weight_of makes
one number of them: the sum of whole numbers has the same bits in any order of ranks.  These depend
on no other part of the program, so that they are known before the rest is computed.
"""

from itertools import accumulate, pairwise

import numpy as np

from dpedf.edf import CompNodes, Node
from dpedf.program import during, program


class Counts:
    """Of a loss: count() gives how many there are of what each node counts, in the rows at hand.

    masks: {node that counts: its mask}.  before: what the masks are computed by.
    ends: where the numbers of each begin, and where the last end.
    """

    def __init__(self, ell):
        self.ell, masks = ell, {n: getattr(n, "whole_mask", None) for n in CompNodes(ell)}
        self.masks = {n: mask for n, mask in masks.items() if isinstance(mask, Node)}
        needed = {n for mask in self.masks.values() for n in program(mask).nodes}
        widths = [mask.J if by_label(n) else 1 for n, mask in self.masks.items()]
        self.ends = [0, *accumulate(widths)]
        self.before = [n for n in CompNodes(ell) if n in needed]
        if any(getattr(n, "mixes", False) for n in self.before):  # it would learn twice a step
            raise ValueError("a mask of LogLoss depends on a node that mixes rows, as BatchNorm")

    def count(self, train=False):
        """(ends[-1],), float64"""
        program(self.ell).forward(train, self.before)
        found = [
            mask.value.sum(axis=0, dtype=np.float64)
            if by_label(n)
            else (mask.value != 0).sum(dtype=np.float64).reshape(1)
            for n, mask in self.masks.items()
        ]
        return np.concatenate(found)

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
        """{node: how much there is per row}, as context.shares, of the total over rows."""
        parts = [total[a:b] for a, b in pairwise(self.ends)]
        return {
            n: (n.weight_of(part) if by_label(n) else part[0]) / rows
            for n, part in zip(self.masks, parts, strict=True)
        }


def by_label(n):
    """Does a node count labels of each class?"""
    return getattr(n, "by_label", False)
