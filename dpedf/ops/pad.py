"""Something around a value, such as a margin of zeros around images."""

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import floats, is_integer
from dpedf.ops.indices import a_number, copy_equations, indexed, letters_of, whole


class Pad(CompNode):
    """y[b,...] = x[b,...], with a value, such as 0, before and after it along each axis

    x.grad[b,...] += y.grad[b,...], the part that it became

    widths: (before, after) for each axis after b, the first one first, as NumPy's pad has them:
    [(0, 0), (2, 2), (2, 2)] of images, (B, I, H, W); value: what stands there, fill
    """

    def __init__(self, x, widths, value=0):
        pairs = list(widths) if np.iterable(widths) else []
        if not pairs or not all(np.shape(pair) == (2,) and min(pair) >= 0 for pair in pairs):
            raise ValueError(f"Pad by {widths!r}, expected pairs (before, after), at least 0")
        self.x, self.widths = x, [whole(self, pair) for pair in pairs]
        self.fill = a_number(self, value=value)

    def forward(self):
        x, fill, b = self.x.value, self.fill, self.x.batched
        if x.ndim != b + len(self.widths):
            expected = f"a pair (before, after) for each of {x.ndim - b} axes"
            raise ValueError(f"expected {expected}, not {self.widths}")
        if is_integer(x) and fill.is_integer():  # a label remains one
            fill = int(fill)
            dtype = np.result_type(x.dtype, np.min_scalar_type(fill))
        else:
            (x,) = floats(x)
            dtype = x.dtype
        sizes = [*zip([(0, 0)] * b + self.widths, x.shape, strict=True)]
        self.part = tuple(slice(before, before + size) for (before, _), size in sizes)
        self.value = np.empty([size + sum(pair) for pair, size in sizes], dtype, like=x)
        self.value[...] = fill
        self.value[self.part] = x

    def backward(self):
        self.x.addgrad(self.grad[self.part])

    def equations(self):
        """Those of these widths: y[b,i,j] = x[b,i - 2,j - 2], where 0 stands beside x."""
        y, pairs = letters_of(self), [(0, 0)] * self.x.batched + self.widths
        x = [f"{i} - {before}" if before else i for i, (before, _) in zip(y, pairs, strict=True)]
        if not self.fill:
            return copy_equations(y, x)
        return f"""{indexed("y", y)} = fill + {indexed("difference", x)}
        {indexed("difference", y)} = {indexed("x", y)} - fill

        {indexed("x.grad", x)} += {indexed("y.grad", y)}"""
