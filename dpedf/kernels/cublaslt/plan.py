"""How cuBLASLt multiplies matrices of one shape: planned when it is first met, then launched."""

from contextlib import suppress
from functools import partial

import numpy as np

from dpedf.kernels.cublaslt.operands import Operand, rounded
from dpedf.kernels.philox import uniform

FEWEST = 1024  # sums: of fewer, none may show that they are added in another order


class Plan:
    """count products C = A B, or with add C += A B, plus a bias if given.

    The first algorithm that cuBLASLt proposes for one of them, of packed matrices, decides on the
    bits, so that these depend on the shape of a slice alone.  What it proposes is tried on random
    numbers, whose last bits show another order of addition.  Of those that make all products in
    one launch, with the bits of the first for each by itself, the fastest is taken: which one that
    is, no other rank and no later run has to know.

    operands: A, B and C.  kinds: the compute type, and the data types of scales, of what is read,
    and of what is written.  bias: the address of one, or None.
    algorithm: None, if there is none.  at_once: does it make all products in one launch?
    """

    def __init__(self, bindings, operands, count, kinds, bias, add):
        self.bindings, self.count, self.add = bindings, count, add
        A, B, C = operands
        compute, scale, reads, writes = kinds
        self.kinds, self.dtype = (reads, reads, writes), C.x.dtype.name
        self.desc = bindings.description(compute, scale, (A.transposed, B.transposed), bias)
        alone = self.layouts_of(operands, packed=True)
        self.layouts = self.layouts_of(operands, count)
        offers = bindings.offers(self.desc, alone, [x.alignment for x in operands])
        chosen = self.choose(offers, alone, operands)
        self.at_once = chosen is not None
        self.algorithm = chosen if self.at_once else next(iter(offers), None)
        if not self.at_once:
            self.layouts = self.layouts_of(operands)
        bindings.forget(alone)

    def layouts_of(self, operands, count=1, packed=False):
        return [
            self.bindings.layout(x, kind, x.rows if packed else x.leading, count)
            for x, kind in zip(operands, self.kinds, strict=True)
        ]

    def choose(self, offers, alone, operands):
        """The algorithm that makes all products at once, or None."""
        bindings = self.bindings
        able = [x for x in offers if bindings.takes(self.desc, self.layouts, x)]
        if self.count * len(able) > 1 and not bindings.stream.is_capturing():
            with suppress(MemoryError):  # of what it takes beside the products themselves
                able = self.like_the_first(offers[0], able, alone, operands)
                return self.fastest(able, operands) if len(able) > 1 else next(iter(able), None)
        return next((x for x in able if x is offers[0]), None)

    def like_the_first(self, first, algorithms, alone, operands):
        """Those that make all products at once with the bits of the first for each by itself.

        alone: the layouts of one product, packed.
        """
        bindings = self.bindings
        A, B, C = numbers = [random_numbers(x, self.dtype, k) for k, x in enumerate(operands)]
        before, after = C.x.copy(), Operand(C.x.copy(), C.x.shape[:1])
        for k in range(self.count):
            self.start(alone, first, numbers, k)
        at_once = self.layouts_of(numbers, self.count)
        same = []
        for algorithm in algorithms:
            if algorithm is first or C.x.size >= FEWEST:
                after.x[...] = before
                with suppress(bindings.lt.cuBLASLtError):  # it does not multiply packed matrices
                    self.start(at_once, algorithm, (A, B, after))
                    if (after.x == C.x).all():
                        same.append(algorithm)
        bindings.forget(at_once)
        return same

    def fastest(self, algorithms, operands):
        if not self.bindings.times:
            return algorithms[0]
        out = operands[2].x
        kept = out.copy() if self.add else out
        starts = [partial(self.start, self.layouts, x, operands) for x in algorithms]
        times = self.bindings.times(starts)
        if self.add:
            out[...] = kept
        return algorithms[times.index(min(times))]

    def launch(self, operands, bias):
        if bias is not None:
            self.bindings.set_bias(self.desc, bias)
        for k in range(1 if self.at_once else self.count):
            self.start(self.layouts, self.algorithm, operands, k)

    def start(self, layouts, algorithm, operands, k=0):
        """Launch the product of matrices k, or of all from there on that layouts have."""
        addresses = [x.at(k) for x in operands]
        self.bindings.launch(self.desc, layouts, algorithm, addresses, self.dtype, self.add)


def random_numbers(operand, dtype, node):
    """Operands of the same shape, packed, of numbers of both signs and of many sizes.

    So their sums are rounded even in bfloat16, of which some products of like size add up exactly.
    """
    shape = len(operand.x) if operand.step else 1, operand.columns, operand.rows
    u = uniform(np.empty_like(operand.x, shape=shape, dtype=dtype, order="C"), 0, node, 0, 0)
    x = np.sinh(24 * u - 12)
    return Operand(rounded(x) if operand.x.dtype == np.uint16 else x, shape[:1])
