"""From the [model] section of a config to a graph that fits the data."""

import inspect
from contextlib import nullcontext
from difflib import get_close_matches

import numpy as np

from dpedf import models
from dpedf.device import host
from dpedf.edf import CompNode, CompNodes, Forward, Parameters
from dpedf.errors import UserError
from dpedf.phi import name_parameters
from dpedf.program import Program, program
from dpedf.run import own_code
from dpedf.run.evaluate import classifies, parts_of
from dpedf.run.measures import OTHERS, TITLES
from dpedf.run.own_code import takes
from dpedf.run.settings.sections import OF_EVERY_MODEL
from dpedf.shapes import described, listed

OF_A_MODEL = "x", "y", "..."  # its parameters

# Outputs are looked at for so many rows, and for so many draws of the parameters.
FEW, DRAWS = 4, 16
NEAR = 1e-3  # 1, for a probability
LISTED = 8  # packages, of which all are said where one has another name


def build(settings, x, y):
    """(output, ell) of a [model] section; its key build names a model, or file.py:procedure.

    program(ell).parts: what the procedure names beside these, {name: node}, or {}.
    UserError: there is no such procedure, it does not take these keywords, or it refuses them.
    """
    procedure, file = find(settings["build"]), own_code.own_file(settings["build"])
    keywords = {key: value for key, value in settings.items() if key not in OF_EVERY_MODEL}
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
    two = isinstance(made, tuple) and [isinstance(n, CompNode) for n in made[:2]] == [True, True]
    if not two or len(made) > 3 or not all(isinstance(parts, dict) for parts in made[2:]):
        expected = "expected two nodes, (output, ell), and perhaps a dict of parts of ell"
        raise UserError(f"model.build returned {kind(made)}, {expected}")
    Q, ell, *parts = made
    freeze(ell, settings.get("freeze", ()))
    program(ell).parts = dict(*parts)
    expect_parts(ell)
    return Q, ell


def expect_parts(ell):
    """UserError: what a model reports beside its loss is not {name: a node that ell depends on}."""
    for name, n in parts_of(ell).items():
        found = f"model.build returned {{{name!r}: {kind(n)}}} beside ell"
        if not (isinstance(name, str) and name.isidentifier()) or name in (*OTHERS, *TITLES):
            raise UserError(f"{found}, expected another name")
        if n not in CompNodes(ell):
            raise UserError(f"{found}, expected a node that ell depends on")


def freeze(ell, names):
    """From now on, the packages and parameters of these names do not vary.

    UserError: there are none of a name, or nothing is left that varies.
    """
    parameters = Parameters(ell) + program(ell).frozen
    name_parameters(parameters)
    for name in names:
        for p in named(name, parameters, f"model.freeze = {names}"):
            p.varies = False
    if names:
        ell.program = Program(ell)
        if not Parameters(ell):
            raise UserError(f"model.freeze = {names} is all, expected something left to learn")


def named(name, parameters, setting):
    """Those parameters that have this name, or are in the package of it.

    setting: where the name stands.  UserError: there are none.
    """
    chosen = [p for p in parameters if under(p.name, name)]
    if not chosen:
        packages = dict.fromkeys(p.name.rpartition(".")[0] or p.name for p in parameters)
        near = get_close_matches(name, [*packages, *(p.name for p in parameters)], 1)
        several = not near or near[0] in packages and len(packages) <= LISTED
        expected = f"one of {', '.join(packages)}" if several else near[0]
        raise UserError(f"{setting}: there is no {name}, expected {expected}")
    return chosen


def under(whole, name):
    """Is a parameter of this whole name one of this name, or in the package of it?"""
    return f"{whole}.".startswith(f"{name}.")


def kind(thing):
    """ "None", "Softmax", "(Softmax, float)": what a procedure returned instead of nodes."""
    if isinstance(thing, tuple):
        return f"({', '.join(map(kind, thing))}{',' * (len(thing) == 1)})"
    return "None" if thing is None else type(thing).__name__


def find(name):
    """The procedure of a name such as mlp or path/to/file.py:mine."""
    if ":" in name:
        return own_code.procedure("model.build", name, OF_A_MODEL)
    if name not in (here := shipped()):
        expected = f"one of {', '.join(here)}, or path/to/file.py:procedure"
        raise UserError(f'model.build = "{name}", expected {expected}')
    return here[name]


def shipped():
    """{name: model} of dpedf.models."""
    return {key: its for key, its in sorted(vars(models).items()) if takes(its, OF_A_MODEL)}


def expect_fit(Q, ell, data):
    """Run the program on no rows, and look at what should be a score or a probability.

    UserError: the model and the data do not fit together.
    """
    run(ell, data, 0)
    scores = {n.s: f"what {type(n).__name__} takes" for n in CompNodes(ell) if is_binary_loss(n)}
    if Q not in CompNodes(ell):
        expected = "the score of class 1, before the sigmoid" if scores else "that it does"
        raise UserError(f"model.build: ell does not depend on the output, expected {expected}")
    for name, part in {"ell": ell, **parts_of(ell)}.items():
        expect_shape(name, part, ["B"], "the loss of each example")
    if classifies(ell, data.y):
        labels, classes = ["B", *data.y.value.shape[1:]], data.y.classes
        if classes == 2 and described(Q) == listed(labels):
            scores[Q] = "the output"
        else:
            what = "a number for each class"
            if classes == 2:
                what += f", or {listed(labels)}, the score of class 1"
            expect_shape("output", Q, [*labels, classes], what)
    for s, name in scores.items():
        if is_within_0_and_1(s, ell, data):
            found = f"model.build: {name} is within 0..1 whatever Phi is, as a probability"
            raise UserError(f"{found}, expected the score of class 1, before the sigmoid")
    expect_probabilities(ell, data)
    if hasattr(data.x, "within"):
        expect_within(ell, data)


def is_binary_loss(n):
    return hasattr(n, "counted") and hasattr(n, "s")


def run(ell, data, rows):
    """Compute all values of the first rows, so many, of those to learn from.

    UserError: a node cannot.
    """
    data.put(*data.train.load(data.train.numbers[:rows]))
    try:
        with np.errstate(all="ignore"):
            Forward(ell)
    except (ValueError, IndexError) as error:
        raise UserError(f"model.build: {error}, expected a model that fits the data") from None


def expect_shape(name, node, shape, what):
    if described(node) != listed(shape):
        found = f"model.build: the {name} is {described(node)}"
        raise UserError(f"{found}, expected {listed(shape)}, {what}")


def is_within_0_and_1(Q, ell, data):
    """Is a node within 0..1 whatever the parameters are?  No score is."""
    between = False
    parameters, random = [(p, p.value.copy()) for p in Parameters(ell)], np.random.default_rng(0)
    try:
        for _ in range(DRAWS):
            for p, before in parameters:
                drawn = random.normal(size=before.shape).astype(before.dtype)
                p.value[...] = data.device.put(drawn)
            run(ell, data, FEW)
            found = host(Q.value)
            if not ((found >= 0) & (found <= 1)).all():
                return False
            between |= ((found > 0) & (found < 1)).any()
        return Q.varies and between  # not of a score that is 0, as of blank rows
    finally:
        for p, before in parameters:
            p.value[...] = before
        run(ell, data, 0)


def expect_probabilities(ell, data):
    """UserError: a LogLoss is one of numbers that are no probabilities, such as scores."""
    if taken := [n.Q for n in CompNodes(ell) if getattr(n, "log_Q", None)]:
        run(ell, data, FEW)
        for Q in taken:
            low, high = (host(extreme(Q.value)).item() for extreme in (np.min, np.max))
            if low < 0 or high > 1 + NEAR:
                found = f"model.build: LogLoss of {type(Q).__name__}, of {low:g} to {high:g}"
                raise UserError(f"{found}, expected probabilities, such as Softmax makes of scores")
        run(ell, data, 0)


def expect_within(ell, data):
    """UserError: the rows of x are not within the numbers for which the model was made."""
    run(ell, data, FEW)
    low, high = (float(host(end(data.x.value))) for end in (np.min, np.max))
    least, most = data.x.within
    if not least <= low <= high <= most:
        found = f"model.build: x has numbers of {low:g} to {high:g}, as the model sees them"
        raise UserError(f"{found}, expected {least} to {most}")
    run(ell, data, 0)
