"""The gradient of an embedding: rows added up by their label."""

from math import prod

import numpy as np

from dpedf.kernels import Kernels, function, on_gpu, packed

cuda = Kernels("embedding.cu")


@function
def scattered(g, x, J):
    """W[j,i] = sum of g[...,i] over the positions ... where x is j, added in their order

    g: (..., I); x: (...), of 0..J-1; W: (J, I)
    """
    I = g.shape[-1]
    g, x = g.reshape(prod(x.shape), I), x.reshape(-1)
    W = np.zeros((J, I), g.dtype)
    order = np.argsort(x, kind="stable")
    starts = np.flatnonzero(np.diff(x[order], prepend=-1))
    if len(x):
        W[x[order[starts]]] = np.add.reduceat(g[order], starts, axis=0)
    return W


@on_gpu(scattered)
def scattered_on_gpu(g, x, J):
    g, x = packed(g), packed(x.astype(np.int64, copy=False))
    I = g.shape[-1]
    W = np.empty((J, I), g.dtype, like=g)
    cuda.scattered(J * I, g, x, W, x.size, I, J)
    return W
