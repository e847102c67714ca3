"""What an evaluation finds of the targets of a model, in sums over blocks of rows."""

from math import nan, prod

import numpy as np

from dpedf.device import host
from dpedf.edf import CompNodes
from dpedf.run.scores import MOST, Scores

TOP = 5  # classes, of top5


class Targets:
    """What is found of the targets of a model that predicts none: nothing.

    width: how many sums there are of a block of rows.
    """

    width = 0

    def of_block(self, sums):
        """Write the sums over the rows that the graph holds; return the labels, if any."""
        return ()

    def result(self, blocks, rows, ranks):
        """(accuracy, n, scores, metrics), as a Found has them.

        blocks: (blocks, width), the sums over each, of so many rows.
        """
        return None, 0, None, {}


class Labels(Targets):
    """Those of a classifier: the labels that are right, all, and those among the top classes.

    Of those that the loss counts.  pairs: with Scores, if there are not too many classes.
    """

    width = 3

    def __init__(self, Q, ell, y, metrics, pairs):
        self.Q, self.y, self.metrics, self.counting = Q, y, metrics, loss_of(Q, ell, y)
        self.by_rows = getattr(self.counting, "mean", "rows") == "rows"
        J, wanted = y.classes, pairs or "f1" in metrics
        self.taken = np.zeros((J, J + 1), np.int64) if wanted and J <= MOST else None

    def of_block(self, sums):
        y = self.y.value
        counted = self.counting.counted() if self.counting else np.ones_like(y)
        guess = predicted(self.Q.value, y.ndim)
        sums[0], sums[1] = tally(guess == y, counted, self.by_rows)
        if "top5" in self.metrics:
            sums[2] = tally(among_top(self.Q.value, y), counted, self.by_rows)[0]
        return y, guess, counted

    def take(self, labels):
        """Count what of_block has returned."""
        if self.taken is not None:
            count(self.taken, *map(host, labels))

    def result(self, blocks, rows, ranks):
        right, labels, top = blocks.sum(axis=0).tolist()
        scores = None
        if self.taken is not None:
            ranks.add(self.taken)
            scores = Scores(self.taken)
        f1 = float(scores.macro[2]) if scores else nan
        known = {"top5": top / labels if labels else nan, "f1": f1}
        metrics = {name: known[name] for name in self.metrics}
        return right / labels if labels else None, int(labels), scores, metrics


class Numbers(Targets):
    """Those of a regression: what errors finds."""

    def __init__(self, Q, y, metrics):
        self.Q, self.y, self.metrics, self.width = Q, y, metrics, 4 * prod(y.shape)

    def of_block(self, sums):
        sums[...] = errors(self.Q.value, self.y.value)
        return ()

    def result(self, blocks, rows, ranks):
        known = of_regression(blocks, rows)
        return None, 0, None, {name: known[name] for name in self.metrics}


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


def count(taken, y, guess, counted):
    """Add 1 to taken[y, guess] for each label that counts; a guess of -1 is in the last column."""
    counts = counted > 0
    np.add.at(taken, (y[counts], guess[counts]), 1)


def among_top(Q, y):
    """Is the label y[b,...] among the classes of the TOP largest Q[b,...,j]?

    Of equal ones the first are, as for accuracy; where one of them is nan, none.
    """
    labels = np.expand_dims(y, -1)  # what a mask leaves out may be anything
    classes = np.arange(Q.shape[-1], like=labels)
    its = np.where(classes == labels, Q, -np.inf).max(axis=-1, keepdims=True)
    before = (Q > its) | ((Q == its) & (classes < labels))
    return (before.sum(axis=-1) < TOP) & ~np.isnan(Q).any(axis=-1)


def errors(Q, y):
    """(4 K,), float64, of K targets: the sums of |Q - y| and its square, and of y its mean and
    the sum of squares around that, over these rows.
    """
    Q, y = (a.reshape(len(a), prod(a.shape[1:])).astype(np.float64) for a in (Q, y))
    first, difference = y[0], Q - y
    beside = y - first  # which is 0 where y does not vary
    mean = beside.sum(axis=0) / len(y)
    parts = np.abs(difference), np.square(difference), np.square(beside - mean)
    absolute, square, spread = (part.sum(axis=0) for part in parts)
    return np.concatenate([absolute, square, first + mean, spread])


def of_regression(blocks, rows):
    """{name: value} of what errors found in blocks of so many rows.

    Chan, Golub and LeVeque, 1979, add the squares around the mean of each block: those of large
    numbers around 0 would leave nothing of a small variance.
    """
    n, rows = sum(rows), np.array(rows, np.float64)[:, np.newaxis]
    absolute, square, means, spread = blocks.reshape(len(blocks), 4, -1).swapaxes(0, 1)
    beside = means - means[0]
    between = np.square(beside - (rows * beside).sum(axis=0) / n)
    whole = spread.sum(axis=0) + (rows * between).sum(axis=0)
    absolute, square = absolute.sum(axis=0), square.sum(axis=0)
    share = np.where(whole > 0, square / np.where(whole > 0, whole, 1.0), square != 0)
    found = {"r2": 1 - share, "mae": absolute / n, "rmse": np.sqrt(square / n)}
    return {name: its.mean().item() for name, its in found.items()}
