"""The ranks of a job in groups, each of which makes runs of its own, one after another."""

import gc
import os
import time
from contextlib import suppress
from copy import copy
from pathlib import Path

from dpedf.errors import RunError, UserError, print_error, traceback_of
from dpedf.parallel.ending import forget
from dpedf.parallel.ranks import Ranks
from dpedf.parallel.signs import all_fail
from dpedf.parallel.watchdog import Watchdog

EVERY = 0.1  # seconds between looks at whether the other groups are done
# Requests of runs that failed, for MPI may still write into their memory, which they hold.
UNFINISHED = []


class Group(Ranks):
    """Those ranks of a job with which this one makes its runs, `each` in number.

    What a run says is left out, for several of them would mix.
    """

    folder, run = None, 0  # in which groups take their runs; the number of the one at hand

    def __init__(self, world, each):
        vars(self).update(vars(world))
        self.world, self.each, self.shows_bar = world, each, each == world.size
        self.renew()

    def renew(self):
        """Be on a communicator on which nothing was sent yet."""
        world, first = self.world, self.world.rank // self.each * self.each
        if world.size > 1:
            self.host_rank, self.hosts = 0, 1
            members = world.comm.Get_group().Incl(range(first, first + self.each))
            self.join(world.comm.Create_group(members))

    def say(self, line, before=""):
        pass


def attempt(main, group, words, leave):
    """(status, why) of main(ranks, words), a run of a group that fails alone: other runs go on.

    What some ranks of several meet alone ends the job, since the others wait for them; before
    that, leave(why) is called.
    """
    ranks, why = copy(group), ""
    try:
        status = main(ranks, words)
    except Exception as error:
        known = isinstance(error, UserError | RunError)
        status = error.status if known else 1
        why = f"{error}" if known else f"{type(error).__name__}: {error}"
        why = " ".join(why.split())
        if group.size > 1 and not (known and error.agreed):
            if not all_fail(group.folder, group.run, group.rank, group.size):
                leave(why)
                raise
            UNFINISHED.extend(o for o in gc.get_objects() if isinstance(o, group.MPI.Request) and o)
            group.renew()
        if group.rank == 0 and not known:
            print_error(traceback_of(error))
    if group.host_rank == 0:
        forget(ranks)
    return status, why


def shared_out(n, folder, group):
    """Yield those of the numbers 0 to n-1 that fall to this group: each goes to one that is free.

    folder: an empty one, which all groups see.
    """
    group.folder = folder
    for group.run in range(n):
        if group.gather(group.rank == 0 and first(Path(folder, str(group.run))))[0]:
            yield group.run


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
