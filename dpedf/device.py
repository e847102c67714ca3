"""Where a run computes: on the CPU, or on a GPU.  The only door to cupy.

Both offer the same.  unit: "cpu" or "gpu"; kind: which one; place: this very one, on which host;
products: by what it multiplies; note: what the user is to be told of it.
put(array) brings an array of the host there, slot() is a place for rows that stream there,
run(key, function, *arrays) calls a function, which may be replayed, launch_eagerly(why) keeps it
from that, step(number) is what nodes find in context.step, wait() waits until all is computed,
enter_thread() comes first in a thread that uses it, and close() at the end of a run.
"""

import ctypes
import os
import socket
import warnings

import numpy as np

from dpedf import kernels
from dpedf.errors import UserError, line
from dpedf.graphs import Graphs
from dpedf.kernels import cublaslt
from dpedf.slots import PinnedSlot, Slot

# Schedulers and users grant GPUs to a process through these.
NONE = None, "", "-1", "NoDevFiles"
GRANTS = "CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"


def host(array):
    """An array, of whatever device, as one of NumPy."""
    return array.get() if hasattr(array, "get") else array


def overwrite(array, values):
    """array[...] = values, an array of the host, on whatever device."""
    if hasattr(array, "set"):
        array.set(values)
    else:
        array[...] = values


class UnusableError(Exception):
    """Why there is no GPU to compute on."""


def keep_freed_memory():
    """Have glibc's malloc keep what is freed, rather than give it back to the kernel.

    Arrays of megabytes come and go in every step, and pages that are new to a process cost more
    than to compute with them.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD, the largest there may be
        mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


class CPU:
    """The host itself: its arrays are NumPy's."""

    unit = kind = name = place = "cpu"
    products, slot = "NumPy", Slot

    def __init__(self, note=None):
        self.note = note  # why there is no GPU, where there could be
        keep_freed_memory()

    def enter_thread(self):
        """To be called first in a thread that uses the device."""

    def put(self, array):
        return array

    def step(self, number):
        return number

    def run(self, key, function, *arrays):
        return function(*arrays)

    def launch_eagerly(self, why):
        """It replays nothing anyway."""

    def wait(self):
        """Until all is computed."""

    def close(self):
        """At the end of a run."""


class GPU:
    """A GPU: its arrays are CuPy's, and what is computed with them is launched on one stream.

    number: which one of those that this process sees.  capture: may what run is given be replayed
    as a CUDA graph?  say(line): one line to the user.  install: the command that brings all that
    it takes.  UnusableError: it does not compute.  UserError: it does not in this precision.
    """

    unit = "gpu"

    def __init__(self, cupy, cupyx, number, precision, capture, say, install):
        self.cupy, self.cupyx, self.device = cupy, cupyx, cupy.cuda.Device(number)
        self.enter_thread()
        self.kind = cupy.cuda.runtime.getDeviceProperties(number)["name"].decode()
        self.place = f"{socket.gethostname()} {self.device.pci_bus_id}"
        self.name = f"{self.kind}, number {number}"
        self.stream, self.side = self.new_stream(), self.new_stream()  # to compute, and to copy
        self.stream.__enter__()  # for good: what use() chooses is forgotten after any other `with`
        self.graphs = Graphs(cupy, self.stream, self.name, say)
        self.run, self.close = self.graphs.run, self.graphs.close
        self.launch_eagerly = self.graphs.launch_eagerly
        if not capture:
            self.launch_eagerly("run.capture = 'off'")
        self.counter = cupy.zeros((), np.int64)
        kernels.register_gpu(cupy.ndarray, cupy.RawModule, self.put)
        self.multiply_by_cublaslt(precision, install)
        self.check()

    @property
    def note(self):
        return self.graphs.note

    def multiply_by_cublaslt(self, precision, install):
        """Or, without nvmath-python, by CuPy's cuBLAS, which cannot be recorded."""
        array, linalg = self.cupy.ndarray, self.cupy._core._routines_linalg
        try:
            from nvmath.bindings import cublasLt

            cublaslt.register(array, precision, cublasLt, self.stream.ptr, self.counter)
            self.products = f"cuBLASLt {cublasLt.get_version()}"
        except (ImportError, RuntimeError) as error:
            missing = f"{line(error)}, expected nvmath-python: {install}"
            if precision == "bfloat16":
                raise UserError(f"train.precision = 'bfloat16': {missing}") from None
            if precision == "tf32":
                linalg.set_compute_type(np.float32, linalg.COMPUTE_TYPE_TF32)
            self.launch_eagerly(missing)
            self.products = "CuPy"

    def check(self):
        """Allocate, launch, multiply, synchronize: does it compute?"""
        x = self.put(np.arange(6, dtype=np.float32).reshape(2, 3))
        found, expected = host(cublaslt.product(np.square(x), x.T)), [[9, 24], [66, 216]]
        if found.tolist() != expected:
            raise UnusableError(f"it computes {found.tolist()}, expected {expected}")

    def enter_thread(self):
        """To be called first in a thread that uses the GPU.

        Not `with device`: to go back to another one would open a context there.
        """
        self.device.use()

    def put(self, array):
        return self.cupy.asarray(array)

    def slot(self):
        return PinnedSlot(self)

    def step(self, number):
        self.counter.fill(number)
        return self.counter  # where a graph that is replayed reads it

    def wait(self):
        self.stream.synchronize()

    # what streams and sums over ranks are made of

    def new_stream(self):
        return self.cupy.cuda.Stream(non_blocking=True)

    def new_event(self):
        return self.cupy.cuda.Event(disable_timing=True)

    def mark(self, stream):
        """The event when all that was launched on a stream is done."""
        event = self.new_event()
        event.record(stream)
        return event

    def pinned(self, nbytes):
        """Memory of the host that a stream can copy while others compute."""
        return self.cupyx.empty_pinned((max(1, nbytes),), np.uint8)[:nbytes]

    def empty(self, shape, dtype):
        return self.cupy.empty(shape, dtype)

    def nccl(self):
        """The module nccl of CuPy; None where it finds no NCCL."""
        with warnings.catch_warnings(action="ignore"):  # wires.py says it in our words
            from cupy.cuda import nccl
        return nccl if nccl.available else None


def chosen(settings, ranks):
    """The device of this rank.  UserError: it cannot be as the settings say."""
    run, precision = settings.run, settings.train.precision
    granted = [f"{n} = {os.environ[n]}" for n in GRANTS if os.environ.get(n) not in NONE]
    note = None
    if run.device != "cpu":
        try:
            return acquire(ranks.host_rank, precision, run.capture == "auto", ranks.say)
        except UnusableError as why:
            hint = "a GPU that can be used, or run.device=cpu"
            if run.device == "gpu":
                raise UserError(f"run.device = 'gpu', expected {hint}: {why}") from None
            if granted:
                raise UserError(f"{granted[0]}, expected {hint}: {why}") from None
            note = None if driver_version() is None else f"no GPU is used: {why}"
    if precision not in ("float32", "float64"):
        found = f"train.precision = {precision!r}, expected float32 or float64 on the CPU"
        raise UserError(f"{found}; {note}" if note else found)
    if settings.data.cache == "device":
        found = "data.cache = 'device', expected 'none' or 'memory' on the CPU"
        raise UserError(f"{found}; {note}" if note else found)
    return CPU(note)


def acquire(host_rank, precision, capture, say):
    """The GPU of a rank of this host: they take turns.  UnusableError: there is none."""
    version = driver_version()
    install = f'pip install -e ".[cuda{version or 13}]"'
    if version is None:
        raise UnusableError(f"no NVIDIA driver (libcuda.so.1); with one, {install}")
    try:
        import cupy
        import cupyx

        count = cupy.cuda.runtime.getDeviceCount()
        return GPU(cupy, cupyx, host_rank % count, precision, capture, say, install)
    except (UnusableError, UserError):
        raise
    except Exception as error:  # of a driver, a compiler, a library: all say the same, no GPU
        found = f"{type(error).__name__}: {line(error)}"
        raise UnusableError(f"{found}; what it takes: {install}") from None


def driver_version():
    """The CUDA version of the NVIDIA driver, such as 12; None where there is no driver."""
    try:
        driver, version = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
    except OSError:
        return None
    driver.cuDriverGetVersion(ctypes.byref(version))
    return version.value // 1000


def blas_threads(settings, ranks):
    """How many threads BLAS gets in this rank.

    run.threads; or else one where there are slices, since two add in another order; or else
    this rank's part of the cores, where ranks that may run on the same cores share them.
    """
    cores = sorted(os.sched_getaffinity(0))
    here = socket.gethostname(), cores
    part = max(1, len(cores) // ranks.gather(here).count(here))
    return settings.run.threads or (1 if settings.train.slices else part)
