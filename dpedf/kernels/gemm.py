"""Products of matrices: np.matmul, with the sums and the bias that layers need."""

from contextlib import nullcontext
from math import prod

import numpy as np

from dpedf.kernels import function
from dpedf.kernels.concat import concat

JOINED = 8  # products that are joined in one: what they read still stays in the cache
MANY = 1 << 20  # numbers, too many for another array of as many


@function
def product(a, b, out=None, add=False):
    """a @ b, written into out if it is given; with add, added to it.

    a: (..., i, k); b: (..., k, j); out: (..., i, j), packed; with add, of as many matrices each.
    """
    if not add:
        return np.matmul(a, b, out=out)
    if out.ndim == 2 or out.size < MANY:
        out += a @ b
    else:  # one at a time, which takes less memory
        for k in range(len(out)):
            product(a[k], b[k], out[k], add=True)
    return out


@function
def affine(x, W, C, out=None):
    """y[...,b,j] = sum_i x[...,b,i] W[i,j] - C[j], written into out if it is given"""
    y = np.matmul(x, W, out=out)
    y -= C
    return y


@function
def unchanging(vector):
    """A context, `with unchanging(vector):`, in whose blocks nothing is written into a vector.

    So what products read of its parts in another form can be made once a block.
    """
    return nullcontext()


def add_products(products, out):
    """out += sum_t x_t^T g_t; products: (x_t, g_t), of (..., n_t, i) and (..., n_t, j).

    Their indices n_t follow one another in one product, which is faster than many short ones.
    """
    N, (*lead, I, J) = sum(g.shape[-2] for _, g in products), out.shape
    rows, columns = (np.empty((*lead, N, size), out.dtype, like=out) for size in (I, J))
    left, right = zip(*products, strict=True)
    concat(rows, left, len(lead))
    concat(columns, right, len(lead))
    product(rows.swapaxes(-1, -2), columns, out, add=True)


def matrix(x):
    """x as a matrix, (N, I): all indices but the last are one."""
    return x if x.ndim == 2 else x.reshape(prod(x.shape[:-1]), x.shape[-1])
