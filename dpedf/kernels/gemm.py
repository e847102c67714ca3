"""Products of matrices: np.matmul, with the sums and the bias that layers need."""

from math import prod

import numpy as np

from dpedf.kernels import function

JOINED = 8  # products that are joined in one: what they read still stays in the cache


@function
def product(a, b, out=None, add=False):
    """a @ b, written into out if it is given; with add, added to it.

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


def add_products(products, out):
    """out += sum_t a_t @ b_t; products: (a_t, b_t), of (i, k_t) and (k_t, j).

    Their indices k_t follow one another in one product, which is faster than many short ones.
    """
    if not products:
        return
    K = sum(len(b) for _, b in products)
    rows, columns = (np.empty((K, len(x)), out.dtype, like=out) for x in (out, out.T))
    end = 0
    for a, b in products:
        part = slice(end, end := end + len(b))
        rows[part], columns[part] = a.T, b
    product(rows.T, columns, out, add=True)


def matrix(x):
    """x as a matrix, (N, I): all indices but the last are one."""
    return x if x.ndim == 2 else x.reshape(prod(x.shape[:-1]), x.shape[-1])
