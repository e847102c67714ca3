"""Functions that need more than NumPy's spelling, each with one meaning on every device.

The meaning is written in NumPy, and computes wherever its arrays live; beside it stands what
arrays on a GPU get instead, a CUDA kernel from a .cu file of this folder:

    @function
    def twice(x):
        return 2 * x

    @on_gpu(twice)
    def launch_twice(x): ...

Once device.py takes a GPU, its array type gets the second, wherever that is defined.
"""

from functools import wraps
from numbers import Real
from pathlib import Path

import numpy as np

FAST = []  # (function, what an array on a GPU gets instead)
TYPES = {"float32": "float", "float64": "double"}  # what T is in the sources
THREADS = 256  # of a block


def function(meaning):
    """Decorate the meaning of a function, which the type of its first argument may replace.

    As functools.singledispatch does, but by the very type: a small step of training is some
    dozens of calls, and singledispatch looks types up in a dictionary of weak references.
    """
    ways = {}

    def call(x, *rest, **named):
        return ways.get(type(x), meaning)(x, *rest, **named)

    call.register = ways.__setitem__
    return wraps(meaning)(call)


def on_gpu(meaning):
    """Decorate what a function does with arrays on a GPU."""

    def remember(fast):
        FAST.append((meaning, fast))
        if Kernels.array:
            meaning.register(Kernels.array, fast)
        return fast

    return remember


def register_gpu(array, compile, put):
    """From now on, arrays of this type are on a GPU, for which kernels are compiled."""
    Kernels.array, Kernels.compile, Kernels.put = array, compile, put
    for meaning, fast in FAST:
        meaning.register(array, fast)


def packed(x):
    """x with its indices in the order in which kernels read them; a copy where it must be."""
    return x if x.flags.c_contiguous else x.copy()


class Kernels:
    """The kernels of a source file: kernels.name(threads, x, ...) for x of float32 or float64.

    Integers reach a kernel as long long, floats as double, arrays as pointers.
    """

    # Given by register_gpu: the type of arrays; compile(code=..., options=...), whose result has
    # get_function(name); put(array).
    array = compile = put = None

    def __init__(self, name):
        self.source, self.found = Path(__file__).with_name(name).read_text(), {}

    def __getattr__(self, name):
        def launch(threads, x, *arguments):
            if threads:
                blocks = -(-threads // THREADS)
                self.kernel(name, x.dtype.name)((blocks,), (THREADS,), (x, *arguments))

        return launch

    def kernel(self, name, dtype):
        if (name, dtype) not in self.found:
            source = f"typedef {TYPES[dtype]} T;\n{self.source}"
            module = Kernels.compile(code=source, options=("-std=c++17",))
            self.found[name, dtype] = module.get_function(name)
        return self.found[name, dtype]


def number(x, dtype):
    """A number where a kernel can read it: on the GPU, as an array without indices."""
    return Kernels.put(np.array(x, dtype)) if isinstance(x, Real) else x
