"""The loss and the accuracy of a model on held-out rows."""

from math import prod

import numpy as np

from dpedf.device import host
from dpedf.edf import Forward
from dpedf.parallel.sums import cuts
from dpedf.program import context, during, program

LABELS = 512  # per block, on any number of ranks


def classifies(ell, y):
    """Does y hold labels, and does the loss depend on them?  An autoencoder's loss does not."""
    return y.classes is not None and y in program(ell).inputs


def correct(Q, y):
    """Is Q largest at the label y?  Without an index of classes, Q is the score of class 1."""
    return (Q > 0) == y if Q.ndim == y.ndim else Q.argmax(axis=-1) == y


def evaluate(Q, ell, data, split, ranks):
    """(mean loss, accuracy) over all rows of a split, the same bits on any number of ranks.

    Accuracy is the share of labels that Q predicts; None if ell depends on no labels.  Without rows
    both are None.
    """
    device, n, classifier = data.device, len(split), classifies(ell, data.y)

    def found(x, y, step):
        """(2,): the sums over these rows of the loss, and of the share of correct labels."""
        data.put(x, y)
        with during(step=step):
            Forward(ell)
        sums = np.zeros(2, like=ell.value)
        sums[0] = ell.value.sum(dtype=np.float64)
        if classifier:
            sums[1] = correct(Q.value, data.y.value).reshape(len(x), -1).mean(axis=1).sum()
        return sums

    rows = max(1, LABELS // prod(data.y.shape))
    blocks = [split.numbers[first : first + rows] for first in range(0, n, rows)]
    mine = slice(*cuts(len(blocks), ranks.size)[ranks.rank : ranks.rank + 2])
    sums = device.put(np.zeros((len(blocks), 2)))  # each row is computed by one rank
    for k, (x, y) in enumerate(split.stream(blocks[mine]), mine.start):
        sums[k] = device.run((evaluate, ell), found, x, y, context.step)
        ranks.alive()
    sums = host(sums)
    ranks.add(sums)
    if not n:
        return None, None
    loss, accuracy = sums.sum(axis=0).tolist()
    return loss / n, accuracy / n if classifier else None
