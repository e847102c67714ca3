"""From the [model] section of a config to a graph that fits the data."""

import inspect
from contextlib import nullcontext
from pathlib import Path

from dpedf import models
from dpedf.edf import CompNode, CompNodes, Forward
from dpedf.errors import UserError
from dpedf.run import own_code
from dpedf.run.evaluate import classifies


def build(settings, x, y):
    """(output, ell) of a [model] section; its key build names a model, or file.py:procedure.

    UserError: there is no such procedure, it does not take these keywords, or it refuses them.
    """
    procedure, file = find(settings["build"]), own_code.own_file(settings["build"])
    keywords = {key: value for key, value in settings.items() if key != "build"}
    try:
        inspect.signature(procedure).bind(x, y, **keywords)
    except TypeError as error:
        expected = f"{procedure.__name__}{inspect.signature(procedure)}"
        raise UserError(f"model: {error}, expected the keywords of {expected}") from None
    try:
        with own_code.beside(file) if file else nullcontext():
            made = procedure(x, y, **keywords)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"model: {error}") from None
    except (TypeError, ArithmeticError) as error:
        if file:  # the user's own model: the traceback shows where
            raise
        signature = f"{procedure.__name__}{inspect.signature(procedure)}"
        raise UserError(f"model: {error}, expected other values for {signature}") from None
    if not (isinstance(made, tuple) and [isinstance(n, CompNode) for n in made] == [True, True]):
        raise UserError(f"model.build returned {made!r}, expected two nodes, (output, ell)")
    return made


def find(name):
    """The procedure of a name such as mlp or path/to/file.py:mine."""
    file, colon, procedure = name.rpartition(":")
    here = {key: thing for key, thing in sorted(vars(models).items()) if takes_x_and_y(thing)}
    if not colon and name not in here:
        expected = f"one of {', '.join(here)}, or path/to/file.py:procedure"
        raise UserError(f'model.build = "{name}", expected {expected}')
    if not colon:
        return here[name]
    if not (file.endswith(".py") and Path(file).is_file()):
        raise UserError(
            f'model.build = "{name}": no file {file}, expected path/to/file.py:procedure'
        )
    found = getattr(own_code.module(file), procedure, None)
    if not takes_x_and_y(found):
        raise UserError(f'model.build = "{name}", expected a procedure of (x, y, ...) in that file')
    return found


def takes_x_and_y(thing):
    return inspect.isfunction(thing) and [*inspect.signature(thing).parameters][:2] == ["x", "y"]


def expect_fit(Q, ell, data):
    """Run the program on no rows.  UserError: the model and the data do not fit together."""
    data.put(*data.train.load(data.train.numbers[:0]))
    try:
        Forward(ell)
    except (ValueError, IndexError) as error:
        raise UserError(f"model.build: {error}, expected a model that fits the data") from None
    if Q not in CompNodes(ell):
        raise UserError("model.build: ell does not depend on the output, expected that it does")
    found = [("ell", ell, [(0,)], "(B,), the loss of each example")]
    if classifies(ell, data.y):
        labels, classes = data.y.value.shape, data.y.classes
        shapes, expected = [(*labels, classes)], f"(B, ..., {classes}), a number for each class"
        if classes == 2:
            shapes, expected = [*shapes, labels], f"{expected}, or (B, ...), the score of class 1"
        found.append(("output", Q, shapes, expected))
    for name, node, shapes, expected in found:
        if node.value.shape not in shapes:
            what = f"({', '.join(['B', *map(str, node.value.shape[1:])])})"
            raise UserError(f"model.build: the {name} is {what}, expected {expected}")
