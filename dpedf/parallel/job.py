"""How a job starts and ends: one rank that fails ends all of them."""

import sys
import threading
import traceback

from dpedf.errors import RunError, UserError, flush, print_error, traceback_of, visible
from dpedf.parallel import launcher, signals, watchdog
from dpedf.parallel.ending import end, forget
from dpedf.parallel.ranks import Ranks
from dpedf.parallel.segments import unlink_segments


def run(main, *arguments):
    """Call main(ranks, *arguments) and exit with the status that it returns.

    0 or None: finished.  A UserError is one line and status 2, a RunError one line and status 1.
    Any other error is a traceback, ends all ranks, and has status 1.
    """
    launcher.expect_numbers()
    several = launcher.size() > 1
    if several:
        signals.leave_waiting()
    ranks = Ranks()
    if several:
        signals.leave_waiting(ranks)
    unlink_segments()
    threading.excepthook = lambda args: end(ranks, 1, described(ranks, args.exc_value))
    try:
        launcher.expect_one_world(ranks)
        status = main(ranks, *arguments)
    except (UserError, RunError) as error:
        status = error.status
        if not error.agreed:
            end(ranks, status, str(error))
        if ranks.rank == 0:
            print_error(visible(str(error)))
    except signals.Stopped as stopped:
        end(ranks, stopped.code, signals.stopped_by(stopped.code))
    except BaseException as error:
        end(ranks, 1, described(ranks, error))
    if ranks.host_rank == 0:
        forget(ranks)
    signals.forget()
    flush()
    sys.exit(status)


def run_watched(main):
    """The same for a tool that calls ranks.alive() about once a second: it ends where none is."""

    def watched(ranks):
        if ranks.size > 1:
            watchdog.watch(ranks)
        return main(ranks)

    run(watched)


def watch(ranks):
    """From now on, signals tell this job to stop, and it ends where no rank is alive any more.

    A program that calls this has to look at signals.told.stop, and to call ranks.alive(), as
    Agreement does, about once a second.
    """
    signals.listen(ranks)
    watchdog.watch(ranks)


def described(ranks, error):
    """The traceback of an error; a line, where a program was told to end itself."""
    rank = f"rank {ranks.rank}:" if ranks.size > 1 else ""
    if isinstance(error, (SystemExit, KeyboardInterrupt)):
        last = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}({error}) in {last.filename}:{last.lineno} {last.name}"
        return f"{rank} {what}, which ends the job".lstrip()
    return f"{rank}\n{traceback_of(error)}".lstrip()
