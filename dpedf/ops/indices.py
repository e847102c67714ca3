"""The indices of a node whose arguments say which: as axes, and as letters of its equations."""

from math import prod

LETTERS = "ijkmnopqrst"  # of indices after b


def indexed(name, index):
    """x[b,i], or x without an index."""
    return f"{name}[{','.join(index)}]" if index else name


def after_b(x, axes):
    """The axes of an array that these are of the node x.  ValueError: it has no such axis."""
    indices = x.value.ndim - x.batched
    for axis in axes:
        if not -indices <= axis < indices:
            raise ValueError(f"expected an axis in {-indices}..{indices - 1}, not {axis}")
    return tuple(axis % indices + x.batched for axis in axes)


def letters_of(x):
    """A letter for each index of a value: b, i, j."""
    return ["b", *LETTERS][not x.batched :][: x.value.ndim]


def number_of(letters, sizes):
    """Which number of an array of these sizes has these indices, in the order of rows: 8 i + j."""
    pairs = enumerate(zip(letters, sizes, strict=True))
    terms = [f"{prod(sizes[k + 1 :])} {letter}" for k, (letter, size) in pairs if size != 1]
    return " + ".join(terms) or "0"


def moves(here, there, x="x"):
    """The equations of a node that moves numbers: y[here] = x[there], and of its gradient."""
    gradient = f"{indexed(f'{x}.grad', there)} += {indexed('y.grad', here)}"
    return f"{indexed('y', here)} = {indexed(x, there)}\n{gradient}"
