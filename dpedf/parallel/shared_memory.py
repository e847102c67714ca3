"""Memory that the ranks of a host share."""

import errno
import mmap
import os
from contextlib import contextmanager
from math import prod
from tempfile import NamedTemporaryFile, gettempdir

import numpy as np

from dpedf.errors import UserError, one_line

FOLDER = "/dev/shm" if os.path.isdir("/dev/shm") else gettempdir()  # as on macOS
PIECE = 1 << 24  # bytes that are written at a time


def shared_array(ranks, shape, dtype):
    """An array that the ranks of each host share, for one of them to fill.

    It is a file in memory, which loses its name as soon as all ranks have it, so that nothing
    outlives them.  Its memory is reserved first: a process that touches a page for which there is
    none is killed.  AgreedError: there is not enough.
    """
    if ranks.size == 1:
        return np.empty(shape, dtype)
    dtype, first = np.dtype(dtype), ranks.host_rank == 0
    nbytes = prod(shape) * dtype.itemsize
    with ranks.together(), asking_for(nbytes):
        named = NamedTemporaryFile(prefix="dpedf-", dir=FOLDER) if first else None
        if first:
            named.truncate(nbytes)
    try:
        name = ranks.host.bcast(named and named.name)
        with ranks.together(), asking_for(nbytes):
            file = open(name, "r+b")
    finally:
        if first:
            named.close()
    with file, ranks.together(), asking_for(nbytes):
        if first:
            reserve(file, nbytes)
        mapped = mmap.mmap(file.fileno(), nbytes)
    return np.frombuffer(mapped, dtype).reshape(shape)


def reserve(file, nbytes):
    """OSError: there is no room for so many bytes."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, nbytes)
    else:
        for first in range(0, nbytes, PIECE):
            file.write(bytes(min(PIECE, nbytes - first)))
        file.flush()


@contextmanager
def asking_for(nbytes):
    """What is wrong in the with block becomes a UserError."""
    try:
        yield
    except OSError as error:
        what = f"{FOLDER}: {one_line(error)}"
        if error.errno == errno.ENOSPC:
            there = os.statvfs(FOLDER)
            free = there.f_bavail * there.f_frsize
            what = f"{nbytes:,} bytes, expected at most the {free:,} that are free in {FOLDER}"
        raise UserError(what) from None
