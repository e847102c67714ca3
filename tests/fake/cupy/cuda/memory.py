"""Memory pools that hand a freed block to the next one who asks, as CuPy's do.

So what a graph wrote, and nobody kept, is overwritten by what comes next.  Launched work holds
memory by its address alone, as a GPU does.
"""

import os
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
from cupy.cuda import stream
from cupy.cuda.runtime import CUDARuntimeError

local = threading.local()
everything = []  # the memory of the GPU, which lives as long as the process


class Block:
    """Memory from a pool, to which it returns when the last array in it is gone."""

    def __init__(self, pool, key, address, nbytes):
        self.pool, self.key, self.address = pool, key, address
        self.__array_interface__ = interface(address, (nbytes,), np.dtype(np.uint8))

    def __del__(self):
        self.pool.free.setdefault(self.key, []).append(self.address)


class Memory:
    """Memory of the GPU, which has FAKE_CUPY_BYTES of it for pools that ask for it here."""

    left = int(os.environ.get("FAKE_CUPY_BYTES", 1 << 40))

    def __init__(self, size):
        if size > Memory.left:
            raise CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")
        Memory.left -= size


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


class MemoryPointer:
    def __init__(self, mem, offset=0):
        if isinstance(mem, np.ndarray):
            self.ptr = mem.ctypes.data + offset

    def copy_from_device_async(self, there, nbytes, on):
        to, of = (at(pointer.ptr, (nbytes,), np.uint8) for pointer in (self, there))
        on.launch(lambda: np.copyto(to, of), "copy")


class MemoryPool:
    def __init__(self, allocator=None):
        self.free, self.allocator = {}, allocator

    def set_limit(self, size):
        assert size == 0

    def free_all_blocks(self):
        """Give back what no array holds: what still writes there is not asked."""
        for (_, size), addresses in self.free.items():
            Memory.left += size * len(addresses)
        self.free.clear()

    def allocate(self, size):
        allocate = self.allocator or Memory
        try:
            allocate(size)
        except CUDARuntimeError:
            self.free_all_blocks()
            try:
                allocate(size)
            except CUDARuntimeError:
                raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes") from None

    def malloc(self, nbytes):
        size = -(-max(1, nbytes) // 512) * 512
        key = stream.current().ptr, size
        if not self.free.get(key):
            self.allocate(size)
            whole = np.full(size + 512, 0xFF, np.uint8)  # nan, before it is written
            everything.append(whole)
            self.free.setdefault(key, []).append(whole.ctypes.data + -whole.ctypes.data % 512)
        return Block(self, key, self.free[key].pop(), nbytes)


default = MemoryPool()


def interface(address, shape, dtype, strides=None):
    return dict(version=3, data=(address, False), shape=shape, typestr=dtype.str, strides=strides)


def at(address, shape, dtype, strides=None):
    """The memory at an address as an array, which keeps nothing alive."""
    return np.asarray(
        SimpleNamespace(__array_interface__=interface(address, shape, np.dtype(dtype), strides))
    )


def array_like(model):
    """An array of the shape, type and order of this one, in memory of the current pool."""
    malloc = getattr(local, "malloc", None)
    if stream.current().capture and malloc is None:
        raise RuntimeError("memory of the default pool is allocated during capture")
    assert model.dtype.isnative
    strides = np.empty_like(model).strides
    memory = np.asarray((malloc or default.malloc)(model.nbytes))
    return np.ndarray(model.shape, model.dtype, memory, strides=strides)


@contextmanager
def using_allocator(malloc):
    before, local.malloc = getattr(local, "malloc", None), malloc
    try:
        yield
    finally:
        local.malloc = before
