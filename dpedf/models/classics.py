"""Classics: the networks with which courses begin."""

from math import prod

from dpedf.edf import Package
from dpedf.errors import UserError
from dpedf.models.expect import labels_that_count, positive
from dpedf.ops import Affine, BinaryLogLoss, Flatten, OneHot, Reshape, Sigmoid, SquareLoss
from dpedf.phi import Uniform, dense


def nineties(x, y, hidden, weights=4.0, thresholds=16.0):
    """The network of the 1990s: sigmoid units, and the squared error against one-hot labels.

    The weights and thresholds of the hidden units are drawn from -weights..weights and
    -thresholds..thresholds, so widely that every unit divides the images in another place.
    """
    positive(hidden=hidden)
    labels_that_count(y)
    first = Package(w=Uniform((prod(x.shape), hidden), weights), b=Uniform((hidden,), thresholds))
    Q = Sigmoid(Affine(dense(hidden, y.classes), Sigmoid(Affine(first, Flatten(x)))))
    return Q, SquareLoss(Q, OneHot(y, y.classes))


def logistic(x, y):
    """Binary logistic regression: the score of class 1, and its log loss."""
    labels_that_count(y)
    if y.classes != 2:
        raise UserError(f"model.build = logistic of {y.classes} classes, expected 2")
    s = Reshape(Affine(dense(prod(x.shape), 1), Flatten(x)), ())
    return s, BinaryLogLoss(s, y)
