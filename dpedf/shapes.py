"""The shapes of a node, found as it is made: by running it on no rows.

Its docstring says which shapes it expects, "x: (B, I); W: (I, J)", where a letter is one size
throughout, 4J four times a size that was met before, ... any number of sizes, and names are its
attributes (Phi.w: W, (I, J) says that the equations call Phi.w W).  What does not fit is an error
at the line that makes the node.
"""

import re
from collections import deque
from collections.abc import Mapping, Set, ValuesView
from functools import cache
from types import SimpleNamespace

import numpy as np

LETTER = re.compile(r"(\d*)([A-Za-z]\w*)|\d+|\.\.\.")
# Attributes that the framework sets, beside a name.
OURS = {"number", "varies", "batched", "grad", "grads", "owns_grad", "sum_over_rows", "known_as"}
ENTRY = re.compile(r"([A-Za-z_][\w.]*(?:, [A-Za-z_][\w.]*)*): (?:\w+, )?(\([^()]*\))")


@cache
def expected(cls):
    """[(path, letters)] of the docstring of a class: ("Phi.w", ["I", "J"])."""
    found = []
    for names, shape in ENTRY.findall(cls.__doc__ or ""):
        letters = [word.strip() for word in shape.strip("()").split(",") if word.strip()]
        if all(LETTER.fullmatch(letter) for letter in letters):
            found += [(path, letters) for path in names.split(", ")]
    return found


def kind(thing):
    """What its class says a thing is: "input", "parameter", "computed", "package"; or None."""
    return getattr(type(thing), "node_kind", None)


def infer(node, inputs):
    """Check the shapes of a node's inputs, if all are known, and compute its value of no rows.

    ValueError: there are none, or they do not fit; or forward does not set such a value.
    """
    for name, thing in vars(node).items():
        if place := hiding(thing, node, inputs):
            found = f"{type(node).__name__}.{name} has nodes in an object of type {place}"
            raise ValueError(f"{found}, expected a list, a tuple or a Package")
    if any(i.value is None or kind(i) == "computed" and has_rows(i) for i in inputs):
        return  # it may keep intermediate results of that many rows
    rows = [(i, i.value) for i in inputs if has_rows(i)]
    for i, value in rows:
        i.value = value[:0]
    try:
        returned = compute_without_rows(node)
    finally:
        for i, value in rows:
            i.value = value
    if not inputs and type(node).batched:
        found = f"{type(node).__name__} has no inputs"
        raise ValueError(f"{found}, expected nodes as its attributes: self.x = x")
    expect_value(node, returned)


def expect_node(node):
    """node, as its __init__ left it.  ValueError: it is none that can run."""
    name = type(node).__name__
    if ours := OURS.intersection(key for key, its in vars(node).items() if its is not None):
        found = f"{name}.{min(ours)} is an attribute that the framework sets"
        raise ValueError(f"{found}, expected another name")
    inputs = [*named(node)]
    if own := [path for path, thing in inputs if thing is node]:
        raise ValueError(f"{name}.{own[0]} is the node itself, expected its inputs")
    for key, thing in vars(node).items() if not inputs else ():
        expect_compnode(f"{name}.{key}", thing)
    return node


def expect_compnode(name, thing):
    """ValueError: a thing computes as a node does, but is none."""
    if isinstance(thing, type) and getattr(thing, "node_kind", None):
        its = thing.__name__
        raise ValueError(f"{name} is the class {its}, expected a node, such as {its}(...)")
    if not kind(thing) and hasattr(thing, "forward") and hasattr(thing, "backward"):
        found = type(thing).__name__
        raise ValueError(f"{name} is of class {found}, expected class {found}(CompNode)")


def expect_loss(loss):
    """loss, which is a node.  ValueError: it is none."""
    expect_compnode("the loss", loss)
    if kind(loss) in (None, "package"):
        raise ValueError(f"the loss is of type {type(loss).__name__}, expected a node")
    return loss


def expect_value(node, returned=None):
    """ValueError: forward has set no value, returned it, or without rows has made one with some."""
    name, shape = type(node).__name__, getattr(node.value, "shape", None)
    if node.value is None:
        did = "sets no value" if returned is None else f"returns {type(returned).__name__}"
        raise ValueError(f"{name}.forward {did}, expected self.value = ...")
    if node.batched and (not shape or shape[0] != 0):
        found = f"type {type(node.value).__name__}" if shape is None else f"shape {shape}"
        raise ValueError(f"{name}.forward of no rows makes a value of {found}, expected (0, ...)")


def hiding(thing, node, inputs):
    """What has nodes, at any depth, that are not among these inputs of a node; or None.

    Other objects than containers may know a node for a reason of their own.
    """
    todo, seen = [(thing, None)], {}  # what was seen stays alive, so that no other gets its id
    while todo:
        thing, place = todo.pop()
        if kind(thing) not in (None, "package"):
            if place and thing is not node and thing not in inputs:
                return place
        elif id(thing) not in seen and (parts := held_by(thing)) is not None:
            seen[id(thing)] = thing
            if not (kind(thing) or isinstance(thing, (list, tuple))):
                place = place or type(thing).__name__
            todo += [(part, place) for part in parts]


def held_by(thing):
    """What a package or a container holds; None of another thing."""
    if kind(thing) or isinstance(thing, SimpleNamespace):
        return vars(thing).values()
    if isinstance(thing, Mapping):
        return [*thing, *thing.values()]
    if isinstance(thing, np.ndarray):
        return thing.flat if thing.dtype == object else None
    return thing if isinstance(thing, (list, tuple, Set, ValuesView, deque)) else None


def has_rows(node):
    return node.batched and np.shape(node.value)[:1] != (0,)


def compute_without_rows(node):
    """Check the shapes and run forward; no input has rows."""
    legend = [(path, letters, value_at(node, path)) for path, letters in expected(type(node))]
    legend = [(path, letters, value) for path, letters, value in legend if value is not None]
    sizes = {}
    if all(fits(value.shape, letters, sizes) for _, letters, value in legend):
        try:
            return node.forward()
        except (ValueError, IndexError, ZeroDivisionError) as error:
            wrong = str(error).strip().removeprefix(f"{type(node).__name__} ")
        except AttributeError as error:
            found = type(error.obj).__name__
            if kind(error.obj) == "package":
                wrong = f"expected {error.name} in a {found}"
            elif error.name == "value":
                wrong = f"expected a node, found {found}: put arrays into an Input or a Parameter"
            else:
                raise
    else:
        wrong = ", ".join(f"{path} {listed(letters)}" for path, letters, _ in legend)
        wrong = f"expected {wrong}"
    made = getattr(type(node), "made_inputs", ())
    found = ", ".join(f"{path} {described(i)}" for path, i in named(node) if path not in made)
    raise ValueError(f"{type(node).__name__}{f' of {found}' * bool(found)}: {wrong}")


class expect_values:  # noqa: N801, a word of the with statement
    """ValueError: what was put into these Inputs is not rows of their shapes, as many in each.

    In the with block, it says so too where a node fails for want of a value.
    """

    def __init__(self, inputs):
        self.inputs, rows = inputs, None
        for x in inputs:
            if x.value is None:
                continue  # perhaps no node reads it
            if not is_array(type(x.value)):
                raise ValueError(f"an Input has a {type(x.value).__name__}, expected an array")
            found = x.value.shape
            rows = found[:1] if rows is None else rows
            if found[1:] != (x.shape or found[1:]) or found[:1] != rows or not rows:
                expected = *(rows or "B"), *(found[1:] if x.shape is None else x.shape)
                raise ValueError(f"an Input has the shape {found}, expected {listed(expected)}")

    def __enter__(self):
        pass

    def __exit__(self, kind, error, where):
        if kind in (AttributeError, TypeError) and any(x.value is None for x in self.inputs):
            raise ValueError(f"an Input has no value, expected an array: {error}") from None


@cache
def is_array(cls):
    """Are things of a class computed with as NumPy's arrays are, number by number?"""
    others = np.matrix, np.ma.MaskedArray
    return hasattr(cls, "__array_function__") and not issubclass(cls, others)


def expect_delta(node, delta):
    """ValueError: a delta for the gradient of a node has another shape than its value."""
    if getattr(delta, "shape", None) != node.value.shape:
        found = f"{node.name or type(node).__name__}: addgrad of shape {np.shape(delta)}"
        more = "" if node.batched else ", or b before it"
        raise ValueError(f"{found}, expected {node.value.shape}{more}")


def value_at(node, path):
    """The value of the node that an attribute of this one is: Phi.w."""
    for name in path.split("."):
        node = getattr(node, name, None)
    return getattr(node, "value", None)


def fits(shape, letters, sizes):
    """Is this a shape of those letters?  Sizes that were met before have to be met again."""
    if "..." in letters:
        first = letters.index("...")
        last = len(shape) - (len(letters) - first - 1)
        if last < first or sizes.setdefault("...", shape[first:last]) != shape[first:last]:
            return False
        letters, shape = letters[:first] + letters[first + 1 :], shape[:first] + shape[last:]
    if len(shape) != len(letters):
        return False
    for letter, size in zip(letters, shape, strict=True):
        times, name = LETTER.fullmatch(letter).groups()  # 4 and J, of 4J
        times = int(times or 1) if name else int(letter)
        if size != times * (sizes.setdefault(name, size // times) if name else 1):
            return False
    return True


def named(node, prefix=""):
    """(path, input) of each attribute that is an input of a node, or holds some."""
    for name, thing in vars(node).items():
        for k, one in enumerate(thing) if isinstance(thing, (list, tuple)) else [("", thing)]:
            if kind(one) == "package":
                yield from named(one, f"{name}.")
            elif kind(one):
                yield f"{prefix}{name}{k}", one


def described(node):
    """The shape of a node's value, with B for the rows that are not there."""
    sizes = [*map(str, np.shape(node.value))]
    return listed(["B", *sizes[1:]] if node.batched else sizes)


def listed(sizes):
    return f"({', '.join(map(str, sizes))}{',' * (len(sizes) == 1)})"
