"""The ranks of a job in groups, each of which makes runs of its own, one after another."""

import gc
import os
import time
import traceback
from contextlib import suppress
from copy import copy
from pathlib import Path

from dpedf.errors import RunError, UserError, print_error
from dpedf.parallel.ending import forget
from dpedf.parallel.ranks import Ranks
from dpedf.parallel.watchdog import Watchdog

EVERY = 0.1  # seconds between looks at whether the other groups are done


class Group(Ranks):
    """Those ranks of a job with which this one makes its runs, `each` in number.

    What a run says is left out, for several of them would mix.
    """

    def __init__(self, world, each):
        vars(self).update(vars(world))
        self.shows_bar = each == world.size
        if each < world.size:
            self.host_rank, self.hosts = 0, 1
            self.join(world.comm.Split(world.rank // each, world.rank))

    def say(self, line, before=""):
        pass


def attempt(main, group, words):
    """(status, why) of main(ranks, words), a run of a group that fails alone: other runs go on.

    What one rank of several meets alone ends the job, since the others wait for it.
    """
    ranks, why = copy(group), ""
    try:
        status = main(ranks, words)
    except (UserError, RunError) as error:
        if group.size > 1 and not error.agreed:
            raise
        status, why = error.status, str(error)
    except Exception as error:
        if group.size > 1:
            raise
        print_error(traceback.format_exc())
        status, why = 1, f"{type(error).__name__}: {error}"
    if group.host_rank == 0:
        forget(ranks)
    gc.collect()  # which lets go of its directory, as the end of a process does
    return status, why


def shared_out(n, folder, group):
    """Yield those of the numbers 0 to n-1 that fall to this group: each goes to one that is free.

    folder: an empty one, which all groups see.
    """
    for k in range(n):
        if group.gather(group.rank == 0 and first(Path(folder, str(k))))[0]:
            yield k


def first(ticket):
    """Is this the process that makes a file?"""
    with suppress(FileExistsError):
        os.close(os.open(ticket, os.O_CREAT | os.O_EXCL))
        return True
    return False


def wait_for_all(ranks, every=EVERY, alive=lambda: Watchdog.of_this_process.ranks.alive()):
    """Sleep until all ranks are here, while others compute: MPI itself would wait with all might.

    every: so many seconds this rank looks whether they are, and calls alive().
    """
    if ranks.size > 1:
        all_here = ranks.comm.Ibarrier()
        while not all_here.Test():
            alive()
            time.sleep(every)
