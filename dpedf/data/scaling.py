"""How stored numbers become inputs: (x * scale - mean) / std.

Numbers of one or two bytes are scaled on the device, in the type of the run, which holds them all.
Larger ones are scaled in float64 as they are read, and rounded then: in float32, what they differ
in may be lost, or too large.
"""

import numpy as np

from dpedf.errors import UserError, one_line

NARROW = 2  # bytes of a number, at most: such are scaled on the device


class Scaling:
    """The attributes scale, mean and std of a file, whose rows have a shape; a text has none.

    scale, shift: on the device, x becomes x * scale + shift, both in the type of the run.
    UserError: they are no numbers for these rows.
    """

    def __init__(self, stored, shape, dtype):
        self.path, self.dtype = stored.path, dtype
        defaults = {"scale": 1, "mean": 0, "std": 1}
        scale, mean, std = self.exact = [
            self.numbers(name, stored.attribute(name, default), shape)
            for name, default in defaults.items()
        ]
        self.identity = not ((scale != 1).any() or mean.any() or (std != 1).any())
        with np.errstate(over="ignore"):
            self.scale, self.shift = (scale / std).astype(dtype), (-mean / std).astype(dtype)

    def numbers(self, name, found, shape):
        """An attribute, as float64."""
        numbers = np.asarray(found)
        try:
            np.broadcast_to(numbers, shape)
            fits = numbers.dtype.kind in "biuf" and np.isfinite(numbers).all()
        except ValueError:
            fits = False
        if not fits or (name == "std" and (numbers == 0).any()):
            what = f"numbers for rows of {shape}, and no std of 0"
            raise UserError(
                f"{self.path}: attribute {name} = {one_line(repr(found))}, expected {what}"
            )
        return numbers.astype(np.float64)

    def prepare(self, rows):
        """Have rows of x scaled as they are read, if the device is not to do it.

        UserError: what the device would scale them by is too large for it.
        """
        if rows.dtype.itemsize > NARROW:
            convert(rows, self.dtype, None if self.identity else self.exact)
        elif not (np.isfinite(self.scale).all() and np.isfinite(self.shift).all()):
            found = one_line(f"x * {self.scale} + {self.shift} by attributes scale, mean and std")
            raise UserError(f"{self.path}: {found}, expected what {self.dtype} can hold")


def convert(rows, dtype, scaling=None):
    """Have rows converted as they are read, if they are scaled or this type cannot hold them."""
    if scaling or not np.can_cast(rows.dtype, dtype):
        rows.convert(dtype, scaling)
