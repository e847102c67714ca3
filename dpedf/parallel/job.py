"""How a job starts and ends: one rank that fails ends all of them."""

import os
import sys
import threading
import time
import traceback

from dpedf.errors import RunError, UserError, print_error
from dpedf.parallel import launcher
from dpedf.parallel.ranks import Ranks


def run(main):
    """Call main(ranks) and exit with the status that it returns.

    0 or None: finished.  A UserError is one line and status 2, a RunError one line and status 1.
    Any other error is a traceback, ends all ranks, and has status 1.
    """
    ranks = Ranks()

    def failed(kind, error, trace, thread=None):
        lines = traceback.format_exception(kind, error, trace)
        print_error(f"rank {ranks.rank}:\n" + "".join(lines))
        abort(ranks, 1)

    threading.excepthook = lambda args: failed(*args)
    try:
        launcher.expect_one_world(ranks)
        status = main(ranks)
    except (UserError, RunError) as error:
        if ranks.rank == 0 or not error.agreed:
            print_error(str(error))
        if not error.agreed:
            abort(ranks, error.status)
        status = error.status
    except BaseException as error:
        if ranks.size == 1:
            raise
        failed(type(error), error, error.__traceback__)
    sys.exit(status)


def abort(ranks, status):
    """End all ranks."""
    sys.stdout.flush()
    if ranks.size > 1:
        time.sleep(0.5)  # Abort also ends the launcher, which has to pass on first what was said
        ranks.comm.Abort(status)
    os._exit(status)
