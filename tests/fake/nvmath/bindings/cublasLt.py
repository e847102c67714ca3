"""cuBLASLt on the host: products of what lies at pointers, in the layouts that are described."""

import os
from enum import IntEnum
from itertools import count
from zlib import crc32

import numpy as np
from cupy.cuda.memory import at
from cupy.cuda.stream import streams

things, numbers = {}, count(1)
TYPES = {0: np.dtype(np.float32), 1: np.dtype(np.float64), 14: np.dtype(np.uint16)}
matmul_heuristic_result_dtype = np.dtype(
    [
        ("algo", [("data_", "<u8", (8,))]),
        ("workspace_size", "<u8"),
        ("state", "<i4"),
        ("waves_count", "<f4"),
        ("reserved", "<i4", (4,)),
    ]
)
# As the real one has them.
MatmulDescAttribute = IntEnum(
    "MatmulDescAttribute", {"TRANSA": 3, "TRANSB": 4, "EPILOGUE": 7, "BIAS_POINTER": 8}
)
MatrixLayoutAttribute = IntEnum(
    "MatrixLayoutAttribute", {"BATCH_COUNT": 5, "STRIDED_BATCH_OFFSET": 6}
)
MatmulPreferenceAttribute = IntEnum(
    "MatmulPreferenceAttribute",
    {"MAX_WORKSPACE_BYTES": 1} | {f"MIN_ALIGNMENT_{x}_BYTES": 5 + k for k, x in enumerate("ABCD")},
)
Epilogue = IntEnum("Epilogue", {"DEFAULT": 1, "BIAS": 4})
DTYPES = {3: np.int32, 4: np.int32, 7: np.uint32, 8: np.int64}
LAYOUT_DTYPES = {5: np.int32, 6: np.int64}
PREFERENCE_DTYPES = {1: np.uint64, 5: np.uint32, 6: np.uint32, 7: np.uint32, 8: np.uint32}


class cuBLASLtError(Exception):  # noqa: N801, N818
    """As nvmath's."""


def made(**thing):
    number = next(numbers)
    things[number] = thing
    return number


def setter(dtypes):
    def set_attribute(thing, attribute, address, nbytes):
        kind = np.dtype(dtypes[attribute])
        assert nbytes == kind.itemsize
        things[thing][int(attribute)] = int(at(address, (1,), kind)[0])

    return set_attribute


def get_version():
    return 120900


def create():
    return made()


def matmul_desc_create(compute, scale):
    return made(compute=compute, scale=scale)


def matrix_layout_create(kind, rows, columns, leading):
    if leading < rows or 0 in (rows, columns):
        raise cuBLASLtError("INVALID_VALUE")
    return made(kind=kind, rows=rows, columns=columns, leading=leading)


def matmul_preference_create():
    return made()


def matmul_preference_destroy(preference):
    del things[preference]


matrix_layout_destroy = matmul_preference_destroy


matmul_desc_set_attribute = setter(DTYPES)
matrix_layout_set_attribute = setter(LAYOUT_DTYPES)
matmul_preference_set_attribute = setter(PREFERENCE_DTYPES)


def get_matmul_desc_attribute_dtype(attribute):
    return DTYPES[attribute]


def get_matrix_layout_attribute_dtype(attribute):
    return LAYOUT_DTYPES[attribute]


def get_matmul_preference_attribute_dtype(attribute):
    return PREFERENCE_DTYPES[attribute]


def matmul_algo_get_heuristic(handle, desc, a, b, c, d, preference, most, results, found):
    """Algorithms: which alignment of A, B, C and D each counts on, in how many parts it adds, the
    bytes in which it keeps them, for each matrix, how long it takes, and if it takes many at once.

    All that it is told decides on the parts: also how many matrices there are, and where they lie.
    The first is followed by one that is faster and adds in other parts, and by three in its parts:
    one that is faster too, one faster still that takes one matrix alone, and the fastest, which
    adds many matrices in more parts.
    There is none with a bias, where FAKE_CUPY_BIAS = 0.
    """
    about, asked = things[desc], things[preference]
    if about.get(7) == Epilogue.BIAS and os.environ.get("FAKE_CUPY_BIAS") == "0":
        raise cuBLASLtError("NOT_SUPPORTED")
    told = [sorted(things[thing].items(), key=str) for thing in (a, b, c, d, preference)]
    what = about["compute"], about.get(3), about.get(4), about.get(7)
    first, D = 1 + crc32(repr((told, what)).encode()) % 7, things[d]
    algorithms = []
    others = (first + 1, 1, 1), (first, 5, 1), (first, 3, 0), (first, 2, 2)
    for parts, time, many in (first, 9, 1), *others:
        kept = (parts - 1) * D["rows"] * D["columns"] * TYPES[D["kind"]].itemsize
        if kept > asked[1]:
            parts, kept = 1, 0
        algorithms.append([*(asked[k] for k in (5, 6, 7, 8)), parts, kept, time, many])
    algorithms = algorithms[:most]
    for k, algorithm in enumerate(algorithms):
        at(results + k * matmul_heuristic_result_dtype.itemsize, (8,), np.uint64)[:] = algorithm
    at(found, (1,), np.int32)[0] = len(algorithms)


def matmul_algo_check(handle, desc, a, b, c, d, algo, result):
    *_, kept, time, many = at(algo, (8,), np.uint64).tolist()
    if things[d][5] > 1 and not many:
        raise cuBLASLtError("NOT_SUPPORTED")
    at(result, (9,), np.uint64)[8] = kept * things[d][5]  # workspace_size


def matrices(address, layout, transposed=0):
    """(count, rows, columns) of memory, read by columns."""
    layout = things[layout]
    size = TYPES[layout["kind"]].itemsize
    shape = layout.get(5, 1), layout["rows"], layout["columns"]
    strides = size * layout.get(6, 0), size, size * layout["leading"]
    array = at(address, shape, TYPES[layout["kind"]], strides)
    return array.swapaxes(1, 2) if transposed else array


def numbers_of(array):
    """float32 of what may be the bits of bfloat16."""
    if array.dtype != np.uint16:
        return array
    return (array.astype(np.uint32) << 16).view(np.float32)


def matmul(handle, desc, alpha, a, la, b, lb, beta, c, lc, d, ld, algo, workspace, nbytes, stream):
    about = dict(things[desc])  # as it is now: the launch has its own copy
    scale = TYPES[about["scale"]]
    alpha, beta = (at(address, (1,), scale)[0] for address in (alpha, beta))
    *alignments, parts, kept, time, many = at(algo, (8,), np.uint64).tolist()
    operands = (a, la), (b, lb), (c, lc), (d, ld)
    for (pointer, layout), alignment in zip(operands, alignments, strict=True):
        size, about_it = TYPES[things[layout]["kind"]].itemsize, things[layout]
        for where in pointer, size * about_it["leading"], size * about_it[6]:
            if where % alignment:
                raise cuBLASLtError(f"{where} is not aligned to {alignment} bytes")
    if things[ld][5] > 1 and not many:
        raise cuBLASLtError("NOT_SUPPORTED")
    if things[ld][5] > 1 and many == 2:
        parts += 1
    if kept * things[ld][5] > nbytes:
        raise cuBLASLtError("NOT_SUPPORTED: the workspace is too small")
    A, B = matrices(a, la, about.get(3)), matrices(b, lb, about.get(4))
    C, D = matrices(c, lc), matrices(d, ld)
    if A.shape[2] != B.shape[1] or D.shape[1:] != (A.shape[1], B.shape[2]):
        raise cuBLASLtError(f"INVALID_VALUE: {A.shape} {B.shape} {D.shape}")
    bias = None
    if about.get(7, 1) == Epilogue.BIAS:
        bias = at(about[8], (1, D.shape[1], 1), D.dtype)

    def run():
        # Packed alike, because NumPy adds in another order where matrices lie otherwise.
        packed = ((numbers_of(x).copy(), k) for x, k in ((A, 2), (B, 1)))
        pieces = (np.array_split(x, parts, k) for x, k in packed)
        result = alpha * sum(map(np.matmul, *pieces))
        if beta:
            result = result + beta * C
        D[...] = result if bias is None else result + bias
        streams[stream].clock += time

    streams[stream].launch(run, "matmul")
