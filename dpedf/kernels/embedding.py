"""The gradient of an embedding: rows added up by their label."""

import numpy as np

from dpedf.kernels import Kernels, function, on_gpu, packed

cuda = Kernels("embedding.cu")
RUN = 2048  # keys that are compared each with each, before runs of them are merged


@function
def scattered(g, x, J):
    """W[v,j,i] = sum of g[v,n,i] over the positions n where x[v,n] is j, added in their order

    g: (V, N, I); x: (V, N), of 0..J-1; W: (V, J, I)
    """
    W = np.zeros((len(g), J, g.shape[2]), g.dtype)
    for v in range(len(g) if x.size else 0):
        order = np.argsort(x[v], kind="stable")
        starts = np.flatnonzero(np.diff(x[v, order], prepend=-1))
        W[v, x[v, order[starts]]] = np.add.reduceat(g[v, order], starts, axis=0)
    return W


@on_gpu(scattered)
def scattered_on_gpu(g, x, J):
    g, x = packed(g), packed(x.astype(np.int64, copy=False))
    V, N, I = g.shape
    keys = sorted_keys(x, g.dtype.name)
    W, pieces = np.zeros((V, J, I), g.dtype, like=g), np.empty_like(g)
    cuda.add_pieces(32 * V * N, g, keys, W, pieces, V, N, I, J)
    cuda.join_pieces(32 * V * N, pieces, keys, W, V, N, I, J)
    return W


def sorted_keys(x, dtype):
    """(V, N): of each slice the keys x[v,n] N + n in their order.

    CuPy's own sort waits for the GPU, so it cannot be recorded.
    """
    (V, N), keys, merged = x.shape, np.empty_like(x), np.empty_like(x)
    cuda.launch("sort_runs", dtype, 32 * V * N, x, keys, V, N, RUN)
    run = RUN
    while run < N:
        cuda.launch("merge_runs", dtype, V * N, keys, merged, V, N, run)
        keys, merged, run = merged, keys, 2 * run
    return keys
