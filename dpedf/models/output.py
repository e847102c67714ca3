"""What models end in: a classifier where y has labels, a regression where it has numbers."""

from math import inf, prod

from dpedf.errors import UserError, plural
from dpedf.ops import LogLoss, Reshape, Softmax, SquareLoss


def outputs(y):
    """How many numbers a model of y ends in: the classes of labels, or the targets of a row."""
    return prod(y.shape) if y.classes is None else y.classes


def classifier_or_regression(s, y, smoothing=0.0, class_weights=()):
    """(output, ell) of s, (B, J): scores of labels, or predictions of numbers.

    smoothing: PyTorch's label_smoothing.  class_weights: a number for each class, or none.
    """
    if y.classes is not None:
        expect_of_labels(smoothing, class_weights, y.classes)
        Q, how = Softmax(s), {"smoothing": smoothing, "weights": class_weights or None}
        return Q, LogLoss(Q, y, **how)
    for name, found in ("smoothing", smoothing), ("class_weights", class_weights):
        if found:
            raise UserError(f"model.{name} = {found}, expected none: y holds numbers, not labels")
    output = s if s.value.shape[1:] == y.shape else Reshape(s, y.shape)
    return output, SquareLoss(output, y)


def expect_of_labels(smoothing, class_weights, classes):
    """UserError: so labels cannot be smoothed, or classes weighed."""
    if not (is_number(smoothing) and 0 <= smoothing <= 1):
        raise UserError(f"model.smoothing = {smoothing!r}, expected a number from 0 to 1")
    several = isinstance(class_weights, list | tuple)
    if not several or not all(is_number(w) and 0 <= w < inf for w in class_weights):
        expected = f"a list of {classes} numbers from 0 on, one a class"
        raise UserError(f"model.class_weights = {class_weights!r}, expected {expected}")
    if len(class_weights) not in (0, classes):
        found = f"model.class_weights has {plural(len(class_weights), 'number')}"
        raise UserError(f"{found}, expected {classes}, one a class")


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)
