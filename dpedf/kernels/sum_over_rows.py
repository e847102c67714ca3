"""The gradient of what has no batch index: a sum over rows, or over the rows of each slice."""

from math import prod

import numpy as np

from dpedf.kernels.gemm import JOINED, add_products, product
from dpedf.kernels.slices import (
    WHOLE,
    Slices,
    flat,
    merge,
    parts_of,
    product_in_tree,
    sum_of_rows,
)
from dpedf.kernels.vector import add_in_order


class SumOverRows:
    """What the users of a node without b add to its gradient, where all rows are one slice.

    like: the value of the node.  grads: (1, ...), where the sum goes; None: somewhere.
    products: (x, g) of x^T g that wait.
    """

    def __init__(self, like, grads=None):
        self.like, self.begun, self.products = like, False, []
        self.grad = np.empty_like(like, order="C") if grads is None else grads[0, ...]

    def __bool__(self):
        """Was something added?"""
        return self.begun

    def add(self, delta, slices=WHOLE):
        """Add what is summed over rows."""
        if self.begun:
            self.grad += delta
        else:
            self.grad[...], self.begun = delta, True

    def add_slices(self, these, delta):
        """Add delta[0], what is summed over the rows of the one slice."""
        self.add(delta[0])

    def add_rows(self, delta, slices=WHOLE, factor=1):
        """Add factor sum_n delta[n], over rows or positions in rows."""
        rows = rows_of(delta, self.like)[None]
        sum_of_rows(rows, factor, self.grad[None], self.begun)
        self.begun = True

    def add_product(self, x, g, slices=WHOLE):
        """Add x^T g: the first at once, later ones, as of time steps, in groups of JOINED."""
        expect_product(x, g, self.like)
        if self.begun:
            self.products.append((x, g))
            if len(self.products) == JOINED:
                self.join()
        else:
            product(x.T, g, self.grad.reshape(x.shape[1], g.shape[1]))
            self.begun = True

    def join(self):
        """Add the products that wait."""
        x, g = self.products[0]
        add_products(self.products, self.grad.reshape(x.shape[1], g.shape[1]))
        self.products = []

    def own(self, slices=WHOLE):
        """The sum, which the caller may add to in place."""
        if not self.begun:
            self.grad[...], self.begun = 0, True
        return self.grad

    def finish(self):
        """Leave in grads[0] the sum of all that was added, and return it."""
        if self.products:
            self.join()
        return self.own()

    def so_far(self):
        """(1, ...): the sum, of all that was added."""
        return self.finish()[None]

    def apart(self, together=False):
        """Yield (the sum over a slice, the Slices of it alone) for each slice."""
        yield self.finish(), WHOLE


class SumOverSlices:
    """The same for slices of which each is summed by itself, and then in their tree.

    grads: (K, ...), of a parameter: where finish leaves what the tree makes of the sums.
    parts: (V, ...), the sum over each slice; begun: which of them something was added to.
    A first product waits as well: if it remains the only one, product_in_tree makes it.
    """

    def __init__(self, like, grads, slices):
        self.like, self.slices, self.grads = like, slices, grads
        self.parts, self.begun, self.products = None, [False] * len(slices), []
        if grads is not None and len(slices) == 1:
            k = slices.tree[0][0]
            self.parts = grads[k : k + 1]

    def __bool__(self):
        return bool(self.products) or any(self.begun)

    def add(self, delta, slices):
        """Add a sum over the rows of one slice.  UncutError: it is that of several."""
        at = slices.alone()
        self.add_slices(slice(at, at + 1), delta)

    def add_slices(self, these, delta):
        """Add the sum over the rows of each of these slices, delta[v]."""
        self.open()
        if self.begin(these):
            self.parts[these] = delta
        else:
            part = self.parts[these]
            part += delta

    def begin(self, these):
        """Was nothing added to the sums of these slices?  From now on, something is."""
        begun = all(self.begun[these])
        self.begun[these] = [True] * len(self.begun[these])
        return not begun

    def add_rows(self, delta, slices, factor=1):
        """Add factor sum_n delta[n], over the rows of each slice or positions in them."""
        self.open()
        for these, part in slices.cut(rows_of(delta, self.like)):
            sum_of_rows(part, factor, self.parts[these], not self.begin(these))

    def add_product(self, x, g, slices):
        """Add x^T g of each slice: the first, and then groups of JOINED."""
        expect_product(x, g, self.like)
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
        if self.products:
            arrays = [array for pair in self.products for array in pair]
            for these, *parts in self.slices.cut(*arrays):
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
                self.own(Slices(first=v))
        return self.parts

    def apart(self, together=False):
        """Yield (the sum over a slice, the Slices of it alone) for each slice.

        together: yield those of all slices at once, as one row each.
        """
        parts = self.so_far()
        if together:
            yield parts, Slices(range(len(parts) + 1), self.slices.tree, self.slices.first)
            return
        for v in range(len(parts)):
            yield parts[v, ...], Slices(first=v)

    def finish(self):
        """Leave what the tree makes of the sums in grads, and return grads[0]."""
        if self.products and not any(self.begun):  # the only one
            x, g = self.products.pop()
            shape = len(self.grads), x.shape[1], g.shape[1]
            product_in_tree(self.grads.reshape(shape), x, g, self.slices)
        elif len(self.slices) == 1:
            self.so_far()
            add_in_order(flat(self.grads), self.slices.tree[0][1], 0, self.like.size)
        else:
            merge(self.grads, self.so_far(), self.slices.tree)
        self.parts, self.begun = None, [False] * len(self.slices)  # V gradients need much memory
        return self.grads[0, ...]


def expect_product(x, g, like):
    """ValueError: x^T g has another shape than like, all indices of which but the first are one."""
    shape = x.shape[1], g.shape[1]
    if shape != (*like.shape[:1], prod(like.shape[1:])):
        raise ValueError(f"x^T g of x {x.shape} and g {g.shape}, expected shape {like.shape}")


def rows_of(delta, like):
    """delta with all indices before those of like as one."""
    over = delta.ndim - like.ndim
    return delta if over == 1 else delta.reshape(prod(delta.shape[:over]), *like.shape)


def sum_over_rows(like, grads, slices):
    """What collects the gradient of a node without b, while these slices run backward."""
    return SumOverRows(like, grads) if slices is WHOLE else SumOverSlices(like, grads, slices)
