"""Is there room in memory for what a run computes?  Found out before it is asked for.

Linux promises more memory than there is, and later ends the process that uses it.
"""

from contextlib import contextmanager
from math import prod

from dpedf.data.memory import available, expect_memory
from dpedf.edf import CompNodes, Parameters
from dpedf.errors import UserError, one_line
from dpedf.run.config import dtype


def expect_room_for_phi(ell, settings):
    """UserError: Phi, its gradient and the state of the optimizer do not fit."""
    train, n = settings.train, sum(p.value.size for p in Parameters(ell))
    vectors = 2 + {"adam": 2, "adamw": 2, "rmsprop": 1}.get(train.optimizer, 0)
    vectors += (train.momentum > 0) + 2 * (train.average > 0)
    nbytes = n * vectors * (8 if dtype(settings) == "float64" else 4)
    expect_memory(f"model: {n:,} parameters, {vectors} numbers for each", nbytes)


def expect_room_for_rows(ell, rows):
    """UserError: the values of all nodes do not fit, of so many rows, a pass with the fewest.

    The program has been run on no rows.
    """
    row = bytes_of_row(ell)
    what = f"train.batch_size: {rows:,} rows in a pass, {row:,} bytes for each"
    expect_memory(what, rows * row)


def bytes_of_row(ell):
    """What the values of all nodes take of memory for one row.

    The program has been run on no rows.
    """
    values = [n.value for n in CompNodes(ell) if n.batched]
    return sum(prod(value.shape[1:]) * value.itemsize for value in values)


@contextmanager
def enough():
    """A MemoryError inside is a UserError."""
    try:
        yield
    except MemoryError as error:
        expected = f"expected sizes that fit into the {available():,} bytes of free memory"
        raise UserError(f"model: {one_line(error)}, {expected}") from None
