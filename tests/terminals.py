"""Programs at a terminal of a test's own."""

import os
import subprocess
import termios
from contextlib import suppress


def at_a_terminal(words, columns, stdout=None, **how):
    """(what came to a terminal of so many columns, in which all ends but what goes to stdout; that)

    how: a program starts, for Popen.
    """
    terminal, end = os.openpty()
    termios.tcsetwinsize(end, (24, columns))
    attributes = termios.tcgetattr(end)
    attributes[1] &= ~termios.OPOST  # newlines stay as they are
    termios.tcsetattr(end, termios.TCSANOW, attributes)
    streams = {"stdout": stdout or end, "stderr": end, "stdin": subprocess.DEVNULL}
    with subprocess.Popen(words, **streams, **how) as job:
        os.close(end)
        shown = b""
        with suppress(OSError):  # so ends a terminal on Linux
            while piece := os.read(terminal, 4096):
                shown += piece
        out = job.stdout.read().decode() if job.stdout else ""
    os.close(terminal)
    assert job.returncode == 0, shown.decode()
    return shown.decode(), out
