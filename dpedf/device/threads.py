"""How many threads BLAS may use."""

import os
import re
import socket
from collections import Counter

from threadpoolctl import threadpool_info

from dpedf.device.cgroups import quotas
from dpedf.errors import UserError, plural

OTHERS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"),
    "VECLIB_MAXIMUM_THREADS",
)


def cores():
    """The numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))  # macOS binds no process to cores


def expect_cores(settings):
    """UserError: run.threads are more than the machine has cores."""
    threads, most = settings.run.threads, os.cpu_count() or 1
    if threads > most:
        raise UserError(
            f"run.threads = {threads}, expected at most the {most} cores of the machine"
        )


def blas_threads(settings, ranks):
    """(the number of BLAS threads of this rank, why so many).

    run.threads, if it is set, or without slices what the environment asks for, but no more than
    the rank's share of the cores.  Otherwise 1: more would wait for each other in every product
    as soon as another process takes one of their cores, and add in another order.
    """
    share, (name, asked) = share_of_cores(ranks), from_environment()
    if settings.run.threads:
        return settings.run.threads, "run.threads"
    if settings.train.slices or not asked:
        ignored = f", not {name} = {asked}: with slices only run.threads gives more"
        return 1, f"the default{ignored if asked > 1 else ''}"
    most = f", but its share is {plural(share, 'core')}" if asked > share else ""
    return min(asked, share), f"{name} = {asked}{most}"


def share_of_cores(ranks):
    """How many cores this rank has, if ranks that may use the same ones share them.

    A quota of a container, or of a job, is as if there were only so many cores.
    """
    if ranks.share:  # with ranks of other runs too
        return ranks.share
    host, mine = socket.gethostname(), cores()
    limits = {(host, *mine): len(mine)} | {(host, group): n for group, n in quotas()}
    sharing = Counter(limit for theirs in ranks.gather(limits) for limit in theirs)
    return max(1, int(min(n / sharing[limit] for limit, n in limits.items())))


def from_environment():
    """(variable, how many threads it asks for), first of those that the BLAS at hand reads.

    A list, such as 4,2 of OpenMP, counts by its first number; what is no number is passed over, as
    BLAS does.
    """
    blas = [library for library in threadpool_info() if library["user_api"] == "blas"]
    for name in (*(f"{b['internal_api'].upper()}_NUM_THREADS" for b in blas), *OTHERS):
        found = re.match(r"\s*\+?([0-9]{1,9})", os.environ.get(name, ""))
        if found and int(found[1]):
            return name, int(found[1])
    return None, 0
