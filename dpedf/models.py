"""Models, as procedures in EDF.

model(x, y, **keywords) -> (output, ell): x and y are Inputs that know their shape (without
b), y also its number of classes; ell is the loss of each example, (B,).  Every key of
[model] in a config, but build, is a keyword argument.
"""

import importlib.util
import inspect
import sys
from math import prod
from pathlib import Path

from dpedf.errors import UserError
from dpedf.ops import Affine, Flatten, LogLoss, Relu, Sigmoid, Softmax, Tanh
from dpedf.phi import affine, glorot, he

ACTIVATIONS = {"relu": (Relu, he), "sigmoid": (Sigmoid, glorot), "tanh": (Tanh, glorot)}


def MLP(Phi, x, Activation=Sigmoid):
    """Activation(Affine(Phi[-1], ... Activation(Affine(Phi[0], x)))): the slides' perceptron."""
    for package in Phi:
        x = Activation(Affine(package, x))
    return x


def layers(sizes, activation, x, y):
    """Of an MLP: its packages, the node of its activation, x as vectors.  ValueError: no such."""
    if activation not in [*ACTIVATIONS]:
        raise ValueError(f'activation = "{activation}", expected one of {", ".join(ACTIVATIONS)}')
    positive = isinstance(sizes, list) and all(type(n) is int and n > 0 for n in sizes)
    if not positive or len(sizes) < 2:
        raise ValueError(f"sizes = {sizes}, expected a list of two or more positive numbers")
    if sizes[0] != prod(x.shape):
        raise ValueError(f"sizes[0] = {sizes[0]}, expected {prod(x.shape)}: x is {x.shape}")
    if sizes[-1] != y.classes:
        raise ValueError(f"sizes[-1] = {sizes[-1]}, expected {y.classes}, the classes of the data")
    Activation, bound = ACTIVATIONS[activation]
    Phi = [affine(I, J, bound) for I, J in zip(sizes[:-2], sizes[1:-1], strict=True)]
    Phi.append(affine(*sizes[-2:], glorot))
    return Phi, Activation, x if len(x.shape) == 1 else Flatten(x)


def mlp(x, y, sizes, activation="relu"):
    """Softmax(Affine(Phi[-1], MLP(Phi[:-1], x))); with two sizes, softmax regression."""
    Phi, Activation, x = layers(sizes, activation, x, y)
    Q = Softmax(Affine(Phi[-1], MLP(Phi[:-1], x, Activation)))
    return Q, LogLoss(Q, y)


def slides(x, y, sizes):
    """The classifier of the slides, Softmax(MLP(Phi, x)): a Sigmoid on the scores too."""
    Phi, Activation, x = layers(sizes, "sigmoid", x, y)
    Q = Softmax(MLP(Phi, x, Sigmoid))
    return Q, LogLoss(Q, y)


def built(settings, x, y):
    """(output, ell) of a [model] section: build names a procedure here, or file.py:procedure.

    UserError: there is none, or it does not take these keywords, or raises ValueError.
    """
    build = found(settings["build"])
    keywords = {key: value for key, value in settings.items() if key != "build"}
    try:
        inspect.signature(build).bind(x, y, **keywords)
    except TypeError as error:
        expected = f"{build.__name__}{inspect.signature(build)}"
        raise UserError(f"model: {error}, expected the keywords of {expected}") from None
    try:
        return build(x, y, **keywords)
    except ValueError as error:
        raise UserError(f"model.{error}") from None


def found(name):
    """The procedure called mlp, or path/to/file.py:mine."""
    file, colon, procedure = name.rpartition(":")
    here = {key: thing for key, thing in globals().items() if takes_x_and_y(thing)}
    if not colon and name not in here:
        expected = f"one of {', '.join(here)}, or path/to/file.py:procedure"
        raise UserError(f'model.build = "{name}", expected {expected}')
    if not colon:
        return here[name]
    if not (file.endswith(".py") and Path(file).is_file()):
        raise UserError(
            f'model.build = "{name}": no file {file}, expected path/to/file.py:procedure'
        )
    spec = importlib.util.spec_from_file_location(f"dpedf.models.{Path(file).stem}", file)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not takes_x_and_y(getattr(module, procedure, None)):
        raise UserError(f'model.build = "{name}", expected a procedure of (x, y, ...) in that file')
    return getattr(module, procedure)


def takes_x_and_y(thing):
    return inspect.isfunction(thing) and [*inspect.signature(thing).parameters][:2] == ["x", "y"]
