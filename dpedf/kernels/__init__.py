"""Functions that need more than NumPy's spelling, each with one meaning on every device.

The meaning is written in NumPy, and computes wherever its arrays are.  Beside it stands its fast
version for arrays on a GPU, which launches a CUDA kernel from a .cu file of this folder:

    @function
    def twice(x):
        return 2 * x

    @on_gpu(twice)
    def twice_on_gpu(x): ...

When a process takes its GPU (device/gpu.py), the array type of that GPU gets the fast versions.
"""

from functools import wraps
from numbers import Real
from pathlib import Path
from types import SimpleNamespace

import numpy as np

FUNCTIONS = []  # of the files of this folder
FAST = []  # (function, its version for a GPU)

# The GPU of this process: its name; the type of its arrays; compile(code=..., options=...), whose
# result has get_function(name); put(array).  register_gpu and release_gpu alone write it.
gpu = SimpleNamespace(name=None, array=None, compile=None, put=None)
TYPES = {"float32": "float", "float64": "double"}  # what T is in the sources
THREADS = 256  # of a block
LARGE = (1 << 31) - THREADS  # from here on, the numbers of threads need more than 32 bits


def function(meaning):
    """Decorate the meaning of a function; call.register gives an array type another version.

    This is functools.singledispatch, but by the very type of the first argument: a small step of
    training is dozens of calls, and singledispatch looks up types in weak references.
    """
    versions = {}

    def call(x, *rest, **named):
        return versions.get(type(x), meaning)(x, *rest, **named)

    call.versions, call.register = versions, versions.__setitem__
    FUNCTIONS.append(call)
    return wraps(meaning)(call)


def on_gpu(meaning):
    """Decorate the version of a function for arrays on a GPU."""

    def remember(fast):
        FAST.append((meaning, fast))
        if gpu.array:
            meaning.register(gpu.array, fast)
        return fast

    return remember


def register_gpu(name, array, compile, put):
    """From now on, arrays of this type are on the GPU of this process."""
    vars(gpu).update(name=name, array=array, compile=compile, put=put)
    for meaning, fast in FAST:
        meaning.register(array, fast)


def release_gpu():
    """From now on, this process has no GPU."""
    for call in FUNCTIONS:
        call.versions.pop(gpu.array, None)
    vars(gpu).update(name=None, array=None, compile=None, put=None)


def packed(x):
    """x in the memory order that kernels read: x itself, or a copy."""
    return x if x.flags.c_contiguous else x.copy()


def floats(*arrays):
    """These, where integers and bools are in the type of the floats beside them, or float32.

    NumPy makes float64 of float32 and integers, but a graph never changes its type.
    """
    for x in arrays:
        if type(x) is not float and x.dtype.kind != "f":
            types = [x.dtype for x in arrays if type(x) is not float and not is_integer(x)]
            dtype = np.result_type(*types) if types else np.float32
            return [x.astype(dtype) if is_integer(x) else x for x in arrays]
    return arrays


def is_integer(x):
    """Is this an array of integers or bools?  It may be a float of Python, which has no dtype."""
    return type(x) is not float and x.dtype.kind in "iub"


def packed_for(x, *arrays):
    """These as a kernel for x reads them: packed, and of the type of x."""
    return [packed(array.astype(x.dtype, copy=False)) for array in arrays]


def packed_as(x, like):
    """x in the memory order and type of like, of its shape without gaps: x itself, or a copy."""
    strides = zip(x.shape, x.strides, like.strides, strict=True)
    if x.dtype == like.dtype and all(size == 1 or its == others for size, its, others in strides):
        return x
    copy = np.empty_like(like)
    copy[...] = x
    return copy


def strides_of(x):
    """The strides of x, in numbers."""
    return [stride // x.itemsize for stride in x.strides]


def selected(x, where, out=None):
    """x where this is true, else 0, even of inf and nan: their bits times 1 or 0.

    As fast as to multiply x; np.where is up to 15 times slower.
    """
    bits = f"u{(x if out is None else out).itemsize}"
    if out is None:
        return np.multiply(x.view(bits), where).view(x.dtype)
    np.multiply(x.astype(out.dtype, copy=False).view(bits), where, out=out.view(bits))
    return out


def reach(x):
    """From the first number of x in memory to the last one."""
    strides = zip(x.shape, strides_of(x), strict=True)
    return sum((size - 1) * abs(stride) for size, stride in strides)


class Kernels:
    """The kernels of a .cu file: kernels.name(threads, x, ...) for x of float32 or float64.

    The functions of warp.cuh stand before them.  Integers reach a kernel as long long, floats as
    double, arrays as pointers.  Sizes, by name, are compiled in: to divide by a number that is
    known is fast.  Kernels that have some may count with Index, an integer of 32 bits unless an
    array is too large.
    """

    def __init__(self, name):
        folder = Path(__file__).parent
        self.source = (folder / "warp.cuh").read_text() + (folder / name).read_text()
        self.compiled = {}

    def __getattr__(self, name):
        def launch(threads, x, *rest, **sizes):
            self.launch(name, x.dtype.name, threads, x, *rest, **sizes)

        return launch

    def launch(self, name, dtype, threads, *arguments, **sizes):
        """Launch a kernel in which T is this type."""
        if threads:
            blocks = -(-threads // THREADS)
            if sizes:
                reaches = [reach(x) for x in arguments if hasattr(x, "strides")]
                sizes["large"] = max(threads, *reaches) >= LARGE
            self.kernel(name, dtype, **sizes)((blocks,), (THREADS,), arguments)

    def kernel(self, name, dtype, large=False, **sizes):
        key = gpu.name, name, dtype, large, *sizes.items()
        if key not in self.compiled:
            types = f"typedef {TYPES[dtype]} T;\ntypedef {'long long' if large else 'int'} Index;\n"
            constants = "".join(f"const int {size} = {value};\n" for size, value in sizes.items())
            source = types + constants + self.source
            module = gpu.compile(code=source, options=("-std=c++17",))
            self.compiled[key] = module.get_function(name)
        return self.compiled[key]


def own_floats(values):
    """A copy of an array, a list or a number, of floats.  ValueError: of something else."""
    if isinstance(values, (list, tuple, Real)):
        values = np.array(values)
    kind = values.dtype.kind
    if kind not in "biuf":
        raise ValueError(f"found {values.dtype}, expected floats")
    return values.astype(values.dtype if kind == "f" else float)


def number(x, dtype):
    """A number where a kernel can read it: an array without indices, on the GPU."""
    return gpu.put(np.array(x, dtype)) if isinstance(x, Real) else x
