"""The loss and the accuracy of a model on held-out rows, and which classes it confuses."""

from math import prod
from typing import NamedTuple

import numpy as np

from dpedf.device import host
from dpedf.edf import CompNodes, Forward
from dpedf.parallel.counts import Counts
from dpedf.parallel.passes import memory_of_passes
from dpedf.parallel.sums import cuts
from dpedf.program import context, during, program
from dpedf.run.room import bytes_of_row
from dpedf.run.scores import Scores
from dpedf.run.targets import Labels, Numbers, Targets

# What a block has on any number of ranks: so many labels at most, or rows without, and so many
# bytes of values, unless its rows are those of a pass of training.
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


def rows_of_block(ell, data, split, rows):
    """How many rows are computed at a time: so many, or more if they are small."""
    data.put(*split.load(split.numbers[:0]))
    Forward(ell)
    row = bytes_of_row(ell) + prod(data.x.shape) * data.x.dtype.itemsize
    rows = max(rows, BYTES[data.device.unit] // max(1, row))
    labels = prod(data.y.shape) if data.y.classes else 1
    return max(1, min(rows, LABELS // labels))


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
    device, n, y = data.device, len(split), data.y
    if not n:
        return Found()
    counts, parts, targets = Counts(ell), parts_of(ell), Targets()
    if classifies(ell, y):
        targets = Labels(Q, ell, y, metrics, pairs)
    elif metrics:
        targets = Numbers(Q, y, metrics)

    def positions(x, y, row, step):
        """How many positions are counted in these rows, of each loss that counts those of all."""
        data.put(x, y)
        with during(row=row, step=step):
            return counts.count(), ()

    def found(x, y, row, step, a_row):
        """((width,): the sums over these rows of the loss, its parts, and targets; its labels)

        a_row: how many positions are counted in a row, on average over the split.
        """
        for node in CompNodes(ell):
            node.value = None  # of the block before, so that its memory can be used again
        data.put(x, y)
        with during(row=row, step=step, shares=counts.shares(a_row, 1)):
            Forward(ell)
        sums = np.zeros(begin + targets.width, like=ell.value)
        for k, part in enumerate((ell, *parts.values())):
            sums[k] = part.value.sum(dtype=np.float64)
        return sums, targets.of_block(sums[begin:])

    rows = rows_of_block(ell, data, split, rows)
    begin = 1 + len(parts)
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
            if labels:
                targets.take(labels)
            ranks.alive()
        sums = host(sums)
        ranks.add(sums)
        return sums

    counted = total(positions, counts.ends[-1]).sum(axis=0) if counts.masks else np.zeros(0)
    sums = total(found, begin + targets.width, device.put(counted / n))
    loss, *others = sums.sum(axis=0)[:begin].tolist()
    rows = [*map(len, blocks)]
    accuracy, labels, scores, metrics = targets.result(sums[:, begin:], rows, ranks)
    metrics |= {name: part / n for name, part in zip(parts, others, strict=True)}
    return Found(loss / n, accuracy, labels, scores, metrics)
