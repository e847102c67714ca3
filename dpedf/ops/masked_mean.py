"""The mean of a loss over the unmasked positions of a sequence."""

from math import prod

import numpy as np


def weights(y, mask, like):
    """The weight of each position of y, (B, ...), in the mean; in the dtype of like.

    (B, ...) with a mask.  Without one, a number, or None if each b has one position.
    """
    if mask is None:
        return None if y.ndim == 1 else 1 / (prod(y.shape[1:]) or 1)
    unmasked = (mask.value != 0).astype(like.dtype)
    count = unmasked.sum(axis=tuple(range(1, y.ndim)), keepdims=True)
    return unmasked / np.maximum(count, 1)


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
