"""What the ranks of a job tell each other by files, where some train and cannot be asked.

The files lie in a folder that all ranks see, and that goes with the job.
"""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from threading import Event, Thread
from weakref import finalize

from dpedf.parallel.ending import end
from dpedf.parallel.watchdog import Watchdog

PREFIX = ".sweep-"
EVERY = 1.0  # seconds between two signs of life
PATIENCE = 5.0  # seconds after the first rank of a run failed in which all others have to fail
LOOKS = 0.1  # seconds between two looks at whether they did


def new_folder(directory):
    """A TemporaryDirectory in a directory, locked as long as it is there.

    Those of jobs that were killed are removed, but on a disk that has no locks.
    """
    whole = os.open(directory, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(whole, fcntl.LOCK_EX)  # so that nobody removes it before it is locked
        folder = TemporaryDirectory(prefix=PREFIX, dir=directory)
        handle = os.open(folder.name, os.O_RDONLY)
        finalize(folder, os.close, handle)
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
            for old in Path(directory).glob(f"{PREFIX}*"):
                if not is_locked(old):
                    rmtree(old, ignore_errors=True)
    finally:
        os.close(whole)
    return folder


def is_locked(folder):
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def all_fail(folder, what, rank, size):
    """Do all ranks of a run call this, soon after one another?  what: names the run.

    One that does not may wait for the others inside the run, for ever.
    """
    with suppress(OSError):
        Path(folder, f"{what} failed on rank {rank}").touch()
        left = {Path(folder, f"{what} failed on rank {other}") for other in range(size)}
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            left = {file for file in left if not file.exists()}
            if not left:
                return True
            Watchdog.of_this_process.ranks.alive()
            time.sleep(LOOKS)
    return False


class Life(Thread):
    """Signs of life of this process, and of that of the next rank, which may be a stopped one.

    watches: does this rank wait for all others?  Then the job ends where the next one has shown
    no sign for run.timeout.  A rank that trains is watched by its own Watchdog besides.
    """

    def __init__(self, folder, world):
        super().__init__(name="life", daemon=True)
        self.world, self.next, self.watches = world, (world.rank + 1) % world.size, False
        self.mine, self.other = (Path(folder, f"alive {k}") for k in (world.rank, self.next))
        self.ended, self.seen, self.quiet = Event(), None, 0.0
        with suppress(OSError):  # a full disk: the others know nothing of this rank
            self.mine.touch()

    def run(self):
        while not self.ended.wait(EVERY):
            with suppress(OSError):
                os.utime(self.mine)
            if self.watches:
                self.look()

    def look(self):
        sign = None
        with suppress(OSError), open(self.other) as file:  # which asks a server, as stat does not
            sign = os.fstat(file.fileno()).st_mtime_ns
        # Not what a clock says, which goes on while Ctrl-Z stops everything.
        self.quiet = self.quiet + EVERY if sign == self.seen and sign else 0.0
        self.seen, timeout = sign, max(self.world.timeout, 3 * EVERY)
        if self.quiet >= timeout:
            why = f"rank {self.next} gave no sign of life for {timeout:g} seconds"
            end(self.world, 1, f"{why}, as if a signal had stopped it: all others wait for it")
