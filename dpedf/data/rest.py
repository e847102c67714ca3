"""A data file from which no run can learn, such as one that data/table.py --like has written."""

import numpy as np

from dpedf.data.columns import columns_of
from dpedf.data.file import File
from dpedf.data.labels import classes_of, ignored
from dpedf.data.targets import targets_of
from dpedf.device import CPU
from dpedf.edf import Input


class Rest(File):
    """An open data file without rows to learn from, whose rows may have no y.

    groups: {name: Split} of those with rows; "." is the top of the file.
    x, y, columns and targets are as of Data.
    """

    def __init__(self, path):
        super().__init__(path, np.float32, CPU(), 0, 0)
        names = ["."] * self.stored.has("x") + self.groups_with("x")
        labelled = [name for name in names if self.stored.has(f"{name}/y")]
        self.groups = {name: self.split(name) for name in labelled}  # which come first
        others = [name for name in names if name not in labelled]
        self.groups |= {name: self.unlabelled(f"{name}/x") for name in others}
        (first, *_), stored = self.splits, self.stored_rows("y")
        classes = targets = None
        if stored and stored[0].dtype.kind in "iu":
            declared, ignore = self.stored.attribute("classes", None), ignored(self.stored)
            classes, _ = classes_of(self.path, declared, stored, ignore=ignore)
        elif stored:
            targets = targets_of(self.stored, first.y.shape[1:])
        self.x, self.y = Input(first.x.shape[1:]), Input(first.y.shape[1:], classes=classes)
        self.columns, self.targets = columns_of(self.stored, self.x.shape), targets
        self.scale_rows()
        self.expect_codes(self.columns)
        tools = "evaluate and predict" if stored else "predict"
        self.notes = [f"{path}: no train/x, so it is for dpedf {tools} alone"]

    @property
    def splits(self):
        return tuple(self.groups.values())
