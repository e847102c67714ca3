"""Errors that end a run with one line, and how lines are written."""

import sys
from contextlib import contextmanager


class UserError(ValueError):
    """What the user gave is wrong.  One line says what was found, where, and what was expected.

    A run that meets one ends with status 2, before any training.
    """

    status, agreed = 2, False  # agreed: does every rank raise it?  Then rank 0 alone prints it.


class AgreedError(UserError):
    """A UserError that every rank raises, so that all of them end."""

    agreed = True


class RunError(Exception):
    """A run cannot go on: a disk is full, a file is damaged, the loss is not finite.

    One line says what was found, where, and what to do.  The run ends with status 1.
    """

    status, agreed = 1, False


class AgreedRunError(RunError):
    """A RunError that every rank raises."""

    agreed = True


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
