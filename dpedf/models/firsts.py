"""The first programs of courses."""

from math import prod

from dpedf.errors import UserError
from dpedf.models.mlp import MLP, layers
from dpedf.ops import Affine, BinaryLogLoss, Flatten, OneHot, Reshape, SquareLoss
from dpedf.phi import affine


def nineties(x, y, sizes):
    """The network of the 1990s: sigmoid units, and the squared error against one-hot labels."""
    packages, Activation, x = layers(sizes, "sigmoid", x, y)
    Q = MLP(packages, x, Activation)
    return Q, SquareLoss(Q, OneHot(y, y.classes))


def logistic(x, y):
    """Binary logistic regression: the score of class 1, and its log loss."""
    if y.classes != 2:
        raise UserError(f"model.build = logistic of {y.classes} classes, expected 2")
    s = Reshape(Affine(affine(prod(x.shape), 1), Flatten(x)), ())
    return s, BinaryLogLoss(s, y)
