"""Sums of gradients: of slices in one fixed binary tree, and over ranks.

The tree is that of a binary counter, ((g0 + g1) + (g2 + g3)) + (g4 + ...), so the sum of V slices
has the same bits whichever ranks compute and add them.  Across ranks, an all-to-all gives each
rank its piece of every partial sum; the rank adds them, and an all-gather returns the pieces.
This moves no more bytes than a ring allreduce.
"""

from functools import lru_cache

import numpy as np

from dpedf.kernels.vector import add_in_order


@lru_cache
def cuts(n, parts):
    """Where n things are cut into even parts: part k is cuts[k]:cuts[k+1]."""
    return tuple(n * k // parts for k in range(parts + 1))


def push_and_merge(stack, first, end, vector, V):
    """Push the sum of slices first:end, which is in this vector, on a stack of such sums.

    While the last two are the children of a node of the tree over V slices, they are merged.
    Returns the additions for this: (p, q) is vector p += vector q.
    """
    additions = []
    stack.append((first, end, vector))
    while len(stack) > 1:
        (first, middle, p), (_, end, q) = stack[-2:]
        size = middle - first
        if first % (2 * size) or end != min(first + 2 * size, V):
            break
        stack[-2:] = [(first, end, p)]
        additions.append((p, q))
    return tuple(additions)


def plan(first, end, V):
    """How a rank adds its slices first:end of V, and which partial sums are left.

    For each slice (k, additions): its gradient goes to vector k, then the additions are carried
    out in order.  The partial sums, (first, end) of each, are left in the vectors 0, 1, ...
    """
    stack, tree = [], []
    for v in range(first, end):
        k = len(stack)
        tree.append((k, push_and_merge(stack, v, v + 1, k, V)))
    return tree, [(first, end) for first, end, vector in stack]


def sum_over(link, passes):
    """What adds over ranks what these Passes leave: without slices, the library."""
    return TreeSum(link, passes.partial, passes.V) if passes.slices else LibrarySum(link)


class LibrarySum:
    """The sum over ranks of one gradient each, in the order that the library chooses."""

    def __init__(self, link):
        self.link, self.pending = link, []

    def start(self, grads, low, high, overlap):
        self.pending.append(self.link.start_add(grads[0, low:high], overlap))

    def finish(self, grads):
        for request in self.pending:
            request.Wait()
        self.pending.clear()


class TreeSum:
    """The sum over ranks of the partial sums that their slices left, in the order of the tree.

    partial: for each rank, the (first, end) of its partial sums; the k-th is in grads[k].
    """

    def __init__(self, link, partial, V):
        self.link, self.pending = link, []
        most = max(map(len, partial))
        self.senders = [[q for q, p in enumerate(partial) if k < len(p)] for k in range(most)]
        sent = [(q, k) for k in range(most) for q in self.senders[k]]
        row = {qk: number for number, qk in enumerate(sent)}  # where a partial sum is received
        stack, self.additions = [], ()
        for q, ranges in enumerate(partial):
            for k, (first, end) in enumerate(ranges):
                self.additions += push_and_merge(stack, first, end, row[q, k], V)

    def start(self, grads, low, high, overlap):
        rank, size = self.link.rank, self.link.size
        ends = [low + cut for cut in cuts(high - low, size)]  # of the piece of each rank
        width, requests, end = ends[rank + 1] - ends[rank], [], 0
        pieces = np.empty((sum(map(len, self.senders)), width), grads.dtype, like=grads)
        for k, senders in enumerate(self.senders):
            received = pieces[end : (end := end + len(senders))]
            counts = [width * (q in senders) for q in range(size)]
            sent = (grads[k], ends) if rank in senders else (grads[0], [low] * (size + 1))
            requests.append(self.link.start_exchange(*sent, received.reshape(-1), counts))
        self.pending.append((requests, pieces, ends))

    def finish(self, grads):
        collecting = []
        for requests, pieces, ends in self.pending:
            for request in requests:
                request.Wait()
            mine = slice(*ends[self.link.rank : self.link.rank + 2])
            add_in_order(pieces, self.additions, 0, pieces.shape[1])
            grads[0, mine] = pieces[0]
            collecting.append(self.link.start_collect(grads[0], ends))
        self.pending.clear()
        for request in collecting:
            request.Wait()
