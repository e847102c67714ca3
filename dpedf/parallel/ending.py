"""How one rank ends all of them, whatever the others do, and whatever becomes of its words."""

import faulthandler
import os
import re
import shutil
import time
from hashlib import sha256
from threading import Timer

from dpedf.errors import flush, print_error

SECONDS = 3  # after which a rank ends itself, at the latest


def end(ranks, status, why):
    """Say why, and end all ranks of the job with this status, also those of other groups.

    ranks may be None, before there are any.
    """
    job = ranks.MPI.COMM_WORLD if ranks and ranks.MPI else None
    several = job and job.size > 1
    try:
        # Printing may stand still, where nobody reads, and Abort may wait for a stopped rank.
        Timer(SECONDS, os._exit, [status]).start()
        if several and ranks.rank > 0 and not ranks.words:
            time.sleep(1)  # rank 0 says it once, if it has the same to say
        if not (several and said_by_another(ranks, why)):
            print_error(why)
        flush()
        if several:
            time.sleep(0.5)  # Abort also ends the launcher, which passes on first what was said
        forget(ranks)
    finally:
        try:
            if several:
                job.Abort(status)
        finally:
            os._exit(status)


def said_by_another(ranks, why):
    """Has another rank of this host said the same, but for numbers, such as its own or of rows?"""
    what = re.sub(r"0x[0-9a-f]+|\d+", "", why)
    try:
        with open(f"{ranks.words}/said {sha256(what.encode()).hexdigest()}", "x"):
            return False
    except FileExistsError:
        return True
    except OSError:  # there is no such folder, or no room in it
        return False


def end_later(seconds):
    """End this process after so many seconds, wherever it then stands, which is printed.

    faulthandler.cancel_dump_traceback_later() is the way out.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=2)


def forget(ranks):
    """Remove the words that the watchdogs of ranks have left."""
    for _ in range(10):  # another rank may be leaving one
        if ranks and ranks.words and os.path.exists(ranks.words):
            shutil.rmtree(ranks.words, ignore_errors=True)
