"""What models expect of their keywords and of the data."""

from math import prod

from dpedf.errors import UserError

LIST_OF_SIZES = "a list of two or more positive whole numbers, such as [64, 10]"


def positive(**numbers):
    """UserError: a number, or one of a list, that is no positive integer."""
    for name, found in numbers.items():
        for n in found if isinstance(found, (list, tuple)) else [found]:
            if type(n) is not int or n < 1:
                expected = "a list of positive integers" if n is not found else "a positive integer"
                raise UserError(f"model.{name} = {found!r}, expected {expected}")


def labels(y):
    """UserError: y holds no labels."""
    if y.classes is None:
        raise UserError("model.build: y holds numbers, expected labels, which are integers")


def labels_that_count(y):
    """UserError: y holds no labels, or some that do not count, which only LogLoss leaves out."""
    labels(y)
    ignore = getattr(y, "ignore", None)
    if ignore is not None:
        found = f"model.build: of the labels, {ignore} does not count"
        raise UserError(f"{found}, expected a model that ends in LogLoss, such as mlp")


def activation(name, activations):
    """What this is the name of.  UserError: none of those."""
    if name not in [*activations]:
        near = str(name).lower()
        perhaps = f", perhaps {near}" if near in [*activations] else ""
        expected = f"one of {', '.join(activations)}{perhaps}"
        raise UserError(f"model.activation = {name!r}, expected {expected}")
    return activations[name]


def layers(sizes, name, activations, x):
    """What this activation is the name of.  UserError: with these sizes, it makes no MLP of x."""
    found = activation(name, activations)
    numbers = isinstance(sizes, list) and all(type(n) is int and n > 0 for n in sizes)
    if not numbers or len(sizes) < 2:
        raise UserError(f"model.sizes = {sizes!r}, expected {LIST_OF_SIZES}")
    if sizes[0] != prod(x.shape):
        raise UserError(f"model.sizes[0] = {sizes[0]}, expected {prod(x.shape)}: x is {x.shape}")
    return found
