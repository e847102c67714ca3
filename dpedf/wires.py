"""How arrays of GPUs reach other ranks: by NCCL, or through the host and MPI.

A wire has what Ranks offers for arrays of the host: rank and size; start_add, start_exchange and
start_collect, whose requests are waited for, though here it is the GPU's stream that waits;
recordable, may they be part of a CUDA graph?; piece, how many numbers it takes at a time, if not
any; and check, after each step.  (overlap is for MPI: here nothing waits before its request does.)
"""

import os
from functools import cached_property

import numpy as np

from dpedf.errors import counted


def between(ranks, device):
    """The wire between the devices of all ranks; rank 0 says what there is to say about it."""
    if device.unit == "cpu" or ranks.size == 1:
        return ranks
    places = ranks.gather(device.place)
    shared = [place for place in dict.fromkeys(places) if places.count(place) > 1]
    through_host = shared and os.environ.get("NCCL_MULTI_RANK_GPU_ENABLE") != "1"  # NCCL 2.30
    for place in shared:
        how = ", whose sums pass through the host" if through_host else ""
        ranks.say(f"GPU {place}: shared by {counted(places.count(place), 'rank')}{how}")
    if through_host:
        return Staged(ranks, device)
    nccl = device.nccl()
    if None in ranks.gather(nccl and nccl.get_version()):
        ranks.say("sums over ranks pass through the host, for CuPy finds no NCCL on every rank")
        return Staged(ranks, device)
    return Nccl(ranks, device, nccl)


class Join:
    """A request on a stream of its own: the stream of the GPU waits for it."""

    def __init__(self, gpu, stream):
        self.gpu, self.event = gpu, gpu.mark(stream)

    def Wait(self):  # noqa: N802, the name that a request of MPI has
        self.gpu.stream.wait_event(self.event)


class Nccl:
    """Sums over ranks that each have a GPU of their own: by NCCL, which a CUDA graph can hold."""

    recordable, piece = True, None

    def __init__(self, ranks, gpu, nccl):
        self.ranks, self.gpu, self.rank, self.size = ranks, gpu, ranks.rank, ranks.size
        self.nccl, self.stream = nccl, gpu.new_stream()
        types = {"float32": nccl.NCCL_FLOAT32, "float64": nccl.NCCL_FLOAT64}
        self.types = {np.dtype(name): number for name, number in types.items()}

    @cached_property
    def comm(self):
        unique = self.nccl.get_unique_id() if self.rank == 0 else None
        return self.nccl.NcclCommunicator(self.size, self.ranks.gather(unique)[0], self.rank)

    def begin(self):
        """What follows on our stream comes after all that was launched on the GPU's."""
        self.stream.wait_event(self.gpu.mark(self.gpu.stream))

    def start_add(self, array, overlap):
        self.begin()
        if array.size:
            kind, at = self.types[array.dtype], array.data.ptr
            self.comm.allReduce(at, at, array.size, kind, self.nccl.NCCL_SUM, self.stream.ptr)
        return Join(self.gpu, self.stream)

    def start_exchange(self, pieces, cuts, received, counts):
        ends = np.cumsum(counts)
        sends = [pieces[low:high] for low, high in zip(cuts, cuts[1:], strict=False)]
        receives = [received[e - n : e] for e, n in zip(ends.tolist(), counts, strict=True)]
        return self.start_messages(sends, receives)

    def start_collect(self, vector, cuts):
        receives = [vector[low:high] for low, high in zip(cuts, cuts[1:], strict=False)]
        sends = [receives[self.rank] if q != self.rank else vector[:0] for q in range(self.size)]
        receives[self.rank] = vector[:0]
        return self.start_messages(sends, receives)

    def start_messages(self, sends, receives):
        """Send sends[q] to each rank q, and receive receives[q] from it."""
        self.begin()
        here, there = receives[self.rank], sends[self.rank]
        if here.size:
            here.data.copy_from_device_async(there.data, there.nbytes, self.stream)
        comm = self.comm  # made before the group, in which it could not be
        self.nccl.groupStart()
        for q in range(self.size):
            for message, call in (sends[q], comm.send), (receives[q], comm.recv):
                if q != self.rank and message.size:
                    kind = self.types[message.dtype]
                    call(message.data.ptr, message.size, kind, q, self.stream.ptr)
        self.nccl.groupEnd()
        return Join(self.gpu, self.stream)

    def check(self):
        """NcclError where a sum over ranks has failed, which does not say so by itself."""
        self.comm.check_async_error()


class Staged:
    """Sums over ranks through pinned memory and MPI, where ranks share a GPU or lack NCCL.

    While MPI adds one piece, the next is on its way to the host, and the one before it back.
    """

    recordable, piece = False, 1 << 18

    def __init__(self, ranks, gpu):
        self.ranks, self.gpu, self.rank, self.size = ranks, gpu, ranks.rank, ranks.size
        self.down, self.up = gpu.new_stream(), gpu.new_stream()
        self.busy = []  # (event, memory that the GPU reads until then)

    def start_add(self, array, overlap):
        here = self.memory(array)
        copied = self.fetch(array, here)

        def finish():
            self.ranks.add(here)
            self.bring(here, array)

        return Later(copied, finish)

    def start_exchange(self, pieces, cuts, received, counts):
        pieces, cuts = pieces[cuts[0] : cuts[-1]], [cut - cuts[0] for cut in cuts]
        here, there = self.memory(pieces), self.memory(received)
        copied = self.fetch(pieces, here)

        def finish():
            self.ranks.start_exchange(here, cuts, there, counts).Wait()
            self.bring(there, received)

        return Later(copied, finish)

    def start_collect(self, vector, cuts):
        vector, cuts = vector[cuts[0] : cuts[-1]], [cut - cuts[0] for cut in cuts]
        here, mine = self.memory(vector), slice(*cuts[self.rank : self.rank + 2])
        copied = self.fetch(vector[mine], here[mine])

        def finish():
            self.ranks.start_collect(here, cuts).Wait()
            self.bring(here, vector)

        return Later(copied, finish)

    def memory(self, array):
        """Memory of the host for an array like this one."""
        return self.gpu.pinned(array.nbytes).view(array.dtype).reshape(array.shape)

    def fetch(self, array, here):
        """Copy an array to the host, after what was launched; the event when it is there."""
        self.down.wait_event(self.gpu.mark(self.gpu.stream))
        array.get(stream=self.down, out=here, blocking=False)
        return self.gpu.mark(self.down)

    def bring(self, here, array):
        """Copy an array to the GPU, before what is launched from now on."""
        array.set(here, stream=self.up)
        there = self.gpu.mark(self.up)
        self.gpu.stream.wait_event(there)
        self.busy = [(event, memory) for event, memory in self.busy if not event.done]
        self.busy.append((there, here))

    def check(self):
        """MPI says by itself what fails."""


class Later:
    """A request that is finished on the host, once an event has come."""

    def __init__(self, event, finish):
        self.event, self.finish = event, finish

    def Wait(self):  # noqa: N802, the name that a request of MPI has
        self.event.synchronize()
        self.finish()
