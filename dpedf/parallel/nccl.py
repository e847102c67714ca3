"""Sums over ranks by NCCL, NVIDIA's library for them."""

from functools import cached_property

import numpy as np


class StreamRequest:
    """Work on another stream: Wait() makes the stream of the GPU wait for it."""

    def __init__(self, gpu, stream):
        self.gpu, self.event = gpu, gpu.mark(stream)

    def Wait(self):  # noqa: N802, the name that a request of MPI has
        self.gpu.stream.wait_event(self.event)


class Nccl:
    """The link between ranks that each have their own GPU: NCCL, which CUDA graphs can hold."""

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
        """Let our stream wait for everything that was launched on the GPU's."""
        self.stream.wait_event(self.gpu.mark(self.gpu.stream))

    def start_add(self, array, overlap):
        self.begin()
        if array.size:
            kind, at = self.types[array.dtype], array.data.ptr
            self.comm.allReduce(at, at, array.size, kind, self.nccl.NCCL_SUM, self.stream.ptr)
        return StreamRequest(self.gpu, self.stream)

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
        mine, copy = sends[self.rank], receives[self.rank]
        if copy.size:
            copy.data.copy_from_device_async(mine.data, mine.nbytes, self.stream)
        comm = self.comm  # it cannot be made inside the group
        self.nccl.groupStart()
        for q in range(self.size):
            for message, call in (sends[q], comm.send), (receives[q], comm.recv):
                if q != self.rank and message.size:
                    kind = self.types[message.dtype]
                    call(message.data.ptr, message.size, kind, q, self.stream.ptr)
        self.nccl.groupEnd()
        return StreamRequest(self.gpu, self.stream)

    def raise_errors(self):
        """NcclError: a sum over ranks has failed."""
        self.comm.check_async_error()
