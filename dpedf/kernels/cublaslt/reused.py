"""What products read of a vector that stays as it is for a while, made once for all of them."""

import numpy as np

from dpedf.kernels import THREADS, gpu
from dpedf.kernels.cublaslt.operands import cuda


class Reused:
    """with reused: the vector is not written to, and the products of a Gemm find the copies here.

    rounded, negated: Pieces of the vector, in bfloat16 and with the other sign.
    """

    def __init__(self, vector, gemm):
        self.rounded = Pieces(vector, cuda.round_pieces, np.uint16)
        self.negated = Pieces(vector, cuda.negate_pieces, vector.dtype)
        self.gemm = gemm

    def __enter__(self):
        self.rounded.refresh()
        self.negated.refresh()
        self.gemm.reused = self

    def __exit__(self, error, *trace):
        self.gemm.reused = None
        if error is None and not self.gemm.bindings.stream.is_capturing():
            self.rounded.prepare()
            self.negated.prepare()


class Pieces:
    """Copies of pieces of a vector, changed by a kernel, all in one launch.

    The first `with` block only notes what is asked for; each use makes its own copy.  At its end
    there is room for all, which never grows, because graphs hold the addresses.  Each copy begins
    like an array of its own, at a multiple of THREADS numbers, because products depend on that.
    """

    def __init__(self, vector, change, dtype):
        self.vector, self.change, self.dtype = vector, change, dtype
        self.asked, self.places, self.copies, self.blocks = {}, {}, None, None

    def refresh(self):
        """Make the copies of what the vector is now."""
        if self.copies is not None:
            self.change(self.copies.size, self.vector, self.copies, self.blocks)

    def of(self, x):
        """The copy of x, packed, in its shape; None if there is none."""
        first = (x.data.ptr - self.vector.data.ptr) // x.itemsize
        if not x.size or first < 0 or first + x.size > self.vector.size:
            return None
        if self.copies is None:
            self.asked[first, x.size] = True
            return None
        place = self.places.get((first, x.size))
        return None if place is None else self.copies[place : place + x.size].reshape(x.shape)

    def prepare(self):
        """Make room for the copies of what was asked for."""
        if self.copies is not None or not self.asked:
            return
        lines, end = [], 0
        for first, size in self.asked:
            starts = np.arange(0, size, THREADS)
            lines.append(np.stack([first + starts, np.minimum(size - starts, THREADS)], axis=1))
            self.places[first, size] = end
            end += THREADS * len(starts)
        self.blocks = gpu.put(np.concatenate(lines))
        self.copies = np.empty_like(self.vector, shape=(end,), dtype=self.dtype)
        self.refresh()  # which compiles the kernel, before it is recorded
