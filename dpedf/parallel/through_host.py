"""Sums over ranks through the memory of the host, by MPI."""


class HostRequest:
    """Work on the host: Wait() does it, after an event."""

    def __init__(self, event, finish):
        self.event, self.finish = event, finish

    def Wait(self):  # noqa: N802, the name that a request of MPI has
        self.event.synchronize()
        self.finish()


class ThroughHost:
    """The link between ranks that share a GPU or lack NCCL: pinned memory of the host, and MPI.

    While MPI adds one piece, the next one travels to the host, and the previous one back.
    """

    recordable, piece = False, 1 << 18

    def __init__(self, ranks, gpu):
        self.ranks, self.gpu, self.rank, self.size = ranks, gpu, ranks.rank, ranks.size
        self.down, self.up = gpu.new_stream(), gpu.new_stream()
        self.busy = []  # (event, memory that the GPU reads until this event)

    def start_add(self, array, overlap):
        here = self.memory(array)
        copied = self.fetch(array, here)

        def finish():
            self.ranks.add(here)
            self.bring(here, array)

        return HostRequest(copied, finish)

    def start_exchange(self, pieces, cuts, received, counts):
        pieces, cuts = pieces[cuts[0] : cuts[-1]], [cut - cuts[0] for cut in cuts]
        here, there = self.memory(pieces), self.memory(received)
        copied = self.fetch(pieces, here)

        def finish():
            self.ranks.start_exchange(here, cuts, there, counts).Wait()
            self.bring(there, received)

        return HostRequest(copied, finish)

    def start_collect(self, vector, cuts):
        vector, cuts = vector[cuts[0] : cuts[-1]], [cut - cuts[0] for cut in cuts]
        here, mine = self.memory(vector), slice(*cuts[self.rank : self.rank + 2])
        copied = self.fetch(vector[mine], here[mine])

        def finish():
            self.ranks.start_collect(here, cuts).Wait()
            self.bring(here, vector)

        return HostRequest(copied, finish)

    def memory(self, array):
        """Memory of the host for an array like this one."""
        return self.gpu.pinned(array.nbytes).view(array.dtype).reshape(array.shape)

    def fetch(self, array, here):
        """Copy an array to the host, after everything launched; return the event of its arrival."""
        self.down.wait_event(self.gpu.mark(self.gpu.stream))
        array.get(stream=self.down, out=here, blocking=False)
        return self.gpu.mark(self.down)

    def bring(self, here, array):
        """Copy an array to the GPU, before everything that is launched from now on."""
        array.set(here, stream=self.up)
        arrived = self.gpu.mark(self.up)
        self.gpu.stream.wait_event(arrived)
        self.busy = [(event, memory) for event, memory in self.busy if not event.done]
        self.busy.append((arrived, here))

    def raise_errors(self):
        """Nothing: MPI raises its errors by itself."""
