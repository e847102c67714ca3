"""Models whose layers see all of x."""

from dpedf.errors import UserError
from dpedf.models import expect
from dpedf.models.output import classifier_or_regression, outputs
from dpedf.ops import Affine, Flatten, LogLoss, Relu, Sigmoid, Softmax, Tanh
from dpedf.phi import dense, glorot, he

ACTIVATIONS = {"relu": (Relu, he), "sigmoid": (Sigmoid, glorot), "tanh": (Tanh, glorot)}


def MLP(Phi, x, Activation=Sigmoid):
    """Activation(Affine(Phi[-1], ... Activation(Affine(Phi[0], x)))): the slides' perceptron."""
    for package in Phi:
        x = Activation(Affine(package, x))
    return x


def layers(sizes, activation, x, y):
    """(packages, Activation, x as vectors) of an MLP.  UserError: it does not fit x and y."""
    Activation, bound = expect.layers(sizes, activation, ACTIVATIONS, x)
    if sizes[-1] != outputs(y):
        what = "targets of a row" if y.classes is None else "classes of the data"
        raise UserError(f"model.sizes[-1] = {sizes[-1]}, expected {outputs(y)}, the {what}")
    packages = [dense(I, J, bound) for I, J in zip(sizes[:-2], sizes[1:-1], strict=True)]
    packages.append(dense(*sizes[-2:], glorot))
    return packages, Activation, x if len(x.shape) == 1 else Flatten(x)


def mlp(x, y, sizes, activation="relu", smoothing=0.0, class_weights=()):
    """Softmax(Affine(Phi[-1], MLP(Phi[:-1], x))), or of numbers y a regression, without Softmax."""
    packages, Activation, x = layers(sizes, activation, x, y)
    s = Affine(packages[-1], MLP(packages[:-1], x, Activation))
    return classifier_or_regression(s, y, smoothing, class_weights)


def slides(x, y, sizes):
    """The classifier of the slides, Softmax(MLP(Phi, x)): a Sigmoid on the scores too."""
    expect.labels(y)
    packages, Activation, x = layers(sizes, "sigmoid", x, y)
    Q = Softmax(MLP(packages, x, Activation))
    return Q, LogLoss(Q, y)
