"""The lock of a run: one job at a time has a directory, and anybody may ask whether one does."""

import fcntl
import time
from contextlib import suppress
from pathlib import Path

from dpedf.data.disk import expect_regular, no_link

LOCK = ".lock"  # in the directory of the run
GLANCES = 5  # how often a job asks for it, each time after a moment


def take(lock):
    """Lock a file, or BlockingIOError: another process holds it, for longer than live() does."""
    for _ in range(GLANCES):
        with suppress(BlockingIOError):
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.05)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def live(path):
    """Does a job train in this directory?

    Asking disturbs no job: one that starts at this moment tries again, see take().
    """
    lock = Path(path) / LOCK
    try:
        expect_regular(lock)
        with open(lock, "rb", opener=no_link) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none, or this file system has no locks
        return False
    return False
