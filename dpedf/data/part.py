"""A part of a data file, opened for a model that is there already."""

from itertools import zip_longest

import numpy as np

from dpedf.data.columns import REMEDY, columns_of
from dpedf.data.file import File, Unlabelled
from dpedf.data.form import type_in_file
from dpedf.data.labels import classes_of, ignored
from dpedf.data.scaling import SCALING
from dpedf.data.targets import targets_of
from dpedf.data.windows import TextWindows
from dpedf.errors import UserError, nearest, plural


def equal(found, expected, shape):
    """Are these the same numbers for each row of this shape?"""
    try:
        return np.array_equal(*(np.broadcast_to(its, shape) for its in (found, expected)))
    except ValueError:
        return False


class Part(File):
    """Rows of a data file, which become the Inputs of a model.

    form: the Form of the rows on which it was trained.  x, y: its Inputs.  asked: data.* of its
    settings.  rows: the Split, once it is opened by one of the methods below.
    UserError: the rows are not like those of the form.
    """

    def __init__(self, path, form, x, y, asked, device):
        super().__init__(path, x.dtype, device, asked.window, asked.stride)
        self.form, self.x, self.y, self.held = form, x, y, asked.valid
        its = {"x": form.x_shape, "y": form.y_shape}, {"x": x.dtype, "y": y.dtype}
        self.like = {name: (its[0][name], its[1][name], "the run") for name in "xy"}

    @property
    def splits(self):
        return (self.rows,)

    def what_to_do(self):
        return "expected a data file with rows like those of the run"

    def open_split(self, name, seed):
        """Open train, valid or test, of which a run with this seed has the same rows."""
        whole = name == "test" or self.stored.has("valid") or not self.stored.has("train")
        if whole:
            self.rows = self.split(name)
        else:
            left = self.held_out(self.split("train"), self.held, seed)
            self.rows = left[name == "valid"]
        if not len(self.rows):
            held = f"no group valid, and data.valid = {self.held} in the run"
            raise UserError(f"{self.path}: {held}, expected rows to validate on")
        if self.y.classes is not None:
            self.expect_names()
            ignore = None if self.window else ignored(self.stored)
            if ignore not in (None, self.form.ignore):
                expected = f"{self.form.ignore} as in the run"
                if self.form.ignore is None:
                    expected = "none, since the run has none"
                raise UserError(f"{self.path}: attribute ignore = {ignore}, expected {expected}")
            kind = self.window > 0, self.form.ignore
            classes_of(self.path, self.y.classes, self.stored_rows("y"), *kind)
        elif self.form.targets:  # which checkpoints of older versions do not have
            self.form.targets.expect(targets_of(self.stored, self.y.shape), self.path)
            self.notes += self.form.targets.notes()
        self.scale_as_in_training()

    def open_unlabelled(self, group=None):
        """Open the rows of x, or of a text, that lie in a group, or at the top of the file."""
        name = "text" if self.window else "x"
        if group is not None and not self.stored.has(f"{group}/{name}"):
            groups = self.groups_with(name)
            expected = f"--split {nearest(group, groups)}" if groups else "no --split"
            raise UserError(f"{self.path}: no {group}/{name}, expected {expected}")
        if group is None and not self.stored.has(name):
            group = self.only_group(name)
        prefix, self.notes = "" if group is None else f"{group}/", []  # it may hold anything
        if self.window:
            text, T = self.text(f"{prefix}text", after=0), self.window
            x = TextWindows(text, T, T)
            if left := text.shape[0] % T:
                rest = f"the last {plural(left, 'symbol')} of {text.shape[0]:,}"
                self.notes = [f"{text.where}: {rest} fill no window of {T}, and are left out"]
            self.expect_names()
            classes_of(self.path, self.x.classes, [text], text=True)
            self.rows = self.whole(x, Unlabelled(x.shape[0]))
        else:
            self.rows = self.unlabelled(f"{prefix}x", may_be_empty=True)
        self.scale_as_in_training()

    def only_group(self, name):
        """The only group with rows."""
        found = self.groups_with(name)
        if len(found) == 1:
            return found[0]
        if found:
            what = f"{name} in groups {' and '.join(found)}, expected --split with one of them"
        else:
            what = f"no {name}, expected it at the top of the file, or in a group"
        raise UserError(f"{self.path}: {what}")

    def expect_names(self):
        """UserError: the file calls a class, or a symbol of its text, otherwise than the run."""
        key = "characters" if self.window else "classes"
        found, names = self.stored.attribute(key, None), self.form.names
        if names and isinstance(found, str | np.ndarray):
            for k, (here, there) in enumerate(zip_longest(map(str, found), names)):
                if here != there:
                    what = f"attribute {key}: number {k} is {here!r}"
                    raise UserError(f"{self.path}: {what}, expected {there!r} as in the run")

    def scale_as_in_training(self):
        """Scale by the attributes of the file; where there are none, by those of the run.

        UserError: there are none, and x is of another type than those of the run are for.
        """
        known, x, stored = SCALING, self.rows.x, self.form.stored
        if all(self.stored.attribute(key, None) is None for key in SCALING):
            known = {key: self.form.scaling.get(key, its) for key, its in SCALING.items()}
            found = type_in_file(x)
            if known != SCALING and found != stored and not found.kind == stored[0] == "f":
                what = f"{found} without attributes scale, mean and std"
                expected = f"these, or {stored} as in training"
                raise UserError(f"{x.where}: {what}, expected {expected}")
        here = None if self.window else columns_of(self.stored, self.x.shape)
        if here and self.form.columns:
            self.form.columns.expect(here, self.path)
            for key, its in self.form.scaling.items():
                if not equal(self.stored.attribute(key, known.get(key)), its, self.x.shape):
                    what = f"attribute {key}, expected that of the run; {REMEDY}"
                    raise UserError(f"{self.path}: another {what}")
        self.scale_rows(known)
        self.expect_codes(self.form.columns)
