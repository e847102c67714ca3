"""Sums of gradients: of slices in one fixed binary tree, and over ranks.

The tree is that of a binary counter, ((g0 + g1) + (g2 + g3)) + (g4 + ...): the sum of V slices
has the same bits whichever ranks compute and add them.  Across ranks it is climbed by pieces:
an all-to-all gives each rank its piece of every partial sum, it adds them, and an all-gather
returns the pieces.  That moves no more bytes than a ring allreduce.
"""

from functools import lru_cache

import numpy as np

CACHED = 1 << 15  # numbers that are added at a time, so that they stay in the cache


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
    return additions


def carry_out(additions, vectors, low, high):
    """vectors[p][low:high] += vectors[q][low:high] for each addition (p, q), in this order."""
    for here in range(low, high, CACHED) if additions else ():
        part = slice(here, min(here + CACHED, high))
        for p, q in additions:
            vectors[p][part] += vectors[q][part]


def climb(first, end, V):
    """How a rank adds its slices first:end of V, and what partial sums are left.

    Of each slice (v, k, additions): its gradient goes to vector k, then additions are carried
    out.  The partial sums (first, end) are left in vectors 0, 1, ...
    """
    sums, steps = [], []
    for v in range(first, end):
        k = len(sums)
        steps.append((v, k, push(sums, v, v + 1, k, V)))
    return steps, [(first, end) for first, end, k in sums]


class LibrarySum:
    """The sum over ranks of one gradient each, in the order of the MPI library."""

    def __init__(self, ranks):
        self.ranks, self.requests = ranks, []

    def start(self, grads, low, high, overlap):
        if overlap:
            self.requests.append(self.ranks.start_add(grads[0][low:high]))
        else:
            self.ranks.add(grads[0][low:high])

    def finish(self, grads):
        while self.requests:
            self.requests.pop().Wait()


class TreeSum:
    """The sum over ranks of the partial sums that each one's slices left, in the tree's order.

    partial: for each rank, the (first, end) of its partial sums; its k-th lies in grads[k].
    """

    def __init__(self, ranks, partial, V):
        self.ranks, self.partial, self.pending = ranks, partial, []
        sums, self.additions = [], []
        for q, ranges in enumerate(partial):
            for k, (first, end) in enumerate(ranges):
                self.additions += push(sums, first, end, (q, k), V)

    def start(self, grads, low, high, overlap):
        rank, size = self.ranks.rank, self.ranks.size
        places = [low + cut for cut in cuts(high - low, size)]
        width, requests, pieces = places[rank + 1] - places[rank], [], {}
        for k in range(max(map(len, self.partial))):
            senders = [q for q in range(size) if k < len(self.partial[q])]
            received = np.empty((len(senders), width), grads[0].dtype)
            counts = [width * (q in senders) for q in range(size)]
            sent = (grads[k], places) if rank in senders else (grads[0], [0] * (size + 1))
            requests.append(self.ranks.start_exchange(*sent, received, counts))
            pieces |= {(q, k): piece for q, piece in zip(senders, received, strict=True)}
        self.pending.append((requests, pieces, places))

    def finish(self, grads):
        collecting = []
        for requests, pieces, places in self.pending:
            for request in requests:
                request.Wait()
            mine = slice(*places[self.ranks.rank : self.ranks.rank + 2])
            carry_out(self.additions, pieces, 0, mine.stop - mine.start)
            grads[0][mine] = pieces[0, 0]
            collecting.append(self.ranks.start_collect(grads[0], places))
        self.pending.clear()
        for request in collecting:
            request.Wait()
