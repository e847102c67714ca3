"""The loss and the accuracy of a model on rows that it does not learn from."""

import numpy as np

from dpedf.device import host
from dpedf.edf import Forward
from dpedf.sums import cuts

ROWS = 512  # that are computed at a time, on any number of ranks


def evaluate(Q, ell, data, split, ranks):
    """(mean loss, accuracy) over all rows of a split, the same bits on any number of ranks.

    Accuracy is the part of the labels that Q is largest at, None where y holds no labels;
    both are None of a split without rows.
    """
    device, n = data.device, len(split)

    def found(x, y):
        """(2,): the sums over these rows of the loss, and of what is right."""
        data.put(x, y)
        Forward(ell)
        sums = np.zeros(2, like=ell.value)
        sums[0] = ell.value.sum(dtype=np.float64)
        if data.y.classes is not None:
            right = Q.value.argmax(axis=-1) == data.y.value
            sums[1] = right.reshape(len(x), -1).mean(axis=1).sum()
        return sums

    blocks = [split.rows[first : first + ROWS] for first in range(0, n, ROWS)]
    mine = slice(*cuts(len(blocks), ranks.size)[ranks.rank : ranks.rank + 2])
    sums = device.put(np.zeros((len(blocks), 2)))  # each block's, computed by one rank alone
    for k, (x, y) in enumerate(split.stream(blocks[mine]), mine.start):
        sums[k] = device.run((evaluate, ell), found, x, y)
        ranks.alive()
    sums = host(sums)
    ranks.add(sums)
    if not n:
        return None, None
    loss, right = sums.sum(axis=0).tolist()
    return loss / n, right / n if data.y.classes is not None else None
