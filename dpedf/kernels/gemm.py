"""Products of matrices: np.matmul, with the accumulation and the bias that layers need."""

import numpy as np

from dpedf.kernels import function


@function
def product(a, b, out=None, add=False):
    """a @ b, written into out where there is one, or with add, added to it.

    a: (..., i, k); b: (..., k, j); out: (..., i, j), packed.
    """
    if add:
        out += a @ b
        return out
    return np.matmul(a, b, out=out)


@function
def affine(x, W, C):
    """y[b,j] = sum_i x[b,i] W[i,j] - C[j]"""
    y = x @ W
    y -= C
    return y
