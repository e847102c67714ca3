"""Attention: its heads, its weights, and the gradient of the scores that they are made of.

Scores and weights are (B, H, S, T), of heads h, keys s and queries t.  In memory t is the innermost
index on a CPU, where sums over s add long rows, and s on a GPU, where a warp has a row of it.
"""

import numpy as np

from dpedf.kernels import Kernels, function, on_gpu, packed
from dpedf.kernels.gemm import product

cuda = Kernels("attention.cu")


@function
def swapped(*arrays):
    """Each of at most four arrays, (B, M, N, I), as (B, N, M, I): views, or copies on a GPU."""
    return [x.swapaxes(1, 2) for x in arrays]


@on_gpu(swapped)
def swapped_on_gpu(*arrays):
    # cuBLASLt multiplies matrices that lie at equal distances, which views by heads do not.
    results, alike = [None] * len(arrays), {}
    for k, x in enumerate(arrays):
        alike.setdefault((x.dtype, *x.shape), []).append(k)
    for (_, B, M, N, I), these in alike.items():  # one launch for all of a shape
        four = ([packed(arrays[k]) for k in these] * 4)[:4]
        y = np.empty_like(four[0], shape=(len(these), B, N, M, I))
        cuda.swapped(y.size, *four, y, len(these), B, M, N, I)
        for place, k in enumerate(these):
            results[k] = y[place, ...]
    return results


def hide(a, where):
    """Leave -inf in a where this is true, also in the place of nan."""
    bound = np.where(where, -np.inf, np.nan).astype(a.dtype)
    np.fmin(a, bound, out=a)  # which ignores nan: a where bound is nan, else -inf in any case


@function
def attention_weights(q, k, scale, causal, mask=None, sharing=1):
    """a[b,h,s,t] = softmax_s scale sum_i q[b,h,t,i] k[b,h,s,i], of s <= t alone if causal

    mask: of bools, (B, T, S), or without T, (B, 1, S); B may be 1.  Of s where it is true alone; a
    is 0 where it is true of none.  sharing: so many heads of q, one after the other along t, share
    a head of k, and each has positions of its own.

    q: (B, H, T, I); k: (B, H, S, I); a: (B, H, S, T)
    """
    a = product(k, q.swapaxes(2, 3))
    a *= scale
    B, H, S, T = a.shape
    T //= sharing
    each = a.reshape(B, H, S, sharing, T)  # a view
    if causal:
        hide(each, np.arange(S, like=a).reshape(S, 1, 1) > np.arange(T, like=a))
    if mask is not None:
        hide(each, ~np.expand_dims(mask.swapaxes(1, 2), (1, 3)))
    most = a.max(axis=2, keepdims=True)
    if mask is not None:
        most = np.where(most == -np.inf, 0.0, most).astype(a.dtype, copy=False)
    a -= most
    np.exp(a, out=a)
    sums = a.sum(axis=2, keepdims=True)
    a /= sums if mask is None else np.where(sums == 0, 1.0, sums).astype(a.dtype, copy=False)
    return a


@on_gpu(attention_weights)
def attention_weights_on_gpu(q, k, scale, causal, mask=None, sharing=1):
    a = product(q, k.swapaxes(2, 3))
    B, H, T, S = a.shape
    T //= sharing
    if mask is not None:
        hide(a.reshape(B, H, sharing, T, S), ~np.expand_dims(mask, (1, 2)))
    rows = a.size // max(1, S)
    cuda.weights(32 * rows, a, scale, int(causal), int(mask is not None), rows, T, S)
    return a.swapaxes(2, 3)


@function
def scores_gradient(a, v, g, y, scale):
    """d[b,h,s,t] = scale a[b,h,s,t] sum_j g[b,h,t,j] (v[b,h,s,j] - y[b,h,t,j]), as a in memory

    v: (B, H, S, J); g: (B, H, T, J), y the same, or with the heads that share one of v apart
    """
    d = product(v, g.swapaxes(2, 3))
    d -= np.expand_dims((g * y.reshape(g.shape)).sum(axis=3), 2)
    d *= a
    d *= scale
    return d


@on_gpu(scores_gradient)
def scores_gradient_on_gpu(a, v, g, y, scale):
    d = product(g, v.swapaxes(2, 3))
    (H, T), S = y.shape[1:3], d.shape[3]
    rows = d.size // max(1, S)
    # None of these is a copy: attention_weights, swapped and the node have made them so.
    a, g, y = packed(a.swapaxes(2, 3)), packed(g), packed(y.swapaxes(1, 2))
    cuda.scores_gradient(32 * rows, d, a, g, y, scale, rows, H, T, S, g.shape[3])
    return d.swapaxes(2, 3)
