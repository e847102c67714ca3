"""Slices of the rows at hand: products of rows, and sums over rows.

What is computed row by row has the same bits whatever rows stand beside it, but for two things.
BLAS rounds the rows of a product by how many there are, so each slice is a product of its own; and
a sum over rows is first a sum over each slice, then over slices, in the tree of parallel/sums.py.
"""

from functools import cache
from math import prod

import numpy as np

from dpedf.kernels import TYPES, Kernels, function, gpu, on_gpu, packed, strides_of
from dpedf.kernels.gemm import affine, product
from dpedf.kernels.sums import FEW, MANY, sum_of_axes
from dpedf.kernels.vector import CACHED, add_in_order

cuda = Kernels("slices.cu")
PANEL = 160_000  # numbers of a gradient that are computed at a time, and stay in the cache
UNROLLED = 48  # BLAS computes so many lines, or a divisor of it, at a time


class Slices:
    """How the rows of a pass are cut: slice v is ends[v]:ends[v+1]; with ends = None there is one.

    tree: for each slice (k, additions): what is summed over its rows goes to vector k, and then
    vector p += vector q for each (p, q) of the additions.
    first: the number of the first slice among those of the pass.
    """

    def __init__(self, ends=None, tree=((0, ()),), first=0):
        self.ends, self.tree, self.first = ends, tuple(tree), first
        self.all = slice(first, first + len(self.tree))
        self.equal = ends is None or len(set(np.diff(ends).tolist())) == 1

    def __len__(self):
        return len(self.tree)

    def cut(self, *arrays):
        """Yield (which slices, their part of each array, with an index of slices first).

        arrays: (N, ...), of as many rows, or positions in rows.  Equal slices come together, as
        (V, N / V, ...); others one by one, as (1, n, ...).
        """
        V = len(self.tree)
        if self.equal:
            yield self.all, *[grouped(x, V) for x in arrays]
        else:
            for v in range(V):
                yield slice(v, v + 1), *[grouped(x[self.rows(v, len(x))], 1) for x in arrays]

    def rows(self, v, N):
        """Where slice v is among N rows, or among N positions in them."""
        if self.ends is None:
            return slice(0, N)
        each = N // max(1, self.ends[-1])
        return slice(each * self.ends[v], each * self.ends[v + 1])

    def alone(self):
        """The number of the slice, where there is one.  UncutError: there are more."""
        if len(self) > 1:
            raise UncutError(f"a sum over the rows of {len(self)} slices, expected those of one")
        return self.first


def grouped(x, V):
    """x, (N, ...), as (V, N / V, ...), where each slice lies in memory as it would by itself.

    BLAS adds by how a matrix lies, of which b may be the innermost index.
    """
    n = len(x) // V
    if x.ndim == 2 and x.strides[0] == x.itemsize and not x.flags.c_contiguous:
        return packed(x.T.reshape(x.shape[1], V, n).swapaxes(0, 1)).swapaxes(1, 2)
    return x.reshape(V, n, *x.shape[1:])


class UncutError(Exception):
    """Something is summed over all rows at hand, which are those of more than one slice."""


WHOLE = Slices()


def product_of_rows(x, W, slices):
    """y[n,j] = sum_i x[n,i] W[i,j], where each slice of x is a product of its own."""
    if slices is WHOLE or len(slices) == 1 < len(x):
        return product(x, W)
    y = np.empty((len(x), W.shape[1]), x.dtype, like=x)
    for _, part, out in slices.cut(x, y):
        product(part, W, out)
    return y


def affine_of_rows(x, W, C, slices):
    """y[n,j] = sum_i x[n,i] W[i,j] - C[j], where each slice of x is a product of its own."""
    if slices is WHOLE or len(slices) == 1 < len(x):
        return affine(x, W, C)
    y = np.empty((len(x), W.shape[1]), x.dtype, like=x)
    for _, part, out in slices.cut(x, y):
        affine(part, W, C, out)
    return y


@function
def parts_of(vectors, V):
    """(V, ...), not yet written, for what is then merged into vectors, (K, ...)."""
    return np.empty_like(vectors, shape=(V, *vectors.shape[1:]), order="C")


@on_gpu(parts_of)
def parts_on_gpu(vectors, V):
    # How a product is added may depend on the address of its result, so they begin as vectors do.
    shape, begin = (V, *vectors.shape[1:]), vectors.data.ptr % 256 // vectors.itemsize
    return np.empty_like(vectors, shape=(begin + prod(shape),))[begin:].reshape(shape)


@function
def product_in_tree(vectors, x, g, slices):
    """Leave in vectors, (K, I, J), what the tree of the slices makes of x^T g of each slice.

    Some lines of it are computed at a time: they are added while they are in the cache.
    x: (N, I); g: (N, J)
    """
    lines = max(UNROLLED, PANEL // max(1, g.shape[1]) // UNROLLED * UNROLLED)
    factors = [pair for _, *both in slices.cut(x, g) for pair in zip(*both, strict=True)]
    for low in range(0, vectors.shape[1], lines):
        panel = vectors[:, low : low + lines]
        for (x, g), (k, additions) in zip(factors, slices.tree, strict=True):
            product(x[:, low : low + lines].T, g, panel[k])
            for p, q in additions:
                panel[p] += panel[q]


@on_gpu(product_in_tree)
def product_in_tree_on_gpu(vectors, x, g, slices):
    if len(slices) == 1:
        k, additions = slices.tree[0]
        product(x.T, g, vectors[k])
        add_in_order(flat(vectors), additions, 0, vectors[0].size)
        return
    parts = parts_of(vectors, len(slices))
    for these, a, b in slices.cut(x, g):
        product(a.swapaxes(1, 2), b, parts[these])
    merge(vectors, parts, slices.tree)


@function
def merge(vectors, parts, tree):
    """Leave in vectors, (K, ...), what the tree makes of parts, (V, ...), one for each slice."""
    vectors, parts = flat(vectors), flat(parts)
    for low in range(0, parts.shape[1], CACHED):
        here = slice(low, low + CACHED)
        for part, (k, additions) in zip(parts[:, here], tree, strict=True):
            if additions:  # of which the first is of vector k, and saves the copy
                vectors[additions[0][0], here] += part
            else:
                vectors[k, here] = part
            for p, q in additions[1:]:
                vectors[p, here] += vectors[q, here]


@on_gpu(merge)
def merge_on_gpu(vectors, parts, tree):
    n, steps = parts[0].size, merging(tuple(tree), gpu.name)
    cuda.merge(n, vectors, parts, steps, len(steps), vectors.strides[0] // vectors.itemsize, n)


@cache
def merging(tree, gpu_name):
    """The steps of merge, (count, 3), on the GPU of this name: a graph cannot copy them again.

    (p, q, -1): vector p += vector q;  (p, -1, v): vector p += part v;  (p, p, v): vector p = part v
    """
    steps = []
    for v, (k, additions) in enumerate(tree):
        steps.append((additions[0][0], -1, v) if additions else (k, k, v))
        steps += [(p, q, -1) for p, q in additions[1:]]
    return gpu.put(np.array(steps, np.int64))


def flat(vectors):
    """Vectors, (K, ...), as (K, n)."""
    return vectors.reshape(len(vectors), prod(vectors.shape[1:]))


@function
def sum_of_rows(x, factor=1, out=None, add=False):
    """y[v,...] = factor sum_b x[v,b,...], of each slice, written into out, packed, if it is given

    With add, it is added to out.  What is summed is rounded to the type of out at the end.
    """
    if add:
        out += sum_of_rows(x, factor)
        return out
    if out is not None and (out.dtype != x.dtype or x.shape[1] > MANY):
        out[...] = sum_of_rows(x, factor)
        return out
    y = sum_of_axes(x, (1,)) if out is None else x.sum(axis=1, out=out)
    return y if factor == 1 else np.multiply(factor, y, out=y)


@on_gpu(sum_of_rows)
def sum_of_rows_on_gpu(x, factor=1, out=None, add=False):
    if x.dtype.name not in TYPES or (out is not None and out.dtype != x.dtype):
        return sum_of_rows.__wrapped__(x, factor, out, add)
    V, b, *shape = x.shape
    if b == factor == 1 and out is not None:  # nothing is added up
        np.add(out, x[:, 0], out=out) if add else np.copyto(out, x[:, 0])
        return out
    # 4 threads add up to FEW rows, 16 up to MANY; of more, each FEW have a sum of their own.
    n, parts = prod(shape), -(-b // FEW) if b > MANY else 1
    x = x.reshape(V, b, n)  # a copy, where these indices do not lie one after the other
    if parts > 1:
        sums = np.empty_like(x, shape=(V, parts, *shape), order="C")
        launch_sums(x, sums, 1, parts, False)
        return sum_of_rows_on_gpu(sums, factor, out, add)
    y = np.empty_like(x, shape=(V, *shape), order="C") if out is None else out
    launch_sums(x, y, factor, 1, add)
    return y


def launch_sums(x, y, factor, parts, add):
    """y: (V, parts, ...), of x, (V, b, n), factor times the sum over each part of the rows."""
    V, b, n = x.shape
    each, columns = (b, 8 if b <= FEW else 2) if parts == 1 else (FEW, 8)
    sizes = int(add), V, b, n, parts, each, columns, *strides_of(x)
    cuda.sum_of_rows(32 * V * parts * -(-n // columns), x, y, float(factor), *sizes)
