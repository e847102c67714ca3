"""NCCL over MPI: it checks that all ranks make the same calls, with the same counts."""

import atexit
import os
import sys

import numpy as np
from cupy.cuda import stream
from cupy.cuda.memory import at
from mpi4py import MPI

NCCL_SUM, NCCL_FLOAT32, NCCL_FLOAT64 = 0, 7, 8
TYPES = {7: np.float32, 8: np.float64}
group = None


def __getattr__(name):
    if name == "available":
        return os.environ.get("FAKE_CUPY_NCCL", "1") == "1"
    raise AttributeError(name)


class NcclError(RuntimeError):
    """As CuPy's."""


def get_version():
    return 23203


def get_unique_id():
    return str(MPI.COMM_WORLD.rank).encode().ljust(128)  # of the first of the ranks


def groupStart():  # noqa: N802
    global group
    group = []


def groupEnd():  # noqa: N802
    global group
    messages, group = group, None
    if messages:
        comm = messages[0][0]
        messages[0][-1].launch(lambda: comm.exchange([m[1:4] for m in messages]), "messages")


def leave():
    """When a process ends NCCL does too, in no order that could be relied on."""
    if stream.graphs:
        sys.stderr.write("ncclCommDestroy waits for a graph that is still there, for ever\n")
        sys.stderr.flush()
        os._exit(1)


class NcclCommunicator:
    def __init__(self, count, unique, rank):
        atexit.register(leave)
        assert group is None  # inside of one it would not be there before its end
        world, first = MPI.COMM_WORLD, int(unique)
        assert len(unique) == 128 and first + rank == world.rank
        ranks = world.group.Incl(range(first, first + count))
        self.comm, self.calls = world.Create_group(ranks), 0

    def same(self, *call):
        """The same call on all ranks, and the same number of it?"""
        self.calls += 1
        calls = self.comm.allgather((self.calls, *call))
        if len(set(calls)) > 1:
            raise NcclError(f"ranks make different calls: {calls}")

    def allReduce(self, send, receive, count, kind, operation, pointer):  # noqa: N802
        assert operation == NCCL_SUM and send == receive
        array = at(send, (count,), TYPES[kind])

        def run():
            self.same("allReduce", count, kind)
            self.comm.Allreduce(MPI.IN_PLACE, array)

        stream.streams[pointer].launch(run, "allReduce")

    def send(self, address, count, kind, peer, pointer):
        assert group is not None and peer != self.comm.rank
        group.append(
            (self, "send", peer, at(address, (count,), TYPES[kind]), stream.streams[pointer])
        )

    def recv(self, address, count, kind, peer, pointer):
        assert group is not None and peer != self.comm.rank
        group.append(
            (self, "recv", peer, at(address, (count,), TYPES[kind]), stream.streams[pointer])
        )

    def exchange(self, messages):
        sent, expected = (
            {peer: a for how, peer, a in messages if how == h} for h in ("send", "recv")
        )
        self.same("group")
        counts = self.comm.alltoall([len(sent.get(q, ())) for q in range(self.comm.size)])
        wanted = [len(expected.get(q, ())) for q in range(self.comm.size)]
        if counts != wanted:
            raise NcclError(f"rank {self.comm.rank} receives {wanted}, others send {counts}")
        requests = [self.comm.Irecv(array, peer) for peer, array in expected.items()]
        requests += [self.comm.Isend(array, peer) for peer, array in sent.items()]
        MPI.Request.Waitall(requests)

    def check_async_error(self):
        if os.environ.get("FAKE_CUPY_NCCL_FAILS"):
            raise NcclError("NCCL_ERROR_SYSTEM_ERROR")

    def abort(self):
        self.comm = None
