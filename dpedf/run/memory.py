"""Does a run fit into the memory of this host?  Found out before it is asked for.

Linux promises more memory than there is, and later ends the process that uses it.
"""

import os
from contextlib import contextmanager
from math import prod
from pathlib import Path

from dpedf.edf import CompNodes, Parameters
from dpedf.errors import UserError, one_line
from dpedf.run.config import dtype

GROUPS = Path("/sys/fs/cgroup")


def memory():
    """The bytes that a process may have: those of the machine, or of its control group."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in GROUPS / "memory.max", GROUPS / "memory" / "memory.limit_in_bytes":
        if limit.exists() and (text := limit.read_text().strip()).isdigit():
            found.append(int(text))
    return min(found)


def expect_room(what, nbytes):
    """UserError: what takes more bytes than there are."""
    if nbytes > (there := memory()):
        raise UserError(f"{what} take {gib(nbytes)}, expected at most the {gib(there)} of memory")


def gib(nbytes):
    """24.3 GiB"""
    return f"{nbytes / 2**30:,.1f} GiB"


def expect_room_for_phi(ell, settings):
    """UserError: Phi, its gradient and the state of the optimizer do not fit."""
    train, n = settings.train, sum(p.value.size for p in Parameters(ell))
    vectors = (
        2 + {"adam": 2, "adamw": 2, "rmsprop": 1}.get(train.optimizer, 0) + (train.momentum > 0)
    )
    nbytes = n * vectors * (8 if dtype(settings) == "float64" else 4)
    expect_room(f"model: {n:,} parameters, {vectors} numbers for each,", nbytes)


def expect_room_for_rows(ell, rows):
    """UserError: the values of all nodes do not fit, of so many rows, a pass with the fewest.

    The program has been run on no rows.
    """
    values = [n.value for n in CompNodes(ell) if n.batched]
    row = sum(prod(value.shape[1:]) * value.itemsize for value in values)
    expect_room(f"train.batch_size: {rows:,} rows in a pass, {row:,} bytes for each,", rows * row)


@contextmanager
def enough():
    """A MemoryError inside is a UserError."""
    try:
        yield
    except MemoryError as error:
        expected = f"expected sizes that fit into {gib(memory())}"
        raise UserError(f"model: {one_line(error)}, {expected}") from None
