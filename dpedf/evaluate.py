"""The loss and the accuracy of a model on rows that it does not learn from."""

import numpy as np

from dpedf.edf import Forward
from dpedf.sums import cuts

ROWS = 512  # that are computed at a time, on any number of ranks


def evaluate(Q, ell, data, split, ranks):
    """(mean loss, accuracy) over all rows of a split, the same bits on any number of ranks.

    Accuracy is the part of the labels that Q is largest at, None where y holds no labels;
    both are None of a split without rows.
    """
    sums = np.zeros((-(-len(split) // ROWS), 2))  # each block's, computed by one rank alone
    for block in range(*cuts(len(sums), ranks.size)[ranks.rank : ranks.rank + 2]):
        data.put(*split.take(split.rows[block * ROWS : (block + 1) * ROWS]))
        Forward(ell)
        sums[block, 0] = ell.value.sum(dtype=np.float64)
        if data.y.classes is not None:
            right = Q.value.argmax(axis=-1) == data.y.value
            sums[block, 1] = right.reshape(len(right), -1).mean(axis=1).sum()
        ranks.alive()
    ranks.add(sums)
    if not len(split):
        return None, None
    loss, right = sums.sum(axis=0).tolist()
    return loss / len(split), right / len(split) if data.y.classes is not None else None
