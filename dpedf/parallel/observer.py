"""A process that observes a rank, and speaks for it where it stands still or dies.

A rank that starts MPI or waits for a driver holds Python's global lock, so that none of its own
threads could say where it stands.  Before each step it tells its observer what to say if the step
does not end, or if the rank ends in it.  This file is also the program of the observer, which
knows nothing of dpedf.
"""

import faulthandler
import json
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress

LOOKS = 0.1  # seconds between two looks at the rank
EXIT = 1.5  # seconds after which a rank ends that did not end its step
LEAVING = 10.0  # seconds until MPI has ended
PATIENCE = 2.0  # seconds that a rank which waits for others leaves them to speak first


class Observer:
    """The observer of this process.

    name: of the rank, such as "rank 2 (node7)", or nothing where there is one alone.
    known(why): what is left to print on stdout, where the end is near and this is why.
    """

    def __init__(self, name, known):
        self.name, self.known = name, known
        self.nowhere = open(os.devnull, "w")
        program = [sys.executable, "-I", "-S", __file__, str(os.getpid())]
        self.process = subprocess.Popen(program, stdin=subprocess.PIPE, text=True)

    def step(self, what, seconds, together=False, last=False):
        """From now on this rank does something that ends within so many seconds.

        together: it waits for other ranks there, of which one may be the reason if it does not.
        last: it ends then.
        """
        late = f"{what} did not end in {seconds:g} seconds"
        late += ", for which all ranks have to be alive" if together else ""
        ends = {"late": late, "died": f"this process ended while {what}"}
        said = {end: f"{self.name}: {why}".removeprefix(": ") for end, why in ends.items()}
        patience = PATIENCE if together else 0
        message = {"seconds": seconds, "patience": patience}
        message |= {end: [self.known(why), why] for end, why in said.items()}
        if last:
            message["died"] = ["", ""]
        self.tell(message)
        # The observer speaks first.  It ends the rank itself if that is stopped by a signal.
        exits = seconds + patience + EXIT
        faulthandler.dump_traceback_later(exits, exit=True, file=self.nowhere)

    def tell(self, message):
        with suppress(OSError):  # somebody ended the observer, so that nobody speaks
            print(json.dumps(message), file=self.process.stdin, flush=True)

    def leave(self, together):
        """The program ends, and says no more.  together: MPI waits for the other ranks then."""
        if together:
            self.step("leaving MPI", LEAVING, together, last=True)
            return
        faulthandler.cancel_dump_traceback_later()
        self.tell(None)
        with suppress(OSError):
            self.process.stdin.close()
        self.process.wait()


def observe(rank):
    """Read the messages of the rank, a process of this number, until it has no more."""
    message, line = None, b""
    left = float("inf")
    while True:
        if not select.select([0], [], [], LOOKS)[0]:
            left -= LOOKS  # not what a clock says, which goes on while Ctrl-Z stops everything
            if left + message_patience(message, rank) <= 0:
                known, why = message["late"]
                say(known, why + " (a signal has stopped this rank)" * is_stopped(rank))
                end(rank)
                return
            continue
        piece = os.read(0, 1 << 16)
        *whole, line = (line + piece).split(b"\n")
        for one in whole:
            message = json.loads(one)
            left = message["seconds"] if message else float("inf")
        if not piece:
            if message:
                say(*message["died"])
            return


def message_patience(message, rank):
    """How many seconds more, since another rank may be the one to speak."""
    return message["patience"] if message and not is_stopped(rank) else 0


def is_stopped(process):
    """Did a signal, such as SIGSTOP, stop it?  Only Linux says so."""
    with suppress(OSError, IndexError), open(f"/proc/{process}/stat", "rb") as file:
        return file.read().rpartition(b") ")[2][:1] == b"T"
    return False


def say(known, why):
    for stream, text in (sys.stdout, known), (sys.stderr, why):
        if stream and text:
            with suppress(OSError, ValueError):
                stream.write(f"{text}\n")
                stream.flush()


def end(rank):
    """End a process that does not end itself: it is stopped."""
    for _ in range(int(5 / LOOKS)):
        if not select.select([0], [], [], LOOKS)[0]:
            continue
        if not os.read(0, 1 << 16):
            return
    with suppress(ProcessLookupError):
        os.kill(rank, signal.SIGKILL)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    observe(int(sys.argv[1]))
    os._exit(0)  # without a last flush of a stream that is broken
