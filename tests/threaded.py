"""Ranks that are threads of one process, so that their work together needs no mpirun."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dpedf.parallel.ranks import Ranks

me = threading.local()  # me.rank: of the thread that asks


class Done:
    """A request that waits for nothing."""

    def Wait(self):
        pass


class Rank(Ranks):
    """One of them.  All that they do together is made of gather; lived: how often it was alive."""

    def __init__(self, rank, size, given, barrier):
        self.rank = self.host_rank = self.local_rank = rank
        self.size, self.hosts = size, 1
        self.given, self.barrier, self.lived, self.mpi = given, barrier, 0, "threads"

    def gather(self, thing):
        self.given[self.rank] = thing
        self.barrier.wait()
        found = list(self.given)
        self.barrier.wait()
        return found

    def wait(self):
        self.gather(None)

    def broadcast(self, array):
        array[...] = self.gather(array.copy())[0]

    def largest(self, *numbers):
        return np.max(self.gather(numbers), axis=0).astype(np.float64).tolist()

    def add(self, array):
        array[...] = sum(self.gather(array.copy()))

    def start_add(self, array, overlap):
        self.add(array)
        return Done()

    def start_exchange(self, pieces, cuts, received, counts):
        sent = self.gather((pieces.copy(), cuts))
        mine = [theirs[at[self.rank] : at[self.rank + 1]] for theirs, at in sent]
        assert [len(piece) for piece in mine] == list(counts)
        received[...] = np.concatenate(mine)
        return Done()

    def start_collect(self, vector, cuts):
        part = slice(*cuts[self.rank : self.rank + 2])
        vector[cuts[0] : cuts[-1]] = np.concatenate(self.gather(vector[part].copy()))
        return Done()

    def alive(self, step=None):
        self.lived += 1


def on_ranks(size, function):
    """[function(rank) for each rank], all at once; raises what the first that fails does."""
    given, barrier = [None] * size, threading.Barrier(size, timeout=60)

    def call(number):
        me.rank = number
        try:
            return function(Rank(number, size, given, barrier))
        except BaseException:
            barrier.abort()  # so that no other waits for it
            raise

    with ThreadPoolExecutor(size) as threads:
        calls = [threads.submit(call, number) for number in range(size)]
    errors = [call.exception() for call in calls if call.exception()]
    for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return [call.result() for call in calls]
