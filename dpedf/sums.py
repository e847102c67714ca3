"""Sums of gradients: of slices in one fixed binary tree, and over ranks.

The tree is that of a binary counter, ((g0 + g1) + (g2 + g3)) + (g4 + ...): the sum of V slices
has the same bits whichever ranks compute and add them.  Across ranks it is climbed by pieces:
an all-to-all gives each rank its piece of every partial sum, it adds them, and an all-gather
returns the pieces.  That moves no more bytes than a ring allreduce.
"""

from functools import lru_cache

import numpy as np

from dpedf.kernels.vector import add_in_order


@lru_cache
def cuts(n, parts):
    """Where n things are cut into parts as even as can be: part k is cuts[k]:cuts[k+1]."""
    return tuple(n * k // parts for k in range(parts + 1))


def push(sums, first, end, name, V):
    """Push the sum of slices first:end on a stack of such sums, and return what can be added.

    The last two are added where they are the children of a node of the tree over V slices.
    An addition (p, q) is p += q; afterwards the stack has p for both.
    """
    additions = []
    sums.append((first, end, name))
    while len(sums) > 1:
        (first, middle, p), (_, end, q) = sums[-2:]
        size = middle - first
        if first % (2 * size) or end != min(first + 2 * size, V):
            break
        sums[-2:] = [(first, end, p)]
        additions.append((p, q))
    return tuple(additions)


def climb(first, end, V):
    """How a rank adds its slices first:end of V, and what partial sums are left.

    Of each slice (v, k, additions): its gradient goes to vector k, then additions are carried
    out, in order.  The partial sums (first, end) are left in vectors 0, 1, ...
    """
    sums, steps = [], []
    for v in range(first, end):
        k = len(sums)
        steps.append((v, k, push(sums, v, v + 1, k, V)))
    return steps, [(first, end) for first, end, k in sums]


class LibrarySum:
    """The sum over ranks of one gradient each, in the order of the library that adds.

    wire: the ranks, or how arrays of GPUs reach them.
    """

    def __init__(self, wire):
        self.wire, self.pending = wire, []

    def start(self, grads, low, high, overlap):
        self.pending.append(self.wire.start_add(grads[0, low:high], overlap))

    def finish(self, grads):
        for request in self.pending:
            request.Wait()
        self.pending.clear()


class TreeSum:
    """The sum over ranks of the partial sums that each one's slices left, in the tree's order.

    partial: for each rank, the (first, end) of its partial sums; its k-th lies in grads[k].
    """

    def __init__(self, wire, partial, V):
        self.wire, self.pending = wire, []
        most = max(map(len, partial))
        self.senders = [[q for q, p in enumerate(partial) if k < len(p)] for k in range(most)]
        rows = {
            qk: row for row, qk in enumerate((q, k) for k in range(most) for q in self.senders[k])
        }
        sums, self.additions = [], ()
        for q, ranges in enumerate(partial):
            for k, (first, end) in enumerate(ranges):
                self.additions += push(sums, first, end, rows[q, k], V)

    def start(self, grads, low, high, overlap):
        rank, size = self.wire.rank, self.wire.size
        places = [low + cut for cut in cuts(high - low, size)]
        width, requests, end = places[rank + 1] - places[rank], [], 0
        pieces = np.empty((sum(map(len, self.senders)), width), grads.dtype, like=grads)
        for k, senders in enumerate(self.senders):
            received = pieces[end : (end := end + len(senders))]
            counts = [width * (q in senders) for q in range(size)]
            sent = (grads[k], places) if rank in senders else (grads[0], [low] * (size + 1))
            requests.append(self.wire.start_exchange(*sent, received.reshape(-1), counts))
        self.pending.append((requests, pieces, places))

    def finish(self, grads):
        collecting = []
        for requests, pieces, places in self.pending:
            for request in requests:
                request.Wait()
            mine = slice(*places[self.wire.rank : self.wire.rank + 2])
            add_in_order(pieces, self.additions, 0, pieces.shape[1])
            grads[0, mine] = pieces[0]
            collecting.append(self.wire.start_collect(grads[0], places))
        self.pending.clear()
        for request in collecting:
            request.Wait()
