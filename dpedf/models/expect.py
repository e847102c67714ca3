"""What models expect of their keywords and of the data."""

from dpedf.errors import UserError


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
