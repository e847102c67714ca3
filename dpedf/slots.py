"""Slots: the places through which rows stream to a device, a block of minibatches in each.

The loader's thread makes arrays by empty, fills and sends them; the main thread receives them,
computes, and releases the slot.  Two slots take turns; close comes at the end.
"""

from math import prod

import numpy as np


class Slot:
    """A place in the host's memory, which is where the CPU computes."""

    empty = staticmethod(np.empty)

    def send(self, arrays):
        """Start these arrays, made by empty, on their way."""
        self.arrays = arrays

    def receive(self):
        """The arrays, on the device."""
        return self.arrays

    def release(self):
        """The arrays are not read any more by what is launched from now on."""

    def close(self):
        """Its memory may be used for something else."""


class PinnedSlot:
    """A place in pinned memory, and one on a GPU, to which gpu.side copies while others compute.

    A slot is filled again only when its last copy is over, and the copy starts only when what
    was computed with the last arrays is.
    """

    def __init__(self, gpu):
        self.gpu, self.buffers, self.used = gpu, [], 0
        self.copied, self.computed = gpu.new_event(), gpu.new_event()

    def empty(self, shape, dtype):
        if not self.used:
            self.copied.synchronize()
        nbytes = prod(shape) * np.dtype(dtype).itemsize
        if self.used == len(self.buffers) or len(self.buffers[self.used][0]) < nbytes:
            with self.gpu.side:  # which alone uses the old one's memory, after send has waited
                buffer = self.gpu.pinned(nbytes), self.gpu.empty(nbytes, np.uint8)
            self.buffers[self.used : self.used + 1] = [buffer]
        self.used += 1
        return self.buffers[self.used - 1][0][:nbytes].view(dtype).reshape(shape)

    def send(self, arrays):
        self.arrays, self.used = [], 0
        with self.gpu.side as side:
            side.wait_event(self.computed)
            for array, (_, there) in zip(arrays, self.buffers, strict=False):
                sent = there[: array.nbytes].view(array.dtype).reshape(array.shape)
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
        self.gpu.side.wait_event(self.computed)  # what copies to its memory next, comes after
        self.copied.synchronize()
