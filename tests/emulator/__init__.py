"""A GPU that is emulated: CUDA kernels run on the CPU, on arrays that watch what is done to them.

Emulator.compile stands in for cupy.RawModule, Emulated for cupy.ndarray, put for cupy.asarray.
"""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np

# Before and after an array, bytes that nobody may write to: as float32 each is a nan that becomes
# another in any operation, as float64 they are too large to compute with.
FENCE = np.full(1024, 0x7FA00001, np.uint32).view(np.uint8)
UNWRITTEN = 0xFF  # every byte, so that floats are nan
SIZE = re.compile(r"^const int (\w+) = (\d+);$", re.MULTILINE)  # one that is compiled in
TYPES = {"f": "float32", "d": "float64", "x": "int64", "y": "uint64", "t": "uint16"}


class Emulated(np.ndarray):
    """An array of the emulated GPU.  What nobody has written to it is nan."""

    memory = None  # with the fence

    def __array_finalize__(self, parent):
        self.memory = getattr(parent, "memory", None)

    def __array_function__(self, function, types, inputs, keywords):
        result = super().__array_function__(function, types, inputs, keywords)
        if function in (np.empty, np.empty_like):
            return fenced(result)
        return put(result) if function in (np.zeros, np.zeros_like, np.concatenate) else result

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)

    def copy(self, order="C"):
        return put(np.array(self, order=order))


def fenced(like):
    """An array, not written yet, of a shape, a type and an order in memory."""
    memory = np.concatenate([FENCE, np.full(like.nbytes, UNWRITTEN, np.uint8), FENCE])
    array = Emulated(like.shape, like.dtype, memory, len(FENCE), like.strides)
    array.memory = memory
    return array


def put(array):
    """A copy on the emulated GPU, in the same order in memory."""
    there = fenced(np.empty_like(array, subok=False))
    there[...] = array
    return there


class Emulator:
    """What compiles kernels for the CPU, once each, into a folder, which processes may share."""

    def __init__(self, folder):
        self.folder, self.modules = Path(folder), {}

    def compile(self, code, options):
        sizes = {name: int(size) for name, size in SIZE.findall(code)}
        code = SIZE.sub(r'__attribute__((visibility("default"))) int \1;', code)
        if (code, options) not in self.modules:
            name = hashlib.sha256(repr((code, options)).encode()).hexdigest()
            self.modules[code, options] = Module(self.folder / f"{name}.so", code, options)
        kernels = self.modules[code, options]
        return SimpleNamespace(get_function=lambda name: kernels.get_function(name, sizes))


class Module:
    """The kernels of a source, for any sizes: gcc would take a second for each.

    RuntimeError: no C++.
    """

    def __init__(self, library, code, options):
        if not library.exists():
            built = library.with_suffix(f".{os.getpid()}")
            self.build(built, code, options)
            built.replace(library)
        self.loaded = ctypes.CDLL(library)

    def build(self, library, code, options):
        header = Path(__file__).with_name("cuda.h")
        names = re.findall(r"__global__ void (\w+)\(", code)
        code = "\n".join([code, *(f"LAUNCHER({name})" for name in names)])
        compiled = subprocess.run(
            [
                *(compiler(), *options, "-O2", "-ffp-contract=off", "-fvisibility=hidden"),
                "-U_FORTIFY_SOURCE",  # which takes jumps from lane to lane for errors
                *("-shared", "-fPIC", "-include", header, "-x", "c++", "-", "-o", library),
            ],
            input=code,
            capture_output=True,
            text=True,
        )
        if compiled.returncode:
            raise RuntimeError(compiled.stderr)

    def get_function(self, name, sizes):
        return Kernel(self.loaded, name, sizes)


class Kernel:
    """kernel(grid, block, arguments).

    TypeError: it reads an argument as something else.  RuntimeError: it did what it must not.
    """

    def __init__(self, library, name, sizes):
        self.name, self.types, self.launch = name, [], library[f"launch_{name}"]
        self.sizes = [(ctypes.c_int.in_dll(library, size), n) for size, n in sizes.items()]
        self.launch.restype = ctypes.c_char_p
        types = library[f"types_{name}"]
        types.restype = ctypes.POINTER(ctypes.c_char_p)
        for mangled in types():
            if mangled is None:
                break
            kind = mangled.decode()  # of a pointer such as PKf, a pointer to const float
            self.types.append("*" * kind.count("P") + TYPES[kind[-1]])

    def __call__(self, grid, block, arguments):
        found, values = zip(*map(passed, arguments), strict=True)
        if [name.replace("uint64", "int64") for name in self.types] != list(found):
            raise TypeError(f"{self.name}{found}, expected {tuple(self.types)}")
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        for variable, size in self.sizes:
            variable.value = size
        wrong = self.launch(*grid, *block, pointers)
        if wrong:
            raise RuntimeError(f"{self.name}: {wrong.decode()}")
        for x in arguments:
            if isinstance(x, Emulated) and x.memory is not None:
                for fence in x.memory[: len(FENCE)], x.memory[-len(FENCE) :]:
                    if (fence != FENCE).any():
                        raise RuntimeError(f"{self.name} wrote beside an array")


def passed(x):
    """(type, value) of an argument, as CuPy passes it."""
    if isinstance(x, Emulated):
        return f"*{x.dtype}", np.array(x.ctypes.data, np.uintp)
    if type(x) is int:
        return "int64", np.array(x, np.int64)
    if type(x) is float:
        return "float64", np.array(x)
    return type(x).__name__, np.array(x)


def compiler():
    """The C++ compiler of this machine, or None."""
    return shutil.which("g++") or shutil.which("c++")
