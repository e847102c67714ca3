"""The indices of a node whose arguments say which: as axes, and as letters of its equations."""

from math import prod
from numbers import Integral, Real

import numpy as np

LETTERS = "ijkmnopqrst"  # of indices after b


def indexed(name, index):
    """x[b,i], or x without an index."""
    return f"{name}[{','.join(index)}]" if index else name


def is_whole(number):
    """Is this a whole number of Python or NumPy?  True and False, which choose, are not."""
    return isinstance(number, Integral) and not isinstance(number, bool)


def whole(node, numbers):
    """A tuple of int, of a whole number or several.  ValueError: there are others."""
    several = tuple(numbers) if np.ndim(numbers) else (numbers,)
    if not all(map(is_whole, several)):
        raise ValueError(f"{type(node).__name__} by {numbers!r}, expected whole numbers")
    return tuple(map(int, several))


def whole_one(node, number):
    """An int.  ValueError: it is not one whole number."""
    numbers = whole(node, number)
    if len(numbers) != 1:
        raise ValueError(f"{type(node).__name__} by {number!r}, expected one whole number")
    return numbers[0]


def a_number(node, **argument):
    """A float, of an argument of a node.  ValueError: it is no number."""
    ((name, number),) = argument.items()
    if not isinstance(number, Real):
        raise ValueError(f"{type(node).__name__} of {name} = {number!r}, expected a number")
    return float(number)


def after_b(x, axes, more=0):
    """The axes of an array that these are of the node x; None: all.  ValueError: none such.

    more: how many indices the array has beside those of x.
    """
    indices = x.value.ndim - x.batched + more
    axes = range(indices) if axes is None else axes
    for axis in axes:
        if not -indices <= axis < indices:
            raise ValueError(f"expected an axis in {-indices}..{indices - 1}, not {axis}")
    return tuple(axis % indices + x.batched for axis in axes)


def letters_of(x):
    """A letter for each index of a value: b, i, j."""
    return ["b", *LETTERS][not x.batched :][: x.value.ndim]


def number_of(x):
    """Which number of its row x[b,i,j] is: 8 i + j."""
    letters, sizes = letters_of(x)[x.batched :], x.value.shape[x.batched :]
    pairs = enumerate(zip(letters, sizes, strict=True))
    terms = [f"{prod(sizes[k + 1 :])} {letter}" for k, (letter, size) in pairs if size != 1]
    return " + ".join(terms) or "0"


def copy_equations(y, x, name="x"):
    """y[...] = x[...], of a node that copies numbers, and its gradient.  y, x: indices."""
    gradient = f"{indexed(f'{name}.grad', x)} += {indexed('y.grad', y)}"
    return f"{indexed('y', y)} = {indexed(name, x)}\n{gradient}"


def reshape_equations(y, x):
    """Those of a node y that has the numbers of each row of x in another shape."""
    (y, in_row_y), (x, in_row_x) = (
        (letters_of(n), ["b"] * n.batched + [number_of(n)]) for n in (y, x)
    )
    if len(y) <= len(in_row_y):
        return copy_equations(in_row_x[: len(y)], x)
    if len(x) <= len(in_row_x):
        return copy_equations(y, in_row_y[: len(x)])
    return f"""{indexed("y", y)} = {indexed("row", in_row_y)}
    {indexed("row", in_row_x)} = {indexed("x", x)}

    {indexed("x.grad", x)} += {indexed("delta", in_row_x)}
    {indexed("delta", in_row_y)} = {indexed("y.grad", y)}"""
