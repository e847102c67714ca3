"""gemm.py's functions on a GPU, by cuBLASLt.

CuPy's own products cannot be part of a CUDA graph.  These can: they call cuBLASLt through the
bindings of nvmath-python.  cuBLASLt stores matrices by columns, so it computes out.T = b.T @ a.T.

How it adds depends on the algorithm.  Those that are taken here give a product the same bits by
itself and among many at once, and wherever its rows begin in an array: so slices have the same bits
however many a pass takes.
"""

from math import prod

import numpy as np

from dpedf.kernels.cublaslt.operands import Operand, expect_factors, rounded
from dpedf.kernels.cublaslt.plan import Plan
from dpedf.kernels.cublaslt.reused import Reused
from dpedf.kernels.gemm import affine, product, unchanging

# The compute type (cublasComputeType_t), and the data types (cudaDataType_t) of scales, of what is
# read, and of what is written.
FLOAT64 = 70, 1, 1, 1
FLOAT32 = {"float32": (68, 0, 0, 0), "tf32": (77, 0, 0, 0), "bfloat16": (68, 0, 14, 0)}


def register(array_type, precision, bindings):
    """From now on, the functions of gemm.py for this array type are cuBLASLt's."""
    gemm = Gemm(precision, bindings)
    product.register(array_type, gemm.product)
    affine.register(array_type, gemm.affine)
    unchanging.register(array_type, gemm.unchanging)


def unregister(array_type):
    """From now on, they are again what they mean."""
    for function in product, affine, unchanging:
        function.versions.pop(array_type, None)


class Gemm:
    """Products by the Bindings, those of float32 in one precision; each is planned when first met.

    reused: the Reused in whose block products are made, or None.
    """

    def __init__(self, precision, bindings):
        self.precision, self.bindings, self.plans, self.reused = precision, bindings, {}, None
        self.float32 = FLOAT32.get(precision, FLOAT32["float32"])

    def product(self, a, b, out=None, add=False):
        expect_factors(a, b)
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        if out is None:
            out = np.empty((*batch, a.shape[-2], b.shape[-1]), a.dtype, like=a)
        if not out.size or not a.shape[-1]:
            if not add:
                out.fill(0)
            return out
        if not self.multiply(a, b, out, add):
            raise RuntimeError(f"cuBLASLt has no algorithm for {a.shape} @ {b.shape}")
        return out

    def affine(self, x, W, C, out=None):
        expect_factors(x, W)
        if out is None:
            out = np.empty((*x.shape[:-1], W.shape[1]), x.dtype, like=x)
        if not out.size or not len(W):
            out[...] = -C
        elif not self.multiply(x, W, out, bias=self.negated(C)):
            self.product(x, W, out)
            out -= C
        return out

    def unchanging(self, vector):
        return Reused(vector, self)

    def multiply(self, a, b, out, add=False, bias=None):
        """out = a @ b, or with add out += a @ b, plus a bias if given.  Was there an algorithm?"""
        batch, has_bias = out.shape[:-2], bias is not None
        a, b = (Operand(self.rounded(x), batch) for x in (a, b))
        c, count = Operand(out, batch), prod(batch)
        operands, address = (b, a, c), bias.data.ptr if has_bias else None
        key = *(x.key for x in operands), count, out.dtype.name, has_bias, add
        if key not in self.plans:
            kinds = self.float32 if out.dtype == np.float32 else FLOAT64
            self.plans[key] = Plan(self.bindings, operands, count, kinds, address, add)
        plan = self.plans[key]
        if plan.algorithm is None:
            return False
        plan.launch(operands, address)
        return True

    def rounded(self, x):
        """x in the precision in which cuBLASLt reads it."""
        if self.precision != "bfloat16" or x.dtype != np.float32:
            return x
        return rounded(x, self.reused and self.reused.rounded.of)

    def negated(self, x):
        """-x, packed."""
        kept = self.reused.negated.of(x) if self.reused and x.flags.c_contiguous else None
        return -x if kept is None else kept
