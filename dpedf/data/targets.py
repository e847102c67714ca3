"""The targets of a regression: what they are called, and how y was made of them.

data/table.py may write (target - mean) / std for y, which is what a model then learns.
"""

from math import prod

import msgspec
import numpy as np

from dpedf.data.columns import REMEDY
from dpedf.errors import UserError, one_line, plural

KEYS = "targets", "target_mean", "target_std"  # attributes of a file


class Targets(msgspec.Struct, frozen=True):
    """The targets of a row of y.

    names: of them; () where the file has none.  mean, std: by which each was standardised; ()
    where y holds the targets as they are.
    """

    names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def expect(self, here, path):
        """UserError: what a file says of its targets is not the same."""
        if self.names and here.names and self.names != here.names:
            found, expected = (f"targets {', '.join(its.names)}" for its in (here, self))
        elif (self.mean, self.std) != (here.mean, here.std):
            found, expected = here.described(), self.described()
        else:
            return
        raise UserError(f"{path}: {found}, expected {expected} as in the run; {REMEDY}")

    def described(self):
        if not self.std:
            return "y as it is"
        mean, std = (", ".join(f"{x:.10g}" for x in its) for its in (self.mean, self.std))
        return f"y standardised by mean {mean} and std {std}"

    def notes(self):
        """Lines for the user."""
        if self.std:
            of = "its std" if len(self.std) == 1 else "the std of each"
            std = ", ".join(f"{its:g}" for its in self.std)
            yield f"y is standardised: MAE and RMSE are in units of {of}, {std}"

    def as_in_table(self, y):
        """The targets, in their own units, of some rows of y."""
        if not self.std:
            return y
        mean, std = (np.reshape(its, y.shape[1:]) for its in (self.mean, self.std))
        return y.astype(np.float64) * std + mean


def targets_of(stored, shape):
    """The Targets of rows of y of this shape, as a file says them.

    UserError: it says them of other rows.
    """
    n, (names, mean, std) = prod(shape), (stored.attribute(key, None) for key in KEYS)
    names = () if names is None else tuple(map(str, np.atleast_1d(names)))
    if len(names) not in (0, n):
        found, expected = f"targets = {plural(len(names), 'name')}", f"{n}, as y has"
        raise UserError(f"{stored.path}: attribute {found}, expected {expected}")
    if mean is None and std is None:
        return Targets(names)
    both = {"target_mean": 0.0 if mean is None else mean, "target_std": 1.0 if std is None else std}
    for key, its in both.items():
        numbers = np.atleast_1d(its)
        fits = numbers.dtype.kind in "iuf" and numbers.shape in ((n,), (1,))
        if not fits or not np.isfinite(numbers).all() or (key == "target_std" and 0 in numbers):
            found = f"attribute {key} = {one_line(repr(its))[:80]}"
            raise UserError(f"{stored.path}: {found}, expected {plural(n, 'number')}, no std of 0")
        both[key] = tuple(np.broadcast_to(numbers, n).astype(float).tolist())
    return Targets(names, *both.values())
