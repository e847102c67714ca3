"""What a data file of data/table.py says of its columns, so that more rows are coded as those."""

import numpy as np

from dpedf.data.columns import columns_of
from dpedf.data.stored import Stored
from dpedf.errors import UserError, plural

OURS = "expected a file of data/table.py"


class Like:
    """names, categories, mean, std: of the columns of x; of one of numbers, the categories are ().

    targets: the names of those of y.  classes: the names of its labels, none of a regression.
    target_mean, target_std: of each target; 0 and 1 where y is not standardised, scaled says so.
    missing: how gaps are filled, or None.  about: all of it, as attributes of a file.
    UserError: the file says nothing of this kind.
    """

    def __init__(self, path):
        try:
            stored = Stored(path)
        except FileNotFoundError:
            raise UserError(f"no such file, {OURS}") from None
        keys = "columns", "targets", "classes", "mean", "std", "target_mean", "target_std"
        known = {key: np.atleast_1d(stored.attribute(key, ())).tolist() for key in keys}
        self.names, self.targets, self.classes, self.mean, self.std, *scaling = known.values()
        found = columns_of(stored, (len(self.names),))
        if not self.names or not self.targets or sum(found.sizes) != len(found.categories):
            raise UserError(f"no names of columns, categories and targets, {OURS}")
        self.scaled = any(scaling)
        n = len(self.targets)
        self.target_mean, self.target_std = scaling if self.scaled else ([0.0] * n, [1.0] * n)
        for key in keys[3:]:
            numbers, n = getattr(self, key), len(self.targets if "_" in key else self.names)
            if len(numbers) != n:
                raise UserError(f"attribute {key} = {numbers}, expected {plural(n, 'number')}")
        ends = np.cumsum(found.sizes)
        self.categories = [
            found.categories[end - size : end] for end, size in zip(ends, found.sizes, strict=True)
        ]
        self.missing = stored.attribute("missing", None)
        self.about = {key: its or None for key, its in known.items()}
        self.about |= {"categories": [its or 0 for its in self.categories]}
