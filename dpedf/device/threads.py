"""How many threads BLAS may use."""

import os
import socket

from dpedf.errors import UserError


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
    """The number of BLAS threads of this rank.

    run.threads, if it is set.  With slices 1, because two threads add in another order.
    Otherwise the rank's share of its cores, which it may have in common with other ranks.
    """
    here = socket.gethostname(), cores()
    share = max(1, len(here[1]) // ranks.gather(here).count(here))
    return settings.run.threads or (1 if settings.train.slices else share)
