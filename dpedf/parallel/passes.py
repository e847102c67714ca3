"""The passes in which a rank computes its rows of a minibatch."""

from itertools import pairwise

from dpedf.errors import RunError, UserError, one_line
from dpedf.kernels.slices import WHOLE, Slices
from dpedf.parallel.sums import cuts, plan


class memory_of_passes:  # noqa: N801, a word of the with statement
    """A MemoryError in the block becomes a RunError, which says what decides the size of a pass."""

    def __enter__(self):
        pass

    def __exit__(self, kind, error, trace):
        if isinstance(error, MemoryError):
            found = f"out of memory in a pass: {one_line(error) or 'none is left'}"
            less = "fewer take less memory, down to those of a slice, of train.slices"
            raise RunError(f"{found}; train.rows sets how many rows a pass takes: {less}") from None


NO_SLICE = [(0, ())]  # the tree of a rank without slices: of one that has no rows, and is not sent


class Passes:
    """Which slices, and so which rows, a rank computes, and how many slices a pass takes.

    slices: V; with 0 each rank is one slice, of which a pass takes a part.
    mine: the numbers of this rank's slices.  most: how many a rank has, at most.
    partial: for each rank, the (first, end) of the sums that its tree leaves.
    count: of passes, at most.  together: slices in a pass, at most.
    vectors: how many vectors the gradients of slices take; left: how many hold sums in the end.

    Where there are more ranks than slices, some ranks have none: they take part in all sums over
    ranks with one pass over no rows.
    """

    def __init__(self, slices, rank, size):
        self.slices, self.V = slices, slices or size
        owned = [*pairwise(cuts(self.V, size))]
        plans = [plan(*ends, self.V) for ends in owned]
        self.mine, self.most = slice(*owned[rank]), max(end - first for first, end in owned)
        self.tree, self.partial = plans[rank][0] or NO_SLICE, [partial for _, partial in plans]
        self.left = len(self.partial[rank])
        self.divide(self.most)

    def divide(self, count):
        """From now on, make so many passes, or fewer.  With slices, this changes no bit."""
        self.count, self.known, tree = count, {}, self.tree
        if not self.slices:
            tree = [(0, ())] + (count - 1) * [(1, ((0, 1),))]
        self.together = -(-self.most // count)
        self.trees = [tree[v : v + self.together] for v in range(0, len(tree), self.together)]
        self.vectors = 1 + max(k for k, additions in tree)

    def whole_tree(self):
        """The tree of all slices of this rank.  ValueError: one pass does not take them all."""
        if len(self.trees) > 1:
            found = f"a node that mixes rows, in {len(self.trees)} passes"
            raise ValueError(f"{found}, expected mixes = True in its class, which makes it one")
        return self.trees[0]

    def shard(self, B):
        """Where this rank's rows start among B, and where they end."""
        rows = cuts(B, self.V)
        return rows[self.mine.start], rows[self.mine.stop]

    def rows_of_slice(self, B):
        """How many of B rows a slice has, at most; without slices, a rank."""
        return -(-B // self.V)

    def rows(self, B):
        """How many of B rows a pass takes, at most."""
        each = self.rows_of_slice(B)
        return each * self.together if self.slices else -(-each // self.count)

    def fewest_rows(self, B):
        """How many of B rows a pass of one slice takes, at most; without slices, each pass."""
        return self.rows_of_slice(B) if self.slices else self.rows(B)

    def needed(self, most_rows, B):
        """How many passes of at most so many rows.  UserError: a slice has more."""
        each = self.rows_of_slice(B)
        if not self.slices:
            return -(-each // most_rows)
        if most_rows < each:
            found = f"train.rows = {most_rows}, expected 0 or at least {each}"
            raise UserError(f"{found}, the rows of a slice: with more slices it has fewer")
        return -(-self.most // (most_rows // each))

    def of(self, B):
        """[(rows, slices, numbers)] of each pass over B rows: which of this rank's rows it takes,
        how they are cut, and the numbers of its slices."""
        if B not in self.known:
            self.known[B] = [*self.made(B)]
        return self.known[B]

    def made(self, B):
        first, end = self.shard(B)
        ends, v = cuts(end - first, self.count), 0
        if self.slices:
            ends = [end - first for end in cuts(B, self.V)[self.mine.start : self.mine.stop + 1]]
            ends = ends if self.left else [0, 0]
        for tree in self.trees:
            here = ends[v : v + len(tree) + 1]
            whole = not self.slices and self.count == 1
            slices = WHOLE if whole else Slices([end - here[0] for end in here], tree)
            number = min(self.mine.start, self.V - 1) + (v if self.slices else 0)
            yield slice(here[0], here[-1]), slices, slice(number, number + len(tree))
            v += len(tree)
