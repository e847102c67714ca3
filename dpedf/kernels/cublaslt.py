"""gemm.py's functions on a GPU, by cuBLASLt.

CuPy's own products cannot be part of a CUDA graph.  These can: they call cuBLASLt through the
bindings of nvmath-python.  cuBLASLt stores matrices by columns, so it computes out.T = b.T @ a.T.
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

    def affine(self, x, W, C):
        expect_factors(x, W)
        y = np.empty((len(x), W.shape[1]), x.dtype, like=x)
        if not y.size or not len(W):
            y[...] = -C
        elif not self.multiply(x, W, y, False, -C):
            self.product(x, W, y)
            y -= C
        return y

    def multiply(self, a, b, out, add, bias):
        """out = a @ b, or with add out += a @ b, plus a bias if given.  Was there an algorithm?"""
        batch = out.shape[:-2]
        a, b = (Operand(self.rounded(x), batch) for x in (a, b))
        c = Operand(out, batch)
        shapes = a.key, b.key, c.key, out.dtype.name, bias is not None
        if shapes not in self.plans:
            self.plans[shapes] = self.plan(a, b, c, prod(batch), bias)
        desc, layouts, algorithm, there_is = self.plans[shapes]
        if not there_is:
            return False
        if bias is not None:
            self.describe("matmul_desc", desc, "BIAS_POINTER", bias.data.ptr)
        factors = self.factors[out.dtype.name]
        one, beta = factors[1:].ctypes.data, factors[int(add) :].ctypes.data
        self.lt.matmul(
            *(self.handle, desc, one, b.pointer, layouts[0], a.pointer, layouts[1], beta),
            *(c.pointer, layouts[2], c.pointer, layouts[2], algorithm.ctypes.data),
            *(self.workspace.data.ptr, WORKSPACE, self.stream),
        )
        return True

    def rounded(self, x):
        """x in the precision in which cuBLASLt reads it."""
        if self.precision != "bfloat16" or x.dtype != np.float32:
            return x
        x = x if x.T.flags.c_contiguous else packed(x)
        r = np.empty_like(x, dtype=np.uint16)
        cuda.round_to_bfloat16(x.size, x, r, x.size)
        return r

    def plan(self, a, b, c, count, bias):
        """(description, layouts, algorithm, is there one?) of a product."""
        lt = self.lt
        compute, scale, reads, writes = self.float32 if c.x.dtype == np.float32 else FLOAT64
        desc = lt.matmul_desc_create(compute, scale)
        self.describe("matmul_desc", desc, "TRANSA", b.transposed)
        self.describe("matmul_desc", desc, "TRANSB", a.transposed)
        if bias is not None:
            self.describe("matmul_desc", desc, "EPILOGUE", lt.Epilogue.BIAS)
            self.describe("matmul_desc", desc, "BIAS_POINTER", bias.data.ptr)
        operands = (b, reads), (a, reads), (c, writes)
        layouts = [self.layout(operand, kind, count) for operand, kind in operands]
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
        return desc, layouts, algorithm, bool(found[0])

    def layout(self, operand, kind, count):
        lt = self.lt
        layout = lt.matrix_layout_create(kind, operand.rows, operand.columns, operand.leading)
        self.describe("matrix_layout", layout, "BATCH_COUNT", count)
        self.describe("matrix_layout", layout, "STRIDED_BATCH_OFFSET", operand.step)
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


class Operand:
    """Matrices x, (..., i, k), one for each index of batch, as cuBLASLt reads them.

    rows, columns, leading: of x.T where x is packed by rows, of x where it is transposed.
    step: numbers from one matrix to the next.  alignment: in bytes, what an algorithm may rely on;
    it is the same on every rank.
    """

    def __init__(self, x, batch):
        if x.ndim > 2:
            x = np.broadcast_to(x, (*batch, *x.shape[-2:])).reshape(-1, *x.shape[-2:])
        if not self.reads(x):
            x = x.copy()
            self.reads(x)
        self.x, self.pointer = x, x.data.ptr
        self.step = x.strides[0] // x.itemsize if x.ndim > 2 else 0
        self.alignment = min(256, self.pointer & -self.pointer)
        layout = self.rows, self.columns, self.leading, self.step
        self.key = (*layout, batch, self.transposed, self.alignment)

    def reads(self, x):
        """Is one of the two indices packed?"""
        (I, K), (i, k) = x.shape[-2:], (stride // x.itemsize for stride in x.strides[-2:])
        by_rows, by_columns = i if I > 1 else K, k if K > 1 else I
        if (k == 1 or K == 1) and by_rows >= K:
            self.rows, self.columns, self.leading, self.transposed = K, I, by_rows, 0
        elif (i == 1 or I == 1) and by_columns >= I:
            self.rows, self.columns, self.leading, self.transposed = I, K, by_columns, 1
        else:
            return False
        return True
