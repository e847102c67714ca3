"""What cuBLASLt reads and writes: matrices as it describes them, in the precision that it reads."""

import numpy as np

from dpedf.kernels import Kernels, packed

cuda = Kernels("cublaslt/operands.cu")


def expect_factors(a, b):
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"{a.shape} @ {b.shape}, expected equal inner indices")
    if a.dtype != b.dtype:
        raise ValueError(f"{a.dtype} @ {b.dtype}, expected one type")


def in_numbers(x):
    """The strides of the last two indices."""
    return [stride // x.itemsize for stride in x.strides[-2:]]


def by_columns(x):
    """Do matrices x, (..., i, k), lie in memory by columns, rather than by rows?"""
    (I, K), (i, k) = x.shape[-2:], in_numbers(x)
    return K > 1 and k != 1 and (I == 1 or i < k)


def rounded(x, copy_of=None):
    """x in bfloat16, the bits, by rows or by columns as x lies.

    copy_of(x): what was made of a packed x before; None if nothing was.
    """
    swapped = by_columns(x)
    x = packed(x.swapaxes(-1, -2) if swapped else x)
    r = copy_of(x) if copy_of else None
    if r is None:
        r = np.empty_like(x, dtype=np.uint16)
        cuda.round_to_bfloat16(x.size, x, r, x.size)
    return r.swapaxes(-1, -2) if swapped else r


class Operand:
    """Matrices x, (..., i, k), one for each index of batch, as cuBLASLt reads them.

    rows, columns, leading: of x.T where x lies by rows, of x where it is transposed.
    step: numbers from one matrix to the next.
    alignment: in bytes, what an algorithm may rely on.  All lines of all matrices have it, so that
    it is the same wherever a slice begins; a single line may begin at any number.
    """

    def __init__(self, x, batch):
        self.transposed = int(by_columns(x))
        x = x.swapaxes(-1, -2) if self.transposed else x
        if x.ndim > 2:
            x = np.broadcast_to(x, (*batch, *x.shape[-2:])).reshape(-1, *x.shape[-2:])
        self.columns, self.rows = x.shape[-2:]
        line, number = in_numbers(x)
        if (self.rows > 1 != number) or (self.columns > 1 and line < self.rows):
            x = x.copy()
            line = self.rows
        self.x, self.pointer = x, x.data.ptr
        self.leading = line if self.columns > 1 else self.rows
        self.step = x.strides[0] // x.itemsize if x.ndim > 2 and len(x) > 1 else 0
        numbers = self.rows | self.leading | self.step if self.columns > 1 else 1
        bits = self.pointer | 256 | x.itemsize * numbers
        self.alignment = bits & -bits
        layout = self.rows, self.columns, self.leading, self.step
        self.key = *layout, self.transposed, self.alignment

    def at(self, k):
        """The address of matrix k."""
        return self.pointer + k * self.step * self.x.itemsize
