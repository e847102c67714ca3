"""A rank that stands still ends the whole job, because the others would wait for it for ever."""

import os
import threading
import time

from dpedf.errors import print_error
from dpedf.parallel.job import abort


def watch(ranks, timeout):
    """From now on, end the job when this rank has not called alive() for timeout seconds."""
    ranks.alive()
    if ranks.size > 1:
        threading.Thread(target=guard, args=[ranks, timeout], daemon=True).start()


def guard(ranks, timeout):
    while time.monotonic() - ranks.last_alive < timeout:
        time.sleep(min(1, timeout / 10))
    print_error(f"rank {ranks.rank}: no step for {timeout:g} seconds, which ends the job")
    threading.Timer(1.5, os._exit, [1]).start()  # in case Abort waits for a rank that is stopped
    abort(ranks, 1)
