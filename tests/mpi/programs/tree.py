"""Sums over ranks have the bits of one rank's, for any slices, length, and bucket."""

from itertools import pairwise

import numpy as np

from dpedf.kernels.vector import add_in_order
from dpedf.parallel import job
from dpedf.parallel.sums import TreeSum, cuts, plan


def whole(leaves):
    """The tree of one rank."""
    tree, partial = plan(0, len(leaves), len(leaves))
    assert partial == [(0, len(leaves))]
    return added(leaves, tree)[0]


def added(leaves, tree):
    """The vectors in which a rank adds its leaves, as this tree of them says."""
    vectors = np.empty((1 + max(k for k, _ in tree), len(leaves[0])), leaves.dtype)
    for leaf, (k, additions) in zip(leaves, tree, strict=True):
        vectors[k][...] = leaf
        add_in_order(vectors, additions, 0, len(leaf))
    return vectors


def shared(leaves, ranks, bucket):
    """The tree of all ranks, by buckets from the end, as Backward completes them."""
    V, n = len(leaves), len(leaves[0])
    owned = cuts(V, ranks.size)
    plans = [plan(*ends, V) for ends in pairwise(owned)]
    mine = leaves[owned[ranks.rank] : owned[ranks.rank + 1]]
    vectors = added(mine, plans[ranks.rank][0])
    over_ranks = TreeSum(ranks, [partial for _, partial in plans], V)
    for high in range(n, 0, -bucket):
        over_ranks.start(vectors, max(0, high - bucket), high, overlap=True)
    over_ranks.finish(vectors)
    return vectors[0]


def main(ranks):
    random = np.random.default_rng(0)
    sums = 0
    for V in [*range(ranks.size, 20), 33, 64]:
        for n in 1, 5, 1000, 70_000:
            leaves = (random.normal(size=(V, n)) * 10.0 ** random.integers(-8, 8, (V, 1))).astype(
                "f"
            )
            expected = whole(leaves)
            for bucket in n, max(1, n // 3), max(1, n // 7):
                assert shared(leaves, ranks, bucket).tobytes() == expected.tobytes(), (V, n, bucket)
                sums += 1
    ranks.say(f"{sums} sums")
    return 0


job.run(main)
