"""The mean of a loss over the unmasked positions of a sequence, and masks."""

from math import prod

import numpy as np

from dpedf.edf import CompNode
from dpedf.ops.indices import is_whole
from dpedf.ops.words import keep
from dpedf.program import context


class NotEqual(CompNode):
    """y = [x != label] [mask != 0], in float32, which never changes the dtype of a graph

    a mask of labels: LogLoss(Q, y, NotEqual(y, -100)) ignores those of -100

    x: (B, ...); mask: (B, ...), if there is one; y: (B, ...)
    """

    def __init__(self, x, label, mask=None):
        self.x, self.label, self.mask = x, label, mask

    def forward(self):
        differs = self.x.value != self.label
        if self.mask is not None:
            differs = differs & (self.mask.value != 0)
        self.value = differs.astype(np.float32)

    def backward(self):
        """A mask does not vary."""


class MaskedMean(CompNode):
    """A loss that is the mean over positions y of a row, (B, ...), which a mask may leave out."""

    mean = "rows"
    made_inputs = "log_Q", "occurrences"  # which messages leave out, as nobody wrote them

    def __init__(self, Q, y, mask=None, mean=None, weights=None, ignore=None):
        if mean not in (None, "rows", "positions"):
            raise ValueError(f'LogLoss of mean = "{mean}", expected "rows" or "positions"')
        ignore = getattr(y, "ignore", None) if ignore is None else ignore  # as the data file says
        if not (ignore is None or is_whole(ignore)):
            raise ValueError(f"LogLoss of ignore = {ignore!r}, expected a label, a whole number")
        expect_floats(y, Q)
        self.Q, self.y, self.mask = Q, y, mask if ignore is None else NotEqual(y, ignore, mask)
        if mean == "positions" or (mean is None and (weights is not None or ignore is not None)):
            keep(self, mean="positions")

    @property
    def whole_mask(self):
        """The mask, if its positions are counted in the whole minibatch (parallel/counts.py)."""
        return self.mask if self.mean == "positions" else None

    def counted(self):
        """(B, ...): 1 for each position that counts, else 0; after Forward."""
        return unmasked(self.Q.value[..., 0], self.mask, self.value.dtype)


def expect_same_shape(name, array, shape):
    """ValueError, unless an array has this shape."""
    if array.shape != shape:
        raise ValueError(f"{name} of shape {array.shape}, expected {shape}")


def expect_floats(y, Q):
    """ValueError: y has a number for each class, as Q has, which is none as probabilities are."""
    y, Q = getattr(y, "value", None), getattr(Q, "value", None)
    if y is not None and Q is not None and y.shape[1:] == Q.shape[1:] and y.dtype.kind != "f":
        found = f"LogLoss with {y.dtype} for each class as y"
        raise ValueError(f"{found}, expected floats, which are probabilities, or labels")


def expect_labels_of(y, Q):
    """ValueError: y is not of the shape of labels of Q; or has probabilities, which came late."""
    if y.value.shape == Q.value.shape:
        expect_floats(y, Q)
        expected = f"an Input of their shape, {y.value.shape[1:]}"
        raise ValueError(f"LogLoss with probabilities as y, expected {expected}")
    expect_same_shape("y", y.value, Q.value.shape[:-1])


def unmasked(y, mask, dtype):
    """1 for each position of y, (B, ...), that counts, else 0.  Without a mask, all do."""
    if mask is None:
        return np.ones_like(y, dtype=dtype)
    expect_same_shape("mask", mask.value, y.shape)
    return (mask.value != 0).astype(dtype)


def share_of(node, unmasked):
    """How many unmasked positions a row has on average, in the whole minibatch; 1 if none.

    It is that of the rows at hand, unless the context knows more.
    """
    share = context.shares.get(node)
    if share is None:
        share = unmasked.sum(dtype=np.float64) / max(1, len(unmasked))
    return np.where(share > 0, share, 1.0)


def weights(y, counted, share=None):
    """The weight of each position of y, (B, ...), in the loss of its row, given which count.

    share: how many of them a row of the whole minibatch has on average; by default, each row has
    the mean of its own.  Returns (B, ...), or a number, or None if each b has one position.
    """
    if counted is None:
        return None if y.ndim == 1 else 1 / (prod(y.shape[1:]) or 1)
    if share is None:
        share = np.maximum(counted.sum(axis=tuple(range(1, y.ndim)), keepdims=True), 1)
    return counted / share.astype(counted.dtype)


def mean(losses, weights, shape):
    """(B,): the mean over positions of losses, a vector in the order of this shape, (B, ...)."""
    losses = losses.reshape(shape)
    if not isinstance(weights, float):  # a masked loss may be infinite
        losses = np.where(weights > 0, losses, 0.0)
    return (losses * weights).sum(axis=tuple(range(1, losses.ndim)))


def spread(g, weights, shape):
    """The gradient of each loss, a vector in the order of this shape, given that of the mean: g."""
    g = g.reshape(g.shape + (1,) * (len(shape) - 1))
    return np.multiply(g, weights, out=np.empty_like(g, shape=shape, order="C")).reshape(-1)
