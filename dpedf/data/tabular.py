"""What the columns of a table become: numbers, codes of categories, labels.

The rows are looked at once, those to train for what they are like, and then encoded.
Columns are pyarrow's arrays.
"""

import numpy as np

from dpedf.errors import UserError, plural

OTHER = "(other)"  # the name of code 0
FEW = 10  # categories that may be as many as the rows
MANY = 1_000_000  # categories of a column, at most
NARROW = 2.0**-24  # how far float32 rounds a number, by its size
FINE = 1e-3  # how far, at most, by the std of its column


class Numbers:
    """A column of numbers.

    mean, std: of the rows to train, as they are encoded; std is 1 where they are all one number.
    missing: how many have no value, which becomes the mean, or where zero is true 0.
    scaled: are they encoded as (x - mean) / std?
    """

    names = ()

    def __init__(self, name, zero=False, scaled=False):
        self.name, self.zero, self.scaled = name, zero, scaled
        self.missing = self.rows = self.n = 0
        self.mean, self.squares = 0.0, 0.0  # of the n values so far; the squares from their mean
        self.low, self.high, self.largest = np.inf, -np.inf, 0.0

    def look(self, array, train):
        x = self.values(array)
        here = np.isfinite(x)
        if (infinite := ~here & ~np.isnan(x)).any():
            raise UserError(f"column {self.name}: {x[infinite][0]}, expected finite numbers")
        self.missing += int((~here).sum())
        if self.zero:
            x, here = np.where(here, x, 0), here | True
        self.largest = max(self.largest, np.abs(x[here]).max(initial=0))
        self.rows += int(train.sum())
        if n := len(x := x[here & train]):
            self.low, self.high = min(self.low, x.min()), max(self.high, x.max())
            with np.errstate(over="ignore", invalid="ignore"):
                mean, self.n = x.mean(), self.n + n
                step = mean - self.mean
                self.squares += ((x - mean) ** 2).sum() + step**2 * n * (self.n - n) / self.n
                self.mean += step * n / self.n

    def finish(self):
        """Notes, a line each.  UserError: there is nothing to learn from."""
        if not self.n:
            raise UserError(f"column {self.name}: no value to train, expected --drop {self.name}")
        self.std = float(np.sqrt(self.squares / self.rows))
        if not np.isfinite(self.std):
            found = f"column {self.name}: {self.largest:g}, so that its std is no number"
            raise UserError(f"{found}, expected smaller ones, or --drop {self.name}")
        if self.low == self.high:
            self.mean, self.std = self.low, 1.0
            return [f"column {self.name} is {self.low:g} in all rows to train"]
        return []

    @property
    def narrow(self):
        """Does float32 keep what the numbers differ in?"""
        return self.scaled or self.largest * NARROW <= FINE * self.std

    def encode(self, array):
        x = self.values(array)
        x = np.where(np.isnan(x), 0 if self.zero else self.mean, x)
        return (x - self.mean) / self.std if self.scaled else x

    def values(self, array):
        """In float64, nan where there is none."""
        return array.cast("float64", safe=False).to_numpy(zero_copy_only=False)


class Categories:
    """A column of texts or truth values, read as categories.

    kind: of the texts, in whose order the codes are.  names: of the codes; 0 stands for all
    texts that no row to train has.
    """

    mean, std, narrow, first = 0, 1, True, 1

    def __init__(self, name, kind, names=()):
        self.name, self.names, self.found = name, names, set()
        self.missing = self.rows = 0
        self.key = {"integer": int, "number": float}.get(kind)

    def look(self, array, train):
        from pyarrow import array as arrow

        self.missing, self.rows = self.missing + array.null_count, self.rows + int(train.sum())
        found = array.filter(arrow(train)).drop_null().cast("string").unique()
        self.found.update(found.to_pylist())
        if len(self.found) > MANY:
            found = f"column {self.name}: more than {MANY:,} categories"
            raise UserError(f"{found}, expected fewer, or --drop {self.name}")

    def finish(self):
        """The same as of Numbers."""
        self.names = [*[OTHER] * self.first, *sorted(self.found, key=self.key)]
        n = len(self.found)
        if n == 1:
            return [f"column {self.name} has one category, {self.names[-1]}"]
        if n > max(self.rows // 2, FEW):
            return [f"column {self.name} has {n:,} categories in {self.rows:,} rows: --drop it?"]
        return []

    def encode(self, array):
        from pyarrow import array as arrow
        from pyarrow import compute

        known = arrow(self.names[self.first :], "string")
        codes = compute.index_in(array.cast("string"), known)
        return codes.fill_null(-1).to_numpy() + self.first


class Labels(Categories):
    """A target of classes, which have to be those of all rows."""

    first = 0

    def look(self, array, train):
        super().look(array, train | True)

    def encode(self, array):
        codes = super().encode(array)
        if (codes < 0).any():
            found = array[int(np.argmin(codes))].as_py()
            known = ", ".join(map(str, self.names[:20]))
            raise UserError(f"column {self.name}: {found!r}, expected one of {known}")
        return codes.astype(np.min_scalar_type(len(self.names) - 1))


def stacked(columns, block):
    """The columns of a block side by side, in a type that keeps what they differ in."""
    dtype = np.float32 if all(its.narrow for its in columns) else np.float64
    return np.stack([its.encode(block[its.name]) for its in columns], axis=1).astype(dtype)


def expect_complete(columns, targets, may_miss):
    """UserError: values are missing, of a target or where they may not."""
    for target in targets:
        if target.missing:
            found = f"column {target.name}, a target: {plural(target.missing, 'missing value')}"
            raise UserError(f"{found}, expected rows that all have one")
    holes = [f"{its.missing:,} in {its.name}" for its in columns if its.missing]
    if holes and not may_miss:
        shown = ", ".join(holes[:8]) + f" and {len(holes) - 8} more columns" * (len(holes) > 8)
        what = "--missing mean or zero (a category becomes code 0), or --drop COLUMN"
        raise UserError(f"missing values: {shown}; expected {what}")
