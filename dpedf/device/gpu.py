"""A GPU as a device: its arrays are CuPy's.  The only door to cupy."""

import ctypes
import socket
import warnings
from contextlib import suppress
from math import inf

import numpy as np

from dpedf import kernels
from dpedf.device.arrays import host
from dpedf.device.graphs import Graphs
from dpedf.device.staging import PinnedBuffer
from dpedf.errors import UserError, one_line
from dpedf.kernels import cublaslt
from dpedf.kernels.cublaslt.bindings import Bindings
from dpedf.kernels.gemm import product

ROUNDS, REPEATED = 3, 4  # when something is timed: how often, and how many in one graph


class UnusableError(Exception):
    """Why there is no GPU to compute on."""


class GPU:
    """A GPU.  Everything that is computed on it is launched on one stream.

    number: which of the GPUs that this process sees.  capture: may functions be replayed as CUDA
    graphs?  say(line) tells the user one line.  install: the command that installs what is missing.

    UnusableError: it does not compute.  UserError: it does not in this precision.
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
        self.run, self.stop_recording = self.graphs.run, self.graphs.stop_recording
        if not capture:
            self.stop_recording("run.capture = 'off'")
        kernels.register_gpu(self.name, cupy.ndarray, cupy.RawModule, self.put)
        self.products = self.multiply_by_cublaslt(precision, install)

    @property
    def note(self):
        return self.graphs.note

    def multiply_by_cublaslt(self, precision, install):
        """What multiplies: cuBLASLt or, without nvmath-python, CuPy, which cannot be recorded."""
        array, linalg = self.cupy.ndarray, self.cupy._core._routines_linalg
        try:
            from nvmath.bindings import cublasLt

            version = cublasLt.get_version()
            times = None if self.graphs.eager else self.times
            bindings = Bindings(cublasLt, self.stream, self.put(np.zeros(1)), times)
            cublaslt.register(array, precision, bindings)
            self.multiply_once()
            return f"cuBLASLt {version}"
        except UnusableError:  # it multiplies, but computes something else
            raise
        except Exception as error:  # nvmath loads many libraries, each of which may fail in its way
            cublaslt.unregister(array)
            found = f"{type(error).__name__}: {one_line(error)}"
            missing = f"{found}, expected nvmath-python: {install}"
            if precision == "bfloat16":
                raise UserError(f"train.precision = 'bfloat16': {missing}") from None
            tf32, default = linalg.COMPUTE_TYPE_TF32, linalg.COMPUTE_TYPE_DEFAULT
            linalg.set_compute_type(np.float32, tf32 if precision == "tf32" else default)
            self.stop_recording(missing)
            self.multiply_once()
            return "CuPy"

    def times(self, launches):
        """How long what each of these functions launches takes when it is replayed, at best.

        Infinitely long, where it cannot be recorded.
        """
        cuda, stream, graphs = self.cupy.cuda, self.stream, [*map(self.repeated, launches)]
        times, recorded = [inf] * len(graphs), [k for k, graph in enumerate(graphs) if graph]
        timed = [(k, cuda.Event(), cuda.Event()) for _ in range(ROUNDS) for k in recorded]
        for k, begin, end in timed:
            begin.record(stream)
            graphs[k].launch(stream)
            end.record(stream)
        self.wait()
        for k, begin, end in timed:
            times[k] = min(times[k], cuda.get_elapsed_time(begin, end))
        return times

    def repeated(self, launch):
        """A CUDA graph of what a function launches, REPEATED times; None if that is impossible."""
        launch()  # so that nothing is loaded while it is recorded
        self.stream.begin_capture()
        try:
            for _ in range(REPEATED):
                launch()
            return self.stream.end_capture()
        except Exception:  # of whatever kind: another algorithm multiplies the same matrices
            with suppress(self.cupy.cuda.runtime.CUDARuntimeError):  # invalidated by the error
                self.stream.end_capture()
            return None

    def multiply_once(self):
        """Allocate, launch, multiply and synchronize.  UnusableError: the result is wrong."""
        x = self.put(np.arange(6, dtype=np.float32).reshape(2, 3))
        found, expected = host(product(np.square(x), x.T)), [[9, 24], [66, 216]]
        if found.tolist() != expected:
            raise UnusableError(f"it computes {found.tolist()}, expected {expected}")

    def enter_thread(self):
        """Select this GPU in the current thread."""
        self.device.use()  # on leaving, `with device` would open a context on another GPU

    def put(self, array):
        return self.cupy.asarray(array)

    def buffer(self):
        return PinnedBuffer(self)

    def wait(self):
        self.stream.synchronize()

    def close(self):
        self.graphs.close()
        kernels.release_gpu()

    # for buffers, and for sums over ranks

    def new_stream(self):
        return self.cupy.cuda.Stream(non_blocking=True)

    def new_event(self):
        return self.cupy.cuda.Event(disable_timing=True)

    def mark(self, stream):
        """The event that comes when everything launched on a stream is done."""
        event = self.new_event()
        event.record(stream)
        return event

    def pinned(self, nbytes):
        """Memory of the host that a stream can copy while others compute."""
        return self.cupyx.empty_pinned((max(1, nbytes),), np.uint8)[:nbytes]

    def empty(self, shape, dtype):
        return self.cupy.empty(shape, dtype)

    def nccl(self):
        """CuPy's module nccl; None where CuPy finds no NCCL."""
        with warnings.catch_warnings(action="ignore"):  # parallel/links.py says it in our words
            from cupy.cuda import nccl
        return nccl if nccl.available else None


def acquire(host_rank, precision, capture, say):
    """The GPU of a rank: ranks of one host take turns.

    A process has one GPU at a time, because the type of an array decides which kernels, precision
    and stream compute with it.  UserError: another one is open.  UnusableError: there is none.
    """
    if kernels.gpu.name:
        raise UserError(f"{kernels.gpu.name} is open, expected its close() before another")
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
        kernels.release_gpu()
        raise
    except Exception as error:  # a driver, a compiler or a library: to the user, no GPU
        kernels.release_gpu()
        found = f"{type(error).__name__}: {one_line(error)}"
        raise UnusableError(f"{found}; it needs: {install}") from None


def driver_version():
    """The CUDA version of the NVIDIA driver, such as 12; None where there is no driver."""
    try:
        driver, version = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
    except OSError:
        return None
    driver.cuDriverGetVersion(ctypes.byref(version))
    return version.value // 1000
