"""A rank that stands still ends the whole job, in which the others would wait for it."""

import os
import threading
import time

from dpedf.errors import complain


def watch(ranks, timeout):
    """From now on, end the job where this rank has not called alive() for timeout seconds."""
    ranks.alive()
    if ranks.size > 1:
        threading.Thread(target=guard, args=[ranks, timeout], daemon=True).start()


def guard(ranks, timeout):
    while time.monotonic() - ranks.last_alive < timeout:
        time.sleep(min(1, timeout / 10))
    complain(f"rank {ranks.rank}: no step for {timeout:g} seconds, which ends the job")
    time.sleep(0.2)  # until the launcher has passed the line on, for Abort ends it as well
    threading.Timer(1, os._exit, [1]).start()  # where Abort waits for a rank that is stopped
    ranks.abort(1)
