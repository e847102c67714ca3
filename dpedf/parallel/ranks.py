"""The ranks of a run, and what they do together.  The only door to mpi4py.

With one rank every call does nothing or returns its argument, so that programs need not ask.
Without any MPI library there is one rank.
"""

import time
import warnings
from contextlib import contextmanager

import numpy as np

from dpedf.errors import AgreedError, UserError, print_line


class Ranks:
    """The processes of a run: this is number rank of size, and number host_rank on its host."""

    recordable = True  # may sums over ranks be part of a CUDA graph?  With one rank there are none.
    piece = None  # how many numbers are added at a time: any
    timeout, words, step = 600.0, None, 0  # of watchdog.py: seconds, a folder, the last step
    share, shows_bar = None, True  # of the cores, where it is known; is there one bar, of this run?

    def __init__(self):
        try:
            with warnings.catch_warnings(action="ignore"):  # launcher.py says it in our words
                from mpi4py import MPI
        except (ImportError, RuntimeError):  # mpi4py is there, but no libmpi
            MPI = None
        self.MPI, self.rank, self.size, self.host_rank, self.hosts = MPI, 0, 1, 0, 1
        self.mpi, self.last_alive = "no MPI library", time.monotonic()
        if MPI:
            version = MPI.Get_library_version().split("\n")[0].split(",")[0]
            self.mpi = " ".join(version.replace("Version:", "").split())
            self.join(MPI.COMM_WORLD)
        self.local_rank = self.host_rank  # among all processes of its host, of whatever run

    def join(self, comm):
        """Be the ranks of this communicator."""
        self.comm, self.rank, self.size = comm, comm.rank, comm.size
        if self.size > 1:
            self.host = comm.Split_type(self.MPI.COMM_TYPE_SHARED)
            self.host_rank = self.host.rank
            self.hosts = self.gather(self.host_rank).count(0)

    def say(self, line, before=""):
        """Rank 0 alone talks, a line a call."""
        if self.rank == 0:
            print_line(line, before)

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
        """Like add, but returns a request to wait for; with overlap, it is added meanwhile."""
        if overlap:
            return self.comm.Iallreduce(self.MPI.IN_PLACE, array)
        self.add(array)
        return self.MPI.REQUEST_NULL

    def start_exchange(self, pieces, cuts, received, counts):
        """Send pieces[cuts[q]:cuts[q+1]] to rank q, and receive counts[q] numbers from it."""
        sizes, ends = np.diff(cuts), np.cumsum(counts)
        return self.comm.Ialltoallv(
            [pieces, (sizes, cuts[:-1])], [received, (counts, ends - counts)]
        )

    def start_collect(self, vector, cuts):
        """Fill vector[cuts[q]:cuts[q+1]] with that of rank q, on every rank."""
        return self.comm.Iallgatherv(self.MPI.IN_PLACE, [vector, (np.diff(cuts), cuts[:-1])])

    def raise_errors(self):
        """Nothing: MPI raises its errors by itself."""

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

    def alive(self, step=None):
        """This rank does not stand still; so many steps were made."""
        self.last_alive, self.step = time.monotonic(), self.step if step is None else step
