"""The one kind of error that is the user's to mend, and how things are said."""

import sys
from contextlib import contextmanager


class UserError(ValueError):
    """What the user gave is wrong: one line says what was found, where, and what was expected.

    A run that meets one leaves with status 2, before any training.
    """


class AgreedError(UserError):
    """A user's error that all ranks know of, so that all can leave."""


def line(error):
    """What an error says, in one line, which HDF5's errors do not keep to."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())


def counted(n, noun):
    """ "1 rank", "4 ranks"."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


@contextmanager
def concerning(what):
    """Say of a UserError inside what it is about: a file, say."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{what}: {error}") from None


def complain(text):
    """On stderr, in one call, so that no other rank's line falls into it."""
    sys.stderr.write(text.rstrip("\n") + "\n")
    sys.stderr.flush()
