"""Signals: SIGUSR1, SIGTERM and SIGINT (Ctrl-C) tell a run to stop; a second SIGINT ends it.

This is imported before all that takes long, so that no signal finds a program without handlers.
"""

import signal
import sys
import time
from math import inf

from dpedf.errors import open_streams
from dpedf.parallel.ending import end

STOPS = signal.SIGUSR1, signal.SIGTERM, signal.SIGINT
APART = 0.1  # seconds; sooner, it is the same Ctrl-C, from a terminal and from a wrapper


class Told:
    """What signals have told this process.

    stop: to stop?  ranks: those that a second SIGINT ends, once there are any.
    """

    def __init__(self):
        self.stop, self.interrupted, self.ranks = False, inf, None

    def tell(self, number, frame):
        self.stop, now = True, time.monotonic()
        if number == signal.SIGINT and now - self.interrupted > APART:
            end(self.ranks, 1, "interrupted twice, which ends the job")
        if number == signal.SIGINT:
            self.interrupted = now

    def forget(self):
        """A run has ended, and another one may begin in this process."""
        self.stop, self.interrupted, self.ranks = False, inf, None


told = Told()


def listen():
    """From now on, signals tell this process to stop."""
    open_streams()
    for number in STOPS:
        ignored = number == signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN
        if not ignored:  # as by a shell, for what it runs in the background
            signal.signal(number, told.tell)


def leave_quietly():
    """From now on, Ctrl-C ends this process with status 130, without a traceback."""
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: sys.exit(130))
