"""What the numbers in rows have to be: finite, and where they are codes, those of a category."""

import numpy as np

from dpedf.errors import UserError


def expect_finite(where, stored, rows, numbers):
    """UserError: one of these rows, of which the numbers are given, holds nan or inf.

    rows: what is made of the stored ones.
    """
    if rows.dtype.kind == "f" and not (finite := np.isfinite(rows)).all():
        at = tuple(np.argwhere(~finite)[0])
        found, expected = f"{stored[at]} in row {numbers[at[0]]}", "finite numbers"
        if np.isfinite(stored[at]):
            found, expected = f"{found} becomes {rows[at]}", f"what {rows.dtype} can hold"
        raise UserError(f"{where}: {found}, expected {expected}")


def expect_known(where, stored, numbers, columns):
    """UserError: one of these rows of a table holds a code that no category of its column has."""
    sizes = np.array(columns.sizes)
    coded = np.flatnonzero(sizes)
    codes = stored[:, coded]
    wrong = (codes < 0) | (codes >= sizes[coded]) | (codes != np.rint(codes))
    for row, k in np.argwhere(wrong)[:1]:
        found = f"code {codes[row, k]:g} of column {columns.name(coded[k])} in row {numbers[row]}"
        raise UserError(f"{where}: {found}, expected 0..{sizes[coded[k]] - 1}")
