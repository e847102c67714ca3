"""The ranks of a run, and how it ends: the only door to mpi4py.

With one rank every call is a trivial one, so programs need not ask; without any MPI library
there is one rank.
"""

import os
import sys
import threading
import time
import traceback
import warnings
from contextlib import contextmanager
from itertools import zip_longest

import numpy as np

from dpedf import launcher
from dpedf.errors import AgreedError, UserError, complain


class Ranks:
    """The processes of a run: this is number rank of size, and number host_rank of its host."""

    recordable = True  # may sums over ranks be part of a CUDA graph?  With one rank there are none.
    piece = None  # how many numbers are to be added at a time: any

    def __init__(self):
        try:
            with warnings.catch_warnings(action="ignore"):  # launcher.check says it in our words
                from mpi4py import MPI
        except (ImportError, RuntimeError):  # mpi4py is there, but no libmpi
            MPI = None
        self.MPI, self.rank, self.size, self.host_rank, self.hosts = MPI, 0, 1, 0, 1
        self.mpi = "no MPI library"
        if MPI:
            version = MPI.Get_library_version().split("\n")[0].split(",")[0]
            self.mpi = " ".join(version.replace("Version:", "").split())
            self.comm = MPI.COMM_WORLD
            self.rank, self.size = self.comm.rank, self.comm.size
        if self.size > 1:
            self.host = self.comm.Split_type(MPI.COMM_TYPE_SHARED)
            self.host_rank = self.host.rank
            self.hosts = self.gather(self.host_rank).count(0)

    def say(self, line):
        """Rank 0 alone talks, a line a call."""
        if self.rank == 0:
            print(line, flush=True)

    # what all ranks do together

    def wait(self):
        if self.size > 1:
            self.comm.Barrier()

    def broadcast(self, array):
        """Give every rank the array of rank 0, in place."""
        if self.size > 1:
            self.comm.Bcast(array)

    def gather(self, thing):
        """The thing of every rank, in the order of ranks, on every rank."""
        return self.comm.allgather(thing) if self.size > 1 else [thing]

    def largest(self, *numbers):
        """The largest over ranks of each number."""
        numbers = np.array(numbers, np.float64)
        if self.size > 1:
            self.comm.Allreduce(self.MPI.IN_PLACE, numbers, self.MPI.MAX)
        return numbers.tolist()

    def add(self, array):
        """Replace an array by its sum over ranks."""
        if self.size > 1:
            self.comm.Allreduce(self.MPI.IN_PLACE, array)

    def start_add(self, array, overlap):
        """The same, while the caller goes on where it has what to do; a request to wait for."""
        if overlap:
            return self.comm.Iallreduce(self.MPI.IN_PLACE, array)
        self.add(array)
        return self.MPI.REQUEST_NULL

    def start_exchange(self, pieces, cuts, received, counts):
        """Send pieces[cuts[q]:cuts[q+1]] to rank q, and receive counts[q] numbers from it."""
        there = np.diff(cuts)
        ends = np.cumsum(counts)
        return self.comm.Ialltoallv(
            [pieces, (there, cuts[:-1])], [received, (counts, ends - counts)]
        )

    def start_collect(self, vector, cuts):
        """Fill vector[cuts[q]:cuts[q+1]] with that of rank q, everywhere."""
        return self.comm.Iallgatherv(self.MPI.IN_PLACE, [vector, (np.diff(cuts), cuts[:-1])])

    def check(self):
        """MPI says by itself what fails."""

    # how a run ends

    @contextmanager
    def together(self):
        """A UserError of one rank becomes everyone's.  No rank may wait for another inside."""
        error = None
        try:
            yield
        except UserError as found:
            error = str(found)
        for found in self.gather(error):
            if found:
                raise AgreedError(found)

    def same(self, what, text):
        """Stop with one line unless all ranks hold the same text."""
        texts = self.gather(text)
        for rank, other in enumerate(texts):
            if other != texts[0]:
                lines = zip_longest(other.split("\n"), texts[0].split("\n"), fillvalue="nothing")
                found, expected = next(pair for pair in lines if pair[0] != pair[1])
                raise AgreedError(
                    f"{what}: rank {rank} has {found}, expected {expected} as on rank 0"
                )

    def alive(self):
        """This rank does not stand still."""
        self.last_alive = time.monotonic()

    def abort(self, status):
        """End all ranks."""
        sys.stdout.flush()
        if self.size > 1:
            self.comm.Abort(status)
        os._exit(status)


def run(main):
    """Leave with the status of main(ranks); what ends one rank otherwise ends the whole job."""
    ranks = Ranks()

    def failed(kind, error, trace, thread=None):
        complain(f"rank {ranks.rank}:\n" + "".join(traceback.format_exception(kind, error, trace)))
        ranks.abort(1)

    threading.excepthook = lambda args: failed(*args)
    try:
        launcher.check(ranks)
        status = main(ranks)
    except UserError as error:
        if ranks.rank == 0 or not isinstance(error, AgreedError):
            complain(str(error))
        if not isinstance(error, AgreedError):
            ranks.abort(2)
        status = 2
    except BaseException as error:
        if ranks.size == 1:
            raise
        failed(type(error), error, error.__traceback__)
    sys.exit(status)
