"""The arguments of a function that a GPU replays: arrays, and numbers as arrays without indices."""

import numpy as np

from dpedf.kernels import Kernels, gpu, packed

cuda = Kernels("arguments.cu")
AT_A_TIME = 4  # arguments in one launch
MOST_THREADS = 1 << 18


def is_array(argument):
    return isinstance(argument, gpu.array)


def kept(argument):
    """An array of its own on the GPU, which bring can write to."""
    return argument.copy() if is_array(argument) else gpu.put(np.asarray(argument))


def bring(arguments, there):
    """there[k][...] = arguments[k]; there: what kept made of arguments of these types."""
    for first in range(0, len(there), AT_A_TIME):
        some = slice(first, first + AT_A_TIME)
        launch_bring(list(zip(arguments[some], there[some], strict=True)))


def launch_bring(pairs):
    moves, most = [], 1  # most: bytes
    held = []  # until it is launched: what had to be packed
    for argument, array in pairs:
        if is_array(argument):
            held.append(packed(argument))
            moves += [array.data.ptr, held[-1].data.ptr, array.nbytes]
            most = max(most, array.nbytes)
        else:
            bits = np.asarray(argument, array.dtype).view(f"i{array.itemsize}")
            moves += [array.data.ptr, int(bits), -array.itemsize]
    moves += [0] * (3 * AT_A_TIME - len(moves))
    # The kernel does not use T.
    cuda.launch("bring", "float32", min(MOST_THREADS, -(-most // 16)), *moves)
