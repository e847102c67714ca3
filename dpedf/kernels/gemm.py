"""Products of matrices: np.matmul, with the accumulation and the bias that layers need."""

from functools import singledispatch

import numpy as np


@singledispatch
def product(a, b, out=None, add=False):
    """a @ b, written into out where there is one, or with add, added to it.

    a: (..., i, k); b: (..., k, j); out: (..., i, j), packed.
    """
    if add:
        out += a @ b
        return out
    return np.matmul(a, b, out=out)


@singledispatch
def affine(x, W, C):
    """y[b,j] = sum_i x[b,i] W[i,j] - C[j]"""
    y = product(x, W)
    y -= C
    return y
