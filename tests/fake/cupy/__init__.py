"""A CuPy for machines without a GPU: what dpedf uses of it, on the host, as strict and as late.

Arrays are strict device arrays (tests/strict.py), in memory of pools that reuse what is freed;
what is computed with them is launched on streams, captured and replayed (cuda/stream.py).
Kernels are compiled for the CPU (tests/emulator).
"""

import operator
import os
import sys
import tempfile
from types import SimpleNamespace

import numpy as np

sys.path.append(os.path.join(os.path.dirname(__file__), "..", ".."))
import cupyx
from cupy import cuda
from cupy.cuda import memory, runtime, stream
from emulator import Emulated, Emulator
from strict import DeviceArray

__version__ = "14.0.0 of tests/fake"


class ndarray(DeviceArray):  # noqa: N801
    """An array in memory of a pool.  What is computed of it is launched, not done."""

    @property
    def data(self):
        return memory.MemoryPointer(self._host)

    @classmethod
    def computed(cls, function, inputs, keywords, written):
        function, inputs = as_cupy_has_it(function, inputs)
        if function is np.matmul and stream.current().capture:
            raise NotImplementedError("calling cuBLAS API during stream capture is unsupported")

        there, named = tuple(map(raw, inputs)), {k: raw(v) for k, v in keywords.items()}

        def run():
            with np.errstate(all="ignore"):
                return function(*there, **named)

        if written is not None:
            stream.current().launch(run, function.__name__)
            return None
        with stream.lock, np.errstate(all="ignore"):
            result = function(*inputs, **keywords)  # of what is there by now: its shape and type
        if not isinstance(result, (np.ndarray, np.generic)):
            return cls.on_device(result)
        if any(isinstance(i, np.ndarray) and np.may_share_memory(i, result) for i in inputs):
            return cls(result)  # a view
        result = np.asarray(result)
        array = memory.array_like(result if function.__name__ in KEEP_ORDER else in_c_order(result))
        if array.size and function not in (np.empty, np.empty_like):  # else there is nothing to do
            here = raw(array)
            stream.current().launch(lambda: np.copyto(here, run()), function.__name__)
        return cls(array)

    def __int__(self):
        return int(self.get())

    def __float__(self):
        return float(self.get())

    def __bool__(self):
        return bool(self.get())

    def get(self, stream=None, order="C", out=None, blocking=True):
        cuda.stream.refuse_in_capture("get")
        on = stream or cuda.stream.current()
        out = np.empty(self.shape, self.dtype) if out is None else out
        if not (out.shape == self.shape and out.dtype == self.dtype and out.flags.c_contiguous):
            raise ValueError("out of another shape, type or order")
        here, there = raw(self._host), raw(out)
        on.launch(lambda: np.copyto(there, here), "copy")
        if blocking:
            on.synchronize()
        return out

    def set(self, array, stream=None):
        cuda.stream.refuse_in_capture("set")
        if type(array) is not np.ndarray or array.dtype != self.dtype:
            raise TypeError(f"set to {type(array).__name__} of {getattr(array, 'dtype', None)}")
        if array.shape != self.shape:
            raise ValueError(f"set {self.shape} to {array.shape}")
        if not (self._host.flags.c_contiguous or self._host.flags.f_contiguous):
            raise RuntimeError("set of an array that is not contiguous")
        # What is not pinned CUDA has read when it returns.
        array = raw(array) if pinned(array) else array.copy()
        here = raw(self._host)
        (stream or cuda.stream.current()).launch(lambda: np.copyto(here, array), "copy")


# What gives the memory order of its argument; everything else, ufuncs too, gives C order.
KEEP_ORDER = {"astype", "empty_like", "zeros_like"}


def in_c_order(array):
    return array if array.flags.c_contiguous else np.empty(array.shape, array.dtype)


def raw(thing):
    """An argument of launched work, which keeps no memory alive."""
    if isinstance(thing, tuple):
        return tuple(map(raw, thing))
    if isinstance(thing, np.ndarray):
        return memory.at(thing.ctypes.data, thing.shape, thing.dtype, thing.strides)
    return thing


def as_cupy_has_it(function, inputs):
    """take(indices) wraps those out of range, and one number of an array is a view of it."""
    if function.__name__ == "take":
        function = take
    if function in (operator.getitem, operator.setitem):
        array, index, *value = inputs
        if function is operator.getitem and not isinstance(index, np.ndarray):
            index = index if isinstance(index, tuple) else (index,)
            inputs = array, index if ... in index else (*index, ...)
    return function, inputs


def take(array, indices, axis=None):
    """Not by mode="wrap", whose steps have no end where captured work did not compute indices."""
    size = array.size if axis is None else array.shape[axis]
    return array.take(indices % np.intp(max(1, size)), axis)


def pinned(array):
    low, high = array.ctypes.data, array.ctypes.data + array.nbytes
    return any(first <= low and high <= end for first, end in cupyx.ranges)


def on_the_gpu(model):
    return ndarray(memory.array_like(model))


def empty(shape, dtype=float):
    return on_the_gpu(np.empty(shape, dtype))


def zeros(shape, dtype=float):
    array = empty(shape, dtype)
    array.fill(0)
    return array


def asarray(array):
    if isinstance(array, ndarray):
        return array
    array = np.asarray(array)
    here = on_the_gpu(array)
    cuda.stream.refuse_in_capture("set")
    here.set(np.array(array, order="K").reshape(array.shape))
    return here


def copyto(there, here):
    there, here = raw(there._host), raw(here._host)
    stream.current().launch(lambda: np.copyto(there, here), "copy")


def get_default_memory_pool():
    return memory.default


emulator = Emulator(os.environ.get("FAKE_CUPY_KERNELS") or tempfile.mkdtemp())


class RawModule:
    def __init__(self, *, code, options=()):
        assert isinstance(options, tuple)
        self.module = emulator.compile(code=code, options=options)

    def get_function(self, name):
        function = self.module.get_function(name)

        def launch(grid, block, arguments):
            arguments = [
                raw(a._host).view(Emulated) if isinstance(a, ndarray) else a for a in arguments
            ]
            stream.current().launch(lambda: function(grid, block, arguments), name)

        return launch


_core = SimpleNamespace(
    _routines_linalg=SimpleNamespace(
        COMPUTE_TYPE_DEFAULT=1, COMPUTE_TYPE_TF32=7, set_compute_type=lambda dtype, kind: None
    )
)
