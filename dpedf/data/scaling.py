"""How stored numbers become inputs: (x * scale - mean) / std.

Numbers of one or two bytes are scaled on the device, in the type of the run.  Larger ones, and all
that are far from their mean or may become too large, are scaled in float64 as they are read, and
rounded then: in float32, what they differ in may be lost.  If it may be lost in float64 as well,
they are scaled in NumPy's longdouble.
"""

import numpy as np

from dpedf.errors import UserError, one_line

NARROW = 2  # bytes of a number, at most: such are scaled on the device
SCALING = {"scale": 1, "mean": 0, "std": 1}  # attributes of a file, and what they are without
# How many std a mean may be from 0, where it is subtracted in the type of the run, and in float64.
FAR, VERY_FAR = 2**6, 2**26


class Scaling:
    """The attributes scale, mean and std of a file, whose rows have a shape; a text has none.

    known: what they are where the file does not say.
    scale, shift: on the device, x becomes x * scale + shift, both in the type of the run.
    UserError: they are no numbers for these rows.
    """

    def __init__(self, stored, shape, dtype, known=SCALING):
        self.path, self.dtype = stored.path, dtype
        scale, mean, std = self.exact = [
            self.numbers(name, stored.attribute(name, default), shape)
            for name, default in known.items()
        ]
        self.identity = not ((scale != 1).any() or mean.any() or (std != 1).any())
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            if not (np.abs(mean / std) > VERY_FAR).any():
                scale, mean, std = self.exact = [its.astype(np.float64) for its in self.exact]
            self.scale, self.shift = (scale / std).astype(dtype), (-mean / std).astype(dtype)

    def numbers(self, name, found, shape):
        """An attribute, as the longest floats."""
        try:
            numbers = np.asarray(found)
            np.broadcast_to(numbers, shape)
            fits = numbers.dtype.kind in "biuf" and np.isfinite(numbers).all()
        except ValueError:
            fits = False
        if not fits or (name == "std" and (numbers == 0).any()):
            what = f"numbers for rows of {shape}, and no std of 0"
            raise UserError(
                f"{self.path}: attribute {name} = {one_line(repr(found))}, expected {what}"
            )
        return numbers.astype(np.longdouble)

    def prepare(self, rows):
        """Have rows of x scaled as they are read, if the device is not to do it."""
        if rows.dtype.itemsize > NARROW or not self.fits_device(rows.dtype):
            convert(rows, self.dtype, None if self.identity else self.exact)

    def fits_device(self, dtype):
        """Does every x of this type become x * scale + shift, in the type of the run?"""
        limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
        with np.errstate(over="ignore"):
            largest = np.abs(self.scale) * float(limits.max)
            return np.isfinite(largest).all() and (np.abs(self.shift) <= FAR).all()


def convert(rows, dtype, scaling=None):
    """Have rows converted as they are read, if they are scaled or this type cannot hold them."""
    if scaling or not np.can_cast(rows.dtype, dtype):
        rows.convert(dtype, scaling)
