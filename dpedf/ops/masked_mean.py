"""The mean of a loss over the positions of a sequence that no mask hides."""

from math import prod

import numpy as np


def weights(y, mask, like):
    """How much each position of y, (B, ...), counts: a number, or (B, ...) where there is a mask.

    None where each b has one position, and no mask; in the dtype of like.
    """
    if mask is None:
        return None if y.ndim == 1 else 1 / (prod(y.shape[1:]) or 1)
    unmasked = (mask.value != 0).astype(like.dtype)
    count = unmasked.sum(axis=tuple(range(1, y.ndim)), keepdims=True)
    return unmasked / np.maximum(count, 1)


def weighed(losses, weights, shape):
    """(B,): the sum over positions of weights times losses, in the order of (B, ...), a shape."""
    losses = losses.reshape(shape)
    if not isinstance(weights, float):  # where a mask is 0 a loss may be infinite
        losses = np.where(weights > 0, losses, 0.0)
    return (losses * weights).sum(axis=tuple(range(1, losses.ndim)))


def spread(g, weights, shape):
    """The gradient of each loss, in the order of (B, ...): of the gradient g, (B,), of the mean."""
    g = g.reshape(g.shape + (1,) * (len(shape) - 1)) * weights
    return np.broadcast_to(g, shape).reshape(-1)
