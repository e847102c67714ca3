"""What the columns of a table become: numbers, codes of categories, labels.

The rows are looked at once, those to train for what they are like, and then encoded.
Columns are pyarrow's arrays.
"""

from functools import cached_property

import numpy as np

from dpedf.data.kinds import REAL, by_value, value_of
from dpedf.errors import UserError, plural

OTHER = "(other)"  # the name of code 0
FEW = 10  # categories that may be as many as the rows
MANY = 1_000_000  # categories of a column, at most
NARROW = 2.0**-24  # how far float32 rounds a number, by its size
TINY, HUGE = 2.0**-149, float(np.finfo(np.float32).max)  # between which float32 has numbers
WHOLE = 2.0**53  # up to here, float64 has all integers
FINE = 1e-3  # how far, at most, by the std of its column


class Numbers:
    """A column of numbers.

    mean, std: of the rows to train, as they are encoded; std is 1 where they are all one number.
    missing: how many have no value, which becomes the mean, or where zero is true 0.
    scaled: are they encoded as (x - mean) / std?  binary: are all 0 or 1?
    """

    names = ()

    def __init__(self, name, zero, scaled, mean, std):
        self.name, self.zero, self.scaled, self.mean, self.std = name, zero, scaled, mean, std
        self.missing = self.rows = self.n = 0
        self.squares = 0.0  # of the n values so far, from their mean
        self.low, self.high, self.largest = np.inf, -np.inf, 0.0
        self.binary = True

    def look(self, array, train):
        x = self.values(array)
        here = np.isfinite(x)
        if (infinite := ~here & ~np.isnan(x)).any():
            raise UserError(f"column {self.name}: {x[infinite][0]}, expected finite numbers")
        self.missing += int((~here).sum())
        if self.zero:
            x, here = np.where(here, x, 0), here | True
        self.largest = max(self.largest, np.abs(x[here]).max(initial=0))
        self.binary &= bool(np.isin(x[here], (0, 1)).all())
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
        if self.low == self.high and self.largest < WHOLE:  # beyond, they may have differed
            self.mean, self.std = self.low, 1.0
            return [f"column {self.name} is {self.low:g} in all rows to train"]
        if self.largest / WHOLE > FINE * self.std:
            found = (
                f"column {self.name}: numbers of {self.largest:g} differ by less than float64 keeps"
            )
            raise UserError(f"{found}, expected others, or --categories or --drop {self.name}")
        return []

    @property
    def narrow(self):
        """Does float32 keep what the numbers differ in?"""
        if self.scaled:
            return (self.largest + abs(self.mean)) / self.std <= HUGE
        loss = max(self.largest * NARROW, TINY)
        return self.largest <= HUGE and loss <= FINE * self.std

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
    texts that no row to train has.  lacking: how many rows hold such; such: one of them.
    """

    mean, std, narrow, scaled, first = 0, 1, True, False, 1

    def __init__(self, name, kind, names=()):
        self.name, self.names, self.found = name, list(names), set()
        self.missing = self.rows = self.lacking = 0
        self.are_numbers, self.such = kind in REAL, None

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
        key = by_value if self.are_numbers else None
        self.names = [*[OTHER] * self.first, *sorted(self.found, key=key)]
        n = len(self.found)
        if n == 1:
            return [f"column {self.name} has one category, {self.names[-1]}"]
        if n > max(self.rows // 2, FEW):
            return [f"column {self.name} has {n:,} categories in {self.rows:,} rows: --drop it?"]
        return []

    def encode(self, array):
        its = array.cast("string").dictionary_encode()
        texts = its.dictionary.to_pylist()
        codes = np.array([*(self.code_of(text) for text in texts), 0], np.intp)
        where = its.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)
        lacking = codes[where] < 0
        if lacking.any():
            self.lacking += int(lacking.sum())
            self.such = self.such or texts[where[lacking.argmax()]]
        return np.maximum(codes, 0)[where]

    def code_of(self, text):
        """Its code, or that of the same number or truth value; -1 if there is none."""
        code = self.codes.get(text)
        return self.values.get(value_of(text), -1) if code is None else code

    @cached_property
    def codes(self):
        """{name: code}."""
        return {name: code for code, name in enumerate(self.names) if code >= self.first}

    @cached_property
    def values(self):
        """{value: code} where each category is another number, or truth value; else nothing."""
        values = {value_of(name): code for name, code in self.codes.items()}
        return {} if None in values or len(values) < len(self.codes) else values


class Labels(Categories):
    """A target of classes, which have to be those of all rows."""

    first = 0

    def look(self, array, train):
        super().look(array, train | True)

    def encode(self, array):
        codes = super().encode(array)
        if self.lacking:
            known = ", ".join(map(str, self.names[:20]))
            raise UserError(f"column {self.name}: {self.such!r}, expected one of {known}")
        return codes.astype(np.min_scalar_type(len(self.names) - 1))


def stacked(columns, block):
    """The columns of a block side by side, in a type that keeps what they differ in."""
    dtype = np.float32 if all(its.narrow for its in columns) else np.float64
    return np.stack([its.encode(block[its.name]) for its in columns], axis=1).astype(dtype)


def filled(columns, targets, missing, may_drop):
    """A note of the values that are missing, and how they are filled, or none.

    UserError: they are those of a target, or nobody says how to fill them.
    """
    for target in targets:
        if target.missing:
            found = f"column {target.name}, a target: {plural(target.missing, 'missing value')}"
            raise UserError(f"{found}, expected rows that all have one")
    holes = [f"{its.missing:,} in {its.name}" for its in columns if its.missing]
    if not holes:
        return []
    shown = ", ".join(holes[:8]) + f" and {len(holes) - 8} more columns" * (len(holes) > 8)
    if not missing:
        what = "expected --missing mean or zero (a category becomes code 0)"
        raise UserError(f"missing values: {shown}; {what}{', or --drop COLUMN' * may_drop}")
    becomes = "0" if missing == "zero" else "the mean"
    return [f"missing values: {shown}; numbers become {becomes}, categories code 0"]
