"""The mean of a loss over the unmasked positions of a sequence."""

from math import prod

import numpy as np


def unmasked(y, mask, dtype):
    """1 for each position of y, (B, ...), that counts, else 0; None if all do.  ValueError"""
    if mask is None:
        return None
    if mask.value.shape != y.shape:
        raise ValueError(f"mask of shape {mask.value.shape}, expected {y.shape}, that of y")
    return (mask.value != 0).astype(dtype)


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
