"""Files on disk: regular ones are read, and what is written appears as a whole or not at all."""

import errno
import os
import stat
from pathlib import Path


def expect_regular(path):
    """OSError: there is no such file, or it is a FIFO, a socket or a device: to open it can block.

    A directory passes, since to open it says what it is.
    """
    kind = os.stat(path).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise OSError(errno.EINVAL, "not a regular file")


def replace(path, content):
    """Write bytes to a file, which appears or replaces another as a whole or not at all."""
    unfinished = Path(f"{path}.unfinished")
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
