"""Errors that the user can mend, and how lines are written."""

import sys
from contextlib import contextmanager


class UserError(ValueError):
    """What the user gave is wrong.  One line says what was found, where, and what was expected.

    A run that meets one ends with status 2, before any training.
    """


class AgreedError(UserError):
    """A UserError that every rank raises, so that all of them end."""


def one_line(error):
    """The text of an error in one line; HDF5's span several."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())


def plural(n, noun):
    """ "1 rank", "4 ranks"."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


@contextmanager
def concerning(what):
    """Inside the with block, a UserError begins with what it concerns, such as a file."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"{what}: {error}") from None


def print_error(text):
    """Print on stderr in one call, so that the lines of several ranks do not mix."""
    sys.stderr.write(text.rstrip("\n") + "\n")
    sys.stderr.flush()
