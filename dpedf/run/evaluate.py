"""The loss and the accuracy of a model on held-out rows, and which classes it confuses."""

from math import nan, prod
from typing import NamedTuple

import numpy as np

from dpedf.device import host
from dpedf.edf import CompNodes, Forward
from dpedf.parallel.counts import Counts
from dpedf.parallel.passes import memory_of_passes
from dpedf.parallel.sums import cuts
from dpedf.program import context, during, program
from dpedf.run.measures import among_top, errors, of_regression
from dpedf.run.room import bytes_of_row
from dpedf.run.scores import MOST, Scores

# What a block has on any number of ranks: so many labels at most, and so many bytes of values,
# unless its rows are those of a pass of training.
LABELS, BYTES = 512, {"cpu": 1 << 20, "gpu": 1 << 26}


def classifies(ell, y):
    """Does y hold labels, and does the loss depend on them?  An autoencoder's loss does not."""
    return y.classes is not None and y in program(ell).inputs


def parts_of(ell):
    """{name: node} of what a model reports beside its loss (run/build.py)."""
    return getattr(program(ell), "parts", {})


class Found(NamedTuple):
    """What an evaluation finds.

    loss, accuracy: as evaluate returns them.  n: how many labels, or rows with labels, accuracy is
    a share of.  scores: the Scores of all labels that count; None without labels, or with too many
    classes.  metrics: {name: what measures.py calls so, or the mean of one of parts_of(ell)}.
    """

    loss: float | None = None
    accuracy: float | None = None
    n: int = 0
    scores: Scores | None = None
    metrics: dict = {}


def predicted(Q, indices):
    """The class at which Q is largest, of equal ones the first; -1 where one of them is nan.

    indices: how many a label has.  Where Q has no more, it is the score of class 1, which is
    predicted above 0.
    """
    if Q.ndim == indices:
        return np.where(np.isnan(Q), -1, (Q > 0).astype(np.int64))
    return np.where(np.isnan(Q).any(axis=-1), -1, Q.argmax(axis=-1))


def labels_of(loss):
    """What has the labels of a loss, before they got the shape in which it takes them."""
    y = getattr(loss, "y", None)
    while getattr(y, "keeps_order", False):
        y = y.x
    return y


def loss_of(Q, ell, y):
    """The node in ell that says by counted() which labels count for this output; None: all do."""
    losses = [n for n in CompNodes(ell) if hasattr(n, "counted")]
    losses = [n for n in losses if labels_of(n) is y and Q in CompNodes(n)]
    return min(losses, key=lambda n: len(CompNodes(n)), default=None)  # the nearest to Q


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
    """How many rows are computed at a time: so many, or more if they are small."""
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

    rows: of a pass of training.  No more are computed at a time, unless they take little memory.
    """
    found = measure(Q, ell, data, split, ranks, rows, pairs=False)
    return found.loss, found.accuracy


def measure(Q, ell, data, split, ranks, rows=1, pairs=True, metrics=()):
    """The same as a Found, with these metrics, counted in the same look at the rows.

    pairs: with its scores.
    """
    device, n, classifier = data.device, len(split), classifies(ell, data.y)
    if not n:
        return Found()
    counting, counts, parts = loss_of(Q, ell, data.y), Counts(ell), parts_of(ell)
    by_rows = getattr(counting, "mean", "rows") == "rows"
    J, taken = data.y.classes, None
    regression = bool(metrics) and not classifier
    if (pairs or "f1" in metrics) and classifier and J <= MOST:
        taken = np.zeros((J, J + 1), np.int64)

    def positions(x, y, row, step):
        """How many positions are counted in these rows, of each loss that counts those of all."""
        data.put(x, y)
        with during(row=row, step=step):
            return counts.count(), ()

    def found(x, y, row, step, a_row):
        """(width,): the sums over these rows of the loss and its parts; then of a classifier, of
        correct labels, of labels, of those among the top classes; of a regression, what errors
        finds.

        And of a classifier the labels, what is predicted, and what of it counts.
        a_row: how many positions are counted in a row, on average over the split.
        """
        for node in CompNodes(ell):
            node.value = None  # of the block before, so that its memory can be used again
        data.put(x, y)
        with during(row=row, step=step, shares=counts.shares(a_row, 1)):
            Forward(ell)
        sums, labels = np.zeros(width, like=ell.value), ()
        sums[0] = ell.value.sum(dtype=np.float64)
        for k, part in enumerate(parts.values(), 1):
            sums[k] = part.value.sum(dtype=np.float64)
        if classifier:
            y = data.y.value
            counted = counting.counted() if counting else np.ones_like(y)
            guess = predicted(Q.value, y.ndim)
            sums[begin], sums[begin + 1] = tally(guess == y, counted, by_rows)
            if "top5" in metrics:
                sums[begin + 2] = tally(among_top(Q.value, y), counted, by_rows)[0]
            labels = y, guess, counted
        elif regression:
            sums[begin:] = errors(Q.value, data.y.value)
        return sums, labels

    rows = rows_of_block(ell, data, split, rows)
    begin = 1 + len(parts)
    width = begin + (4 * prod(data.y.shape) if regression else 3 * classifier)
    blocks = [split.numbers[first : first + rows] for first in range(0, n, rows)]
    mine = slice(*cuts(len(blocks), ranks.size)[ranks.rank : ranks.rank + 2])

    def total(function, width, *arguments):
        """What a function finds in each block, (blocks, width)."""
        sums = device.put(np.zeros((len(blocks), width)))  # each row is computed by one rank
        for k, (x, y) in enumerate(split.stream(blocks[mine]), mine.start):
            key = function.__name__, ell, metrics
            with memory_of_passes():
                where = x, y, k * rows, context.step  # rows draw by their place in the split
                sums[k], labels = device.run(key, function, *where, *arguments)
            if labels and taken is not None:
                count(taken, *map(host, labels))
            ranks.alive()
        sums = host(sums)
        ranks.add(sums)
        return sums

    counted = total(positions, counts.ends[-1]).sum(axis=0) if counts.masks else np.zeros(0)
    sums = total(found, width, device.put(counted / n))
    loss, *others = sums.sum(axis=0).tolist()
    right, labels, top = others[len(parts) :] if classifier else (0.0, 0.0, 0.0)
    if taken is not None:
        ranks.add(taken)
    scores = None if taken is None else Scores(taken)
    if regression:
        known = of_regression(sums[:, begin:], [*map(len, blocks)])
    else:
        f1 = float(scores.macro[2]) if scores else nan
        known = {"top5": top / labels if labels else nan, "f1": f1}
    metrics = {name: known[name] for name in metrics}
    metrics |= {name: part / n for name, part in zip(parts, others, strict=False)}
    return Found(loss / n, right / labels if labels else None, int(labels), scores, metrics)


def count(taken, y, guess, counted):
    """Add 1 to taken[y, guess] for each label that counts; a guess of -1 is in the last column."""
    counts = counted > 0
    np.add.at(taken, (y[counts], guess[counts]), 1)
