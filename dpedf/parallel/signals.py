"""Signals: SIGUSR1, SIGTERM and SIGINT (Ctrl-C) tell a run to stop; a second SIGINT ends it.

This is imported before all that takes long, so that no signal finds a program without handlers.
Python calls a handler only when its main thread comes out of the library in which it may be
waiting.  So the numbers of signals go through a pipe to a thread of their own.
"""

import os
import signal
import time
from contextlib import contextmanager
from math import inf
from threading import Thread, current_thread, main_thread

from dpedf.errors import UserError, open_streams
from dpedf.parallel.ending import end, end_later

STOPS = signal.SIGUSR1, signal.SIGTERM, signal.SIGINT
ENDS = signal.SIGINT, signal.SIGTERM  # of what has nothing to save
LEAVING = 1.0  # seconds in which the main thread may leave by itself, and tidy up
APART = 0.1  # seconds; sooner, it is the same Ctrl-C, from a terminal and from a wrapper
START = 600  # seconds in which a program has to import what it needs, and MPI to start


class Told:
    """What signals have told this process.

    stop: to stop?  file: that tells so too once it is there, of a job whose ranks train apart.
    leaves: do Ctrl-C and SIGTERM end it?  ranks: those that it ends, or a second SIGINT, once
    there are any.
    stops: the signals, without those that a shell ignores for what it runs in the background.
    """

    def __init__(self):
        self.hears, self.leaves = False, False
        self.stops = [n for n in STOPS if signal.getsignal(n) != signal.SIG_IGN]
        self.forget()

    def forget(self):
        """A run has ended, and another one may begin in this process."""
        self.heard, self.interrupted, self.ranks, self.file = False, inf, None, None

    @property
    def stop(self):
        """Was this process told to stop?"""
        return self.heard or bool(self.file and os.path.exists(self.file))

    def hear(self, pipe):
        while True:
            self.tell(os.read(pipe, 1)[0])

    def tell(self, number):
        self.heard, now = self.heard or number in STOPS, time.monotonic()
        if number in ENDS and self.leaves:
            time.sleep(LEAVING)
            end(self.ranks, 128 + number, stopped_by(128 + number))
        if number == signal.SIGINT:
            if now - self.interrupted > APART:
                end(self.ranks, 1, "interrupted twice, which ends the job")
            self.interrupted = now


told = Told()


def listen(ranks=None):
    """From now on, signals tell this process to stop.  None: before there are ranks."""
    if current_thread() is not main_thread():
        raise UserError("a run in a thread, expected the main thread, which alone hears signals")
    told.ranks, told.leaves = ranks, False
    open_streams()
    if ranks is None:
        end_later(START)
    hear()
    for number in told.stops:
        signal.signal(number, lambda number, frame: None)


def hear():
    """Start the thread to which the numbers of signals go."""
    if not told.hears:
        told.hears, (pipe, write) = True, os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        Thread(target=told.hear, args=[pipe], name="signals", daemon=True).start()


def forget():
    """A run has ended: from now on signals change nothing, least of all its status."""
    told.forget()
    if told.leaves:
        for number in {*ENDS} & {*told.stops}:
            signal.signal(number, signal.SIG_DFL)
        return
    for number in told.stops if told.hears else ():
        signal.signal(number, signal.SIG_IGN)


class Stopped(SystemExit):
    """A signal has told a program to end that has nothing to save."""


def leave_quietly():
    """From now on, Ctrl-C and SIGTERM raise Stopped: an end without a traceback.

    What is half written is removed on the way.  The status is a shell's, such as 130.
    """
    open_streams()
    defaults = signal.SIG_DFL, signal.default_int_handler
    for number in ENDS:
        if signal.getsignal(number) in defaults:
            signal.signal(number, stop)


@contextmanager
def stopping():
    """Inside the with block, SIGTERM raises Stopped where it would end the process at once."""
    heard = current_thread() is main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if heard:
        signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if heard:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def stop(number, frame):
    raise Stopped(128 + number)


def stopped_by(status):
    """What to say of this status of a Stopped."""
    return f"stopped by {'Ctrl-C' if status == 128 + signal.SIGINT else 'SIGTERM'}"


def leave_waiting(ranks=None):
    """From now on, Ctrl-C and SIGTERM end this process also where its main thread waits in MPI.

    ranks: those of its job, once there are any.
    """
    told.ranks = ranks
    if current_thread() is main_thread() and not told.hears:
        told.leaves = True
        hear()
