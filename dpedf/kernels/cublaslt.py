"""gemm.py's functions on a GPU, by cuBLASLt.

CuPy's own products cannot be part of a CUDA graph.  These can: they call cuBLASLt through the
bindings of nvmath-python.  cuBLASLt stores matrices by columns, so it computes out.T = b.T @ a.T.

How it adds depends on the algorithm that it chooses.  Here that is the same for a product by itself
and for many at once, and for rows that begin anywhere in an array: so slices have the same bits
however many a pass takes.
"""

from contextlib import suppress
from math import prod

import numpy as np

from dpedf.kernels import Kernels, packed
from dpedf.kernels.gemm import affine, product

cuda = Kernels("bfloat16.cu")
WORKSPACE = 1 << 25  # bytes
# The compute type (cublasComputeType_t), and the data types (cudaDataType_t) of scales, of what is
# read, and of what is written.
FLOAT64 = 70, 1, 1, 1
FLOAT32 = {"float32": (68, 0, 0, 0), "tf32": (77, 0, 0, 0), "bfloat16": (68, 0, 14, 0)}


def register(array_type, precision, lt, stream, like):
    """From now on, product and affine of this array type are cuBLASLt's.

    lt: nvmath.bindings.cublasLt.  stream: the current one's pointer.  like: an array of the GPU.
    """
    gemm = Gemm(precision, lt, stream, like)
    product.register(array_type, gemm.product)
    affine.register(array_type, gemm.affine)


class Gemm:
    """Products on one stream, those of float32 in one precision; each is planned when first met."""

    def __init__(self, precision, lt, stream, like):
        self.precision, self.lt, self.stream, self.plans = precision, lt, stream, {}
        self.handle = lt.create()
        self.workspace = np.empty(WORKSPACE, np.uint8, like=like)
        self.float32 = FLOAT32.get(precision, FLOAT32["float32"])
        self.factors = {kind: np.array([0, 1], kind) for kind in ("float32", "float64")}

    def product(self, a, b, out=None, add=False):
        expect_factors(a, b)
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        if out is None:
            out = np.empty((*batch, a.shape[-2], b.shape[-1]), a.dtype, like=a)
        if not out.size or not a.shape[-1]:
            if not add:
                out.fill(0)
            return out
        if not self.multiply(a, b, out, add, None):
            raise RuntimeError(f"cuBLASLt has no algorithm for {a.shape} @ {b.shape}")
        return out

    def affine(self, x, W, C, out=None):
        expect_factors(x, W)
        if out is None:
            out = np.empty((*x.shape[:-1], W.shape[1]), x.dtype, like=x)
        if not out.size or not len(W):
            out[...] = -C
        elif not self.multiply(x, W, out, False, -C):
            self.product(x, W, out)
            out -= C
        return out

    def multiply(self, a, b, out, add, bias):
        """out = a @ b, or with add out += a @ b, plus a bias if given.  Was there an algorithm?"""
        batch = out.shape[:-2]
        a, b = (Operand(self.rounded(x), batch) for x in (a, b))
        c, count = Operand(out, batch), prod(batch)
        shapes = a.key, b.key, c.key, count, out.dtype.name, bias is not None
        if shapes not in self.plans:
            self.plans[shapes] = self.plan(a, b, c, count, bias)
        desc, layouts, algorithm, at_once = self.plans[shapes]
        if algorithm is None:
            return False
        if bias is not None:
            self.describe("matmul_desc", desc, "BIAS_POINTER", bias.data.ptr)
        factors = self.factors[out.dtype.name]
        one, beta = factors[1:].ctypes.data, factors[int(add) :].ctypes.data
        for k in range(1 if at_once else count):
            self.lt.matmul(
                *(self.handle, desc, one, b.at(k), layouts[0], a.at(k), layouts[1], beta),
                *(c.at(k), layouts[2], c.at(k), layouts[2], algorithm.ctypes.data),
                *(self.workspace.data.ptr, WORKSPACE, self.stream),
            )
        return True

    def rounded(self, x):
        """x in the precision in which cuBLASLt reads it."""
        if self.precision != "bfloat16" or x.dtype != np.float32:
            return x
        swapped = by_columns(x)
        x = packed(x.swapaxes(-1, -2) if swapped else x)
        r = np.empty_like(x, dtype=np.uint16)
        cuda.round_to_bfloat16(x.size, x, r, x.size)
        return r.swapaxes(-1, -2) if swapped else r

    def plan(self, a, b, c, count, bias):
        """(description, layouts, algorithm, does it take all at once?) of count products.

        The algorithm is what cuBLASLt chooses for one of them, of packed matrices, or None.
        """
        lt = self.lt
        compute, scale, reads, writes = self.float32 if c.x.dtype == np.float32 else FLOAT64
        desc = lt.matmul_desc_create(compute, scale)
        self.describe("matmul_desc", desc, "TRANSA", b.transposed)
        self.describe("matmul_desc", desc, "TRANSB", a.transposed)
        if bias is not None:
            self.describe("matmul_desc", desc, "EPILOGUE", lt.Epilogue.BIAS)
            self.describe("matmul_desc", desc, "BIAS_POINTER", bias.data.ptr)
        operands = (b, reads), (a, reads), (c, writes)
        alone = [self.layout(x, kind, x.rows) for x, kind in operands]
        algorithm = self.algorithm(desc, alone, (b, a, c))
        for layout in alone:
            lt.matrix_layout_destroy(layout)
        layouts = [self.layout(x, kind, x.leading, count) for x, kind in operands]
        at_once = count == 1 or algorithm is None or self.takes(desc, layouts, algorithm)
        if not at_once:
            layouts = [self.layout(x, kind, x.leading) for x, kind in operands]
        return desc, layouts, algorithm, at_once

    def algorithm(self, desc, layouts, operands):
        """What cuBLASLt chooses for matrices of these layouts; None, where it finds nothing."""
        lt, (b, a, c) = self.lt, operands
        preference = lt.matmul_preference_create()
        self.describe("matmul_preference", preference, "MAX_WORKSPACE_BYTES", WORKSPACE)
        for name, operand in zip("ABCD", (b, a, c, c), strict=True):
            self.describe(
                "matmul_preference", preference, f"MIN_ALIGNMENT_{name}_BYTES", operand.alignment
            )
        algorithm = np.zeros(1, lt.matmul_heuristic_result_dtype)
        found = np.zeros(1, np.int32)
        with suppress(lt.cuBLASLtError):  # it found none
            lt.matmul_algo_get_heuristic(
                *(self.handle, desc, *layouts, layouts[2], preference, 1),
                *(algorithm.ctypes.data, found.ctypes.data),
            )
        lt.matmul_preference_destroy(preference)
        return algorithm if found[0] else None

    def takes(self, desc, layouts, algorithm):
        """Does an algorithm multiply matrices of these layouts, in the workspace that there is?"""
        lt, result = self.lt, np.zeros(1, self.lt.matmul_heuristic_result_dtype)
        addresses = algorithm.ctypes.data, result.ctypes.data
        try:
            lt.matmul_algo_check(self.handle, desc, *layouts, layouts[2], *addresses)
        except lt.cuBLASLtError:
            return False
        return result["workspace_size"][0] <= WORKSPACE

    def layout(self, operand, kind, leading, count=1):
        layout = self.lt.matrix_layout_create(kind, operand.rows, operand.columns, leading)
        self.describe("matrix_layout", layout, "BATCH_COUNT", count)
        step = operand.step if count > 1 else 0
        self.describe("matrix_layout", layout, "STRIDED_BATCH_OFFSET", step)
        return layout

    def describe(self, kind, thing, name, number):
        """Set an attribute of a matmul_desc, a matmul_preference or a matrix_layout."""
        lt = self.lt
        names = {
            "matmul_desc": lt.MatmulDescAttribute,
            "matmul_preference": lt.MatmulPreferenceAttribute,
            "matrix_layout": lt.MatrixLayoutAttribute,
        }
        attribute = names[kind][name]
        value = np.array([number], getattr(lt, f"get_{kind}_attribute_dtype")(attribute))
        set_attribute = getattr(lt, f"{kind}_set_attribute")
        set_attribute(thing, attribute, value.ctypes.data, value.nbytes)


def expect_factors(a, b):
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"{a.shape} @ {b.shape}, expected equal inner indices")
    if a.dtype != b.dtype:
        raise ValueError(f"{a.dtype} @ {b.dtype}, expected one type")


def in_numbers(x):
    """The strides of the last two indices."""
    return [stride // x.itemsize for stride in x.strides[-2:]]


def by_columns(x):
    """Do matrices x, (..., i, k), lie in memory by columns, rather than by rows?"""
    (I, K), (i, k) = x.shape[-2:], in_numbers(x)
    return K > 1 and k != 1 and (I == 1 or i < k)


class Operand:
    """Matrices x, (..., i, k), one for each index of batch, as cuBLASLt reads them.

    rows, columns, leading: of x.T where x lies by rows, of x where it is transposed.
    step: numbers from one matrix to the next.
    alignment: in bytes, what an algorithm may rely on.  All lines of all matrices have it, so that
    it is the same wherever a slice begins; a single line may begin at any number.
    """

    def __init__(self, x, batch):
        self.transposed = int(by_columns(x))
        x = x.swapaxes(-1, -2) if self.transposed else x
        if x.ndim > 2:
            x = np.broadcast_to(x, (*batch, *x.shape[-2:])).reshape(-1, *x.shape[-2:])
        self.columns, self.rows = x.shape[-2:]
        line, number = in_numbers(x)
        if (self.rows > 1 != number) or (self.columns > 1 and line < self.rows):
            x = x.copy()
            line = self.rows
        self.x, self.pointer = x, x.data.ptr
        self.leading = line if self.columns > 1 else self.rows
        self.step = x.strides[0] // x.itemsize if x.ndim > 2 and len(x) > 1 else 0
        numbers = self.rows | self.leading | self.step if self.columns > 1 else 1
        bits = self.pointer | 256 | x.itemsize * numbers
        self.alignment = bits & -bits
        layout = self.rows, self.columns, self.leading, self.step
        self.key = *layout, self.transposed, self.alignment

    def at(self, k):
        """The address of matrix k."""
        return self.pointer + k * self.step * self.x.itemsize
