"""What models end in: a classifier where y has labels, a regression where it has numbers."""

from math import prod

import numpy as np

from dpedf.errors import UserError
from dpedf.ops import LogLoss, Reshape, Softmax, SquareLoss


def outputs(y):
    """How many numbers a model of y ends in: the classes of labels, or the targets of a row."""
    return prod(y.shape) if y.classes is None else y.classes


def classifier_or_regression(s, y, smoothing, class_weights):
    """(output, ell) of s, (B, J): scores of labels, or predictions of numbers.

    smoothing: PyTorch's label_smoothing.  class_weights: a number for each class, or none.
    """
    if y.classes is not None:
        Q, weights = Softmax(s), class_weights if np.size(class_weights) else None
        return Q, LogLoss(Q, y, smoothing=smoothing, weights=weights)
    for name, found in ("smoothing", smoothing), ("class_weights", class_weights):
        if found:
            raise UserError(f"model.{name} = {found}, expected none: y holds numbers, not labels")
    output = s if s.value.shape[1:] == y.shape else Reshape(s, y.shape)
    return output, SquareLoss(output, y)
