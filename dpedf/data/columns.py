"""The columns of a table: what they are called, and which hold categories instead of numbers.

A column of K categories holds their codes 0..K-1, which stay as they are: scale and std are 1
there, and mean is 0.
"""

from itertools import zip_longest
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from dpedf.errors import UserError, one_line, plural

KEYS = "columns", "categories", "category_names"  # attributes of a file
REMEDY = "data/table.py --like FILE makes it so"
MOST = 2**24  # categories of a column, whose codes float32 can hold


class Columns(msgspec.Struct, frozen=True):
    """The columns of x, (N, I).

    names: of the columns; () where the file has none.  sizes: how many categories each column has,
    0 for numbers.  categories: the names of those of the first column that has any, then of the
    next; () where they have none.
    """

    names: tuple[str, ...]
    sizes: tuple[Annotated[int, Meta(ge=0)], ...]
    categories: tuple[str, ...]

    def name(self, i):
        """What a column is called, or its number."""
        return self.names[i] if self.names else str(i)

    def expect(self, here, path):
        """UserError: what a file says of its columns is not the same."""
        kinds = {
            "column {} is {!r}": (here.names, self.names),
            "column {} has {} categories": (here.sizes, self.sizes),
            "category {} is {!r}": (here.categories, self.categories),
        }
        for what, (found, expected) in kinds.items():
            for i, (its, there) in enumerate(zip_longest(found, expected)):
                if its != there and found and expected:
                    found = f"{path}: {what.format(i, its)}"
                    raise UserError(f"{found}, expected {there!r} as in the run; {REMEDY}")


def columns_of(stored, shape):
    """The Columns of rows of this shape, as a file says them; None where it says nothing.

    UserError: it says them of other rows.
    """
    names, sizes, categories = (stored.attribute(key, None) for key in KEYS)
    if (names is None and sizes is None) or len(shape) != 1:
        return None
    names, categories = (
        () if found is None else tuple(map(str, np.atleast_1d(found)))
        for found in (names, categories)
    )
    sizes = np.zeros(shape, int) if sizes is None else np.atleast_1d(sizes)
    if names and len(names) != shape[0]:
        found, expected = f"columns = {plural(len(names), 'name')}", f"{shape[0]}, as x has"
    elif sizes.dtype.kind not in "iu" or sizes.shape != shape or (sizes < 0).any():
        found = f"categories = {one_line(repr(sizes.tolist()))[:80]}"
        expected = f"how many each of the {shape[0]} columns has, 0 for numbers"
    elif (sizes > MOST).any():
        found, expected = f"categories = {sizes.max():,} of a column", f"{MOST:,} at most"
    elif categories and len(categories) != sizes.sum():
        found, expected = f"category_names = {plural(len(categories), 'name')}", f"{sizes.sum()}"
    else:
        return Columns(names, tuple(sizes.tolist()), categories)
    raise UserError(f"{stored.path}: attribute {found}, expected {expected}")


def expect_codes(path, columns, scale, shift):
    """UserError: codes of categories would be scaled, as x * scale + shift."""
    sizes = np.array(columns.sizes)
    for what, kept in (scale, 1), (shift, 0):
        changed = (np.broadcast_to(what, sizes.shape) != kept) & (sizes > 0)
        if changed.any():
            found = f"column {changed.argmax()} holds categories, and is scaled"
            raise UserError(f"{path}: {found}, expected scale 1, mean 0 and std 1 there")


def attributes(columns=None, categories=None, **others):
    """The attributes of a file, in which categories become their numbers and names.

    columns: names.  categories: for each column 0, how many categories it has, or their names.
    """
    found = others | {"columns": None if columns is None else list(columns)}
    if categories is not None:
        numbers = [isinstance(its, int | np.integer) for its in categories]
        pairs = list(zip(categories, numbers, strict=True))
        found["categories"] = np.array([its if n else len(its) for its, n in pairs], np.int64)
        if not any(n and its for its, n in pairs):  # else some have no names
            found["category_names"] = [str(name) for its, n in pairs if not n for name in its]
    return found
