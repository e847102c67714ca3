"""The loss and the accuracy of a model on held-out rows."""

from math import prod

import numpy as np

from dpedf.device import host
from dpedf.edf import CompNodes, Forward
from dpedf.parallel.sums import cuts
from dpedf.program import context, during, inputs_of, kind, program
from dpedf.run.room import bytes_of_row

LABELS = 512  # per block at most, on any number of ranks, so that blocks have the same bits
BYTES = {"cpu": 1 << 20, "gpu": 1 << 26}  # a block of one pass's rows may be larger


def classifies(ell, y):
    """Does y hold labels, and does the loss depend on them?  An autoencoder's loss does not."""
    return y.classes is not None and y in program(ell).inputs


def correct(Q, y):
    """Is Q largest at the label y?  Of equal numbers the first counts; nan is never correct.

    Without an index of classes, Q is the score of class 1, which is predicted above 0.
    """
    if Q.ndim == y.ndim:
        return ((Q > 0) == y) & ~np.isnan(Q)
    return (Q.argmax(axis=-1) == y) & ~np.isnan(Q).any(axis=-1)


def loss_of(Q, ell, y):
    """The node in ell that says by counted() which labels count for this output; None: all do.

    It depends on Q, or on the node that Q alone is made from, as Softmax is from its scores.
    """
    losses = [n for n in CompNodes(ell) if hasattr(n, "counted") and n.y is y]
    while kind(Q) == "computed":
        if its := [n for n in losses if Q in CompNodes(n)]:
            return min(its, key=lambda n: len(CompNodes(n)))  # the one that is nearest to Q
        below = inputs_of(Q)
        Q = below[0] if len(below) == 1 else None
    return None


def tally(right, counted, by_rows):
    """(the labels that are right, all labels), of those that are counted, each 0 or 1.

    By rows, each row counts as one, in equal parts of its counted labels; without any, as none.
    """
    counted = counted.reshape(len(counted), -1).astype(np.float64)
    right, labels = (counted * right.reshape(counted.shape)).sum(axis=1), counted.sum(axis=1)
    if by_rows:
        right, labels = right / np.maximum(labels, 1), labels > 0
    return right.sum(), labels.sum()


def rows_of_block(ell, data, split, rows):
    """How many rows are computed at a time: so many, those of a pass, or more if they are small."""
    data.put(*split.load(split.numbers[:0]))
    Forward(ell)
    row = bytes_of_row(ell) + prod(data.x.shape) * data.x.dtype.itemsize
    rows = max(rows, BYTES[data.device.unit] // max(1, row))
    return max(1, min(rows, LABELS // prod(data.y.shape)))


def evaluate(Q, ell, data, split, ranks, rows=1):
    """(mean loss, accuracy) over all rows of a split, the same bits on any number of ranks.

    Accuracy is the share of labels that Q predicts, of those that the loss counts: where this is
    a mean of each row's mean, so is accuracy, over the rows with labels that count.  It is None if
    no label counts, or ell depends on none.  Without rows both are None.

    rows: of a pass of training, which then takes at least as much memory, or a few MiB.
    """
    device, n, classifier = data.device, len(split), classifies(ell, data.y)
    if not n:
        return None, None
    counting = loss_of(Q, ell, data.y)
    by_rows = getattr(counting, "mean", "rows") == "rows"

    def found(x, y, step):
        """(3,): the sums over these rows of the loss, of correct labels, and of labels."""
        for n in CompNodes(ell):
            n.value = None  # of the block before, so that its memory can be used again
        data.put(x, y)
        with during(step=step):
            Forward(ell)
        sums = np.zeros(3, like=ell.value)
        sums[0] = ell.value.sum(dtype=np.float64)
        if classifier:
            y = data.y.value
            counted = counting.counted() if counting else np.ones_like(y)
            sums[1], sums[2] = tally(correct(Q.value, y), counted, by_rows)
        return sums

    rows = rows_of_block(ell, data, split, rows)
    blocks = [split.numbers[first : first + rows] for first in range(0, n, rows)]
    mine = slice(*cuts(len(blocks), ranks.size)[ranks.rank : ranks.rank + 2])
    sums = device.put(np.zeros((len(blocks), 3)))  # each row is computed by one rank
    for k, (x, y) in enumerate(split.stream(blocks[mine]), mine.start):
        sums[k] = device.run((evaluate, ell), found, x, y, context.step)
        ranks.alive()
    sums = host(sums)
    ranks.add(sums)
    loss, correct_labels, labels = sums.sum(axis=0).tolist()
    return loss / n, correct_labels / labels if labels else None
