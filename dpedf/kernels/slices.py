"""Slices of the rows at hand: products of rows, and sums over rows.

What is computed row by row has the same bits whatever rows stand beside it, but for two things.
BLAS rounds the rows of a product by how many there are, so each slice is a product of its own; and
a sum over rows is first a sum over each slice, then over slices, in the tree of parallel/sums.py.
"""

from functools import cache
from math import prod

import numpy as np

from dpedf.kernels import Kernels, function, gpu, on_gpu, packed
from dpedf.kernels.gemm import JOINED, add_products, affine, product
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
        V = len(self)
        if self.equal:
            arrays = [packed(x) if len(x) == V else x for x in arrays]
            yield self.all, *(x.reshape(V, len(x) // V, *x.shape[1:]) for x in arrays)
        else:
            for v in range(V):
                parts = [x[None, self.rows(v, len(x))] for x in arrays]
                yield slice(v, v + 1), *map(by_itself, parts)

    def rows(self, v, N):
        """Where slice v is among N rows, or among N positions in them."""
        if self.ends is None:
            return slice(0, N)
        each = N // max(1, self.ends[-1])
        return slice(each * self.ends[v], each * self.ends[v + 1])

    def alone(self):
        """The number of the slice, where there is one.  UncutError: there are more."""
        if len(self) > 1:
            raise UncutError
        return self.first


def by_itself(x):
    """A slice, (1, n, ...), as it lies in memory where no other rows stand beside it.

    BLAS multiplies a single row by how it lies, so that is packed.  And where rows lie side by
    side, how a GPU adds may depend on how many there are, and on where the slice begins.
    """
    if x.shape[1] == 1:
        return packed(x)
    inner = zip(x.shape[2:], x.strides[2:], strict=True)
    side_by_side = any(size > 1 and stride > x.strides[1] for size, stride in inner)
    return x.copy(order="K") if side_by_side else x


class UncutError(Exception):
    """A sum over all rows at hand, which are those of more than one slice."""


WHOLE = Slices()


def product_of_rows(x, W, slices):
    """y[n,j] = sum_i x[n,i] W[i,j], where each slice of x is a product of its own."""
    if len(slices) == 1 < len(x):
        return product(x, W)
    y = np.empty((len(x), W.shape[1]), x.dtype, like=x)
    for _, part, out in slices.cut(x, y):
        product(part, W, out)
    return y


def affine_of_rows(x, W, C, slices):
    """y[n,j] = sum_i x[n,i] W[i,j] - C[j], where each slice of x is a product of its own."""
    if len(slices) == 1 < len(x):
        return affine(x, W, C)
    y = np.empty((len(x), W.shape[1]), x.dtype, like=x)
    for _, part, out in slices.cut(x, y):
        affine(part, W, C, out)
    return y


@function
def parts_of(vectors, V):
    """(V, ...), not yet written, for what is then merged into vectors, (K, ...)."""
    return np.empty_like(vectors, shape=(V, *vectors.shape[1:]))


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
    if slices is WHOLE:
        product(x.T, g, vectors[0])
        return
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
    n, stride, steps = (
        parts[0].size,
        vectors.strides[0] // vectors.itemsize,
        merging(tree, gpu.name),
    )
    cuda.merge(n, vectors, parts, steps, len(steps), stride, n)


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
def sum_of_rows(x, factor=1):
    """y[v,...] = factor sum_b x[v,b,...], of each slice"""
    y = x.sum(axis=1)
    return y if factor == 1 else factor * y


@on_gpu(sum_of_rows)
def sum_of_rows_on_gpu(x, factor=1):
    V, b, *shape = x.shape
    n, y = prod(shape), np.empty_like(x, shape=(V, *shape), order="C")
    x = x.reshape(V, b, n)  # a copy, where these indices do not lie one after the other
    sizes = V, b, n, *(stride // x.itemsize for stride in x.strides)
    cuda.sum_of_rows(32 * V * -(-n // 8), x, y, float(factor), *sizes)  # a warp for 8 numbers
    return y


class SumOverRows:
    """What the users of a node without b add to its gradient while one pass runs backward.

    like: the value of the node.  slices: those of the pass.
    grads: (K, ...), of a parameter, where finish leaves what the tree makes of the sums.
    parts: (V, ...), the sum over each slice; begun: which of them something was added to.
    products: (x, g) of x^T g that wait.  A first one waits to be the only one.
    """

    def __init__(self, like, slices=WHOLE, grads=None):
        self.like, self.slices, self.grads = like, slices, grads
        self.parts, self.begun, self.products = None, [False] * len(slices), []
        if grads is not None and len(slices) == 1:
            k = slices.tree[0][0]
            self.parts = grads[k : k + 1]

    def __bool__(self):
        """Was something added?"""
        return bool(self.products) or any(self.begun)

    def add(self, delta, slices):
        """Add a sum over the rows of one slice.  UncutError: it is that of several."""
        at = slices.alone()
        self.add_slices(slice(at, at + 1), delta)

    def add_slices(self, these, delta):
        """Add the sum over the rows of these slices, delta[v] of each."""
        self.open()
        if all(self.begun[these]):
            part = self.parts[these]
            part += delta
        else:
            self.parts[these] = delta
            self.begun[these] = [True] * len(self.begun[these])

    def add_rows(self, delta, slices, factor=1):
        """Add factor sum_n delta[n], over the rows or positions n of each slice."""
        over = delta.shape[: delta.ndim - self.like.ndim]
        for these, part in slices.cut(delta.reshape(prod(over), *self.like.shape)):
            self.add_slices(these, sum_of_rows(part, factor))

    def add_product(self, x, g, slices):
        """Add x^T g of each slice: the first at once, later ones, as of time steps, in groups."""
        if slices is not self.slices:  # that of a node without b, in the backward of one slice
            self.add(product(x.T, g).reshape(self.like.shape), slices)
        elif not self:
            self.products.append((x, g))
        else:
            self.open()
            self.products.append((x, g))
            if len(self.products) == JOINED:
                self.join()

    def open(self):
        """Make parts and, if a first product waits, compute it there."""
        if self.parts is None:
            vectors = np.expand_dims(self.like, 0) if self.grads is None else self.grads
            self.parts = parts_of(vectors, len(self.slices))
        if self.products and not any(self.begun):
            for these, x, g in self.slices.cut(*self.products.pop()):
                product(x.swapaxes(1, 2), g, self.matrices(these, x, g))
            self.begun = [True] * len(self.begun)

    def join(self):
        """Add the products that wait."""
        arrays = [array for pair in self.products for array in pair]
        for these, *parts in self.slices.cut(*arrays) if arrays else ():
            pairs = list(zip(parts[::2], parts[1::2], strict=True))
            add_products(pairs, self.matrices(these, *pairs[0]))
        self.products = []

    def matrices(self, these, x, g):
        """The parts of these slices as matrices x^T g: the value may be a vector."""
        return self.parts[these].reshape(len(x), x.shape[2], g.shape[2])

    def own(self, slices):
        """The sum over one slice, which the caller may add to in place.  UncutError: as add."""
        at = slices.alone()
        self.open()
        if not self.begun[at]:
            self.parts[at], self.begun[at] = 0, True
        return self.parts[at, ...]

    def so_far(self):
        """parts, with all that was added."""
        self.open()
        self.join()
        for v, begun in enumerate(self.begun):
            if not begun:
                self.parts[v], self.begun[v] = 0, True
        return self.parts

    def finish(self):
        """Leave what the tree makes of the sums in grads."""
        if self.products and not any(self.begun):  # the only one
            x, g = self.products.pop()
            vectors = self.grads.reshape(-1, x.shape[1], g.shape[1])
            product_in_tree(vectors, x, g, self.slices)
        elif len(self.slices) == 1:
            self.so_far()
            add_in_order(flat(self.grads), self.slices.tree[0][1], 0, self.like.size)
        else:
            merge(self.grads, self.so_far(), self.slices.tree)
