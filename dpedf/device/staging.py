"""Where rows wait on their way to a device.

The loader's thread makes arrays with empty, fills them and sends them.  The main thread receives
them on the device, computes with them, and releases the buffer.  Two buffers take turns.
"""

from math import prod

import numpy as np


class HostBuffer:
    """Memory of the host, where the CPU computes: nothing has to move."""

    empty = staticmethod(np.empty)

    def __init__(self):
        self.arrays = []

    def send(self, arrays):
        """Start copying these arrays, which empty made, to the device."""
        self.arrays = arrays

    def receive(self):
        """The arrays, on the device."""
        return self.arrays

    def release(self):
        """No work that is launched from now on reads the arrays."""

    def close(self):
        """The memory may be used for something else."""


class PinnedBuffer:
    """Pinned memory of the host, and memory of a GPU to which gpu.side copies it meanwhile.

    The buffer is filled again only after its last copy has ended.  The next copy starts only
    after everything has been computed that reads the previous arrays.
    """

    def __init__(self, gpu):
        self.gpu, self.arrays, self.memory, self.used = gpu, [], [], 0
        self.copied, self.computed = gpu.new_event(), gpu.new_event()

    def empty(self, shape, dtype):
        if not self.used:
            self.copied.synchronize()
        nbytes = prod(shape) * np.dtype(dtype).itemsize
        if self.used == len(self.memory) or len(self.memory[self.used][0]) < nbytes:
            with self.gpu.side:  # the only stream that uses the old memory, once send has waited
                pair = self.gpu.pinned(nbytes), self.gpu.empty(nbytes, np.uint8)
            self.memory[self.used : self.used + 1] = [pair]
        self.used += 1
        return self.memory[self.used - 1][0][:nbytes].view(dtype).reshape(shape)

    def send(self, arrays):
        self.arrays, self.used = [], 0
        with self.gpu.side as side:
            side.wait_event(self.computed)
            for array, (_, on_gpu) in zip(arrays, self.memory, strict=False):
                sent = on_gpu[: array.nbytes].view(array.dtype).reshape(array.shape)
                sent.set(array, stream=side)
                self.arrays.append(sent)
            self.copied.record(side)

    def receive(self):
        self.gpu.stream.wait_event(self.copied)
        return self.arrays

    def release(self):
        self.computed.record(self.gpu.stream)

    def close(self):
        self.release()
        self.gpu.side.wait_event(self.computed)  # before the next copy into the same memory
        self.copied.synchronize()
