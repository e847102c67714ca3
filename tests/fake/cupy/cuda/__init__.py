from cupy.cuda import runtime
from cupy.cuda.memory import Memory, MemoryPointer, MemoryPool, using_allocator
from cupy.cuda.stream import (
    Event,
    Graph,
    Stream,
    local,
    current as get_current_stream,
    elapsed as get_elapsed_time,
)


class Device:
    """Each thread has a current one; at its start, number 0."""

    def __init__(self, number):
        if not 0 <= number < runtime.getDeviceCount():
            raise runtime.CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self.id, self.pci_bus_id = number, f"0000:0{number}:00.0"

    def use(self):
        local.device = self.id

    def __enter__(self):
        self.before = getattr(local, "device", 0)
        self.use()

    def __exit__(self, *error):
        if self.before != self.id:
            raise RuntimeError(f"this opens a context on GPU {self.before}")
