"""Data files: HDF5 in, inputs of a graph out; and the writer that recipes use.

A file holds groups train, test and perhaps valid, each with x (N, ...) and y (N,) or (N, ...).
Its attributes say where it comes from, how many classes there are, and what turns stored
values into inputs: (x * scale - mean) / std.  Integers stay integers until they are computed
with, so that a quarter of the bytes travels.
"""

import os
from pathlib import Path

import h5py
import numpy as np

from dpedf.device import CPU
from dpedf.edf import Input
from dpedf.errors import UserError, line
from dpedf.rows import Mapped, Resident, Split, fits_in_memory, source


def write(path, *, name, source, licence, classes=None, scale=1.0, mean=0.0, std=1.0, **groups):
    """Write a data file: groups are train=(x, y), test=(x, y).  It appears whole or not at all."""
    path = Path(path)
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        with h5py.File(unfinished, "w") as file:
            file.attrs.update(name=name, source=source, licence=licence)
            file.attrs.update(scale=scale, mean=mean, std=std)
            if classes is not None:
                file.attrs["classes"] = classes
            for group, (x, y) in groups.items():
                file[f"{group}/x"], file[f"{group}/y"] = x, y
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


class Data:
    """An open data file, and the Inputs x and y that its rows are put into.

    valid: how many rows to hold out of train, by seed, where there is no group valid.
    device: where they are computed with, the CPU by default.
    UserError: the file is not one that dpedf.data.write could have written.
    """

    def __init__(self, path, valid=0, seed=0, dtype=np.float32, device=None):
        self.path, self.dtype, self.device = path, np.dtype(dtype), device or CPU()
        try:
            with open(path, "rb"):  # whose errors are clearer than HDF5's
                self.file = h5py.File(path, "r", locking=False)
        except FileNotFoundError:
            recipe = f"{os.path.splitext(path)[0]}.py"
            make = f"python {recipe}" if os.path.exists(recipe) else "dpedf.data.write"
            raise UserError(f"{path}: no such file, make it with: {make}") from None
        except OSError as error:
            raise UserError(f"{path}: {line(error)}, expected a whole HDF5 file") from None
        self.train, self.test = self.split("train"), self.split("test")
        if "valid" in self.file:
            self.valid = self.split("valid")
        else:
            self.hold_out(valid, seed)
        scale, mean, std = (self.numbers(*a) for a in (("scale", 1), ("mean", 0), ("std", 1)))
        self.scale, self.shift = (scale / std).astype(dtype), (-mean / std).astype(dtype)
        self.factors = self.device.put(self.scale) if (self.scale != 1).any() else None
        self.terms = self.device.put(self.shift) if self.shift.any() else None
        self.x = Input(self.train.x.shape[1:], self.dtype)
        self.y = Input(self.train.y.shape[1:], self.dtype)
        if self.train.y.dtype.kind in "iu":
            self.y.dtype = np.dtype(np.intp)
            self.y.classes = self.classes()

    def split(self, group):
        """The rows of a group, after a look at its datasets."""
        for name in "xy":
            if not isinstance(self.file.get(f"{group}/{name}"), h5py.Dataset):
                raise UserError(f"{self.path}: no dataset {group}/{name}, expected x and y")
        x, y = self.file[group]["x"], self.file[group]["y"]
        for name, found in ("x", x), ("y", y):
            first, kind = self.file["train"].get(name, found), found.dtype.kind
            if kind not in "iuf" or not found.shape or 0 in found.shape[1:]:
                what = f"{found.dtype} of shape {found.shape}, expected rows of numbers"
            elif not 0 < len(found) == len(x):
                what = f"{len(found)} rows, expected as many as x has, and some"
            elif found.shape[1:] != first.shape[1:]:
                what = f"rows of {found.shape[1:]}, expected {first.shape[1:]} as in train"
            elif name == "y" and (kind == "f") != (first.dtype.kind == "f"):
                what = f"{found.dtype}, expected {first.dtype} as in train"
            else:
                continue
            raise UserError(f"{self.path}: {group}/{name}: {what}")
        sources = (source(self.path, dataset) for dataset in (x, y))
        return Split(*sources, np.arange(len(x)), self.device)

    def hold_out(self, valid, seed):
        """Split validation rows off train."""
        x, y, rows = self.train.x, self.train.y, self.train.rows
        if valid >= len(rows):
            raise UserError(
                f"data.valid = {valid}, expected less than the {len(rows)} of {self.path}"
            )
        rows = np.random.Generator(np.random.Philox(key=seed)).permutation(rows)
        self.valid = Split(x, y, np.sort(rows[:valid]), self.device)
        self.train = Split(x, y, np.sort(rows[valid:]), self.device)

    def numbers(self, name, default):
        """An attribute of the file that scales its rows, as float64."""
        found = self.file.attrs.get(name, default)
        try:
            numbers = np.array(found, np.float64)
            np.broadcast_to(numbers, self.train.x.shape[1:])
            fits = np.isfinite(numbers).all() and not (name == "std" and (numbers == 0).any())
        except (ValueError, TypeError):
            fits = False
        if not fits:
            what = f"numbers for rows of {self.train.x.shape[1:]}, and no std of 0"
            raise UserError(f"{self.path}: attribute {name} = {line(repr(found))}, expected {what}")
        return numbers

    def classes(self):
        """How many classes the labels have, after a look at every label."""
        labels = {}
        for group in (g for g in ("train", "valid", "test") if g in self.file):
            try:
                labels[group] = self.file[group]["y"][...]
            except OSError as error:
                raise UserError(f"{self.path}: {group}/y: {line(error)}") from None
        classes = self.file.attrs.get("classes", int(labels["train"].max()) + 1)
        if not np.issubdtype(type(classes), np.integer):
            found = line(repr(classes))
            raise UserError(f"{self.path}: attribute classes = {found}, expected an integer")
        for group, y in labels.items():
            wrong = np.argwhere((y < 0) | (y >= classes))
            if len(wrong):
                label = f"label {y[tuple(wrong[0])]} in row {wrong[0][0]}"
                raise UserError(f"{self.path}: {group}/y: {label}, expected 0..{classes - 1}")
        return int(classes)

    def put(self, x, y):
        """Set the Inputs to these rows, as the graph computes with them."""
        x = x.astype(self.dtype)
        if self.factors is not None:
            x *= self.factors
        if self.terms is not None:
            x += self.terms
        self.x.value, self.y.value = x, y.astype(self.y.dtype)

    def listing(self):
        """What ranks have to agree on, a line each."""
        splits = {"train": self.train, "valid": self.valid, "test": self.test}
        lines = [
            f"{len(s)} rows {s.x.shape[1:]} {s.x.dtype} for {s.y.dtype} to {name}, "
            f"in chunks of {s.chunk}, {s.window} a window"
            for name, s in splits.items()
        ]
        lines.append(line(f"scale {self.scale}, shift {self.shift}, {self.y.classes} classes"))
        return "\n".join(lines)

    def read_through(self):
        """Read the file once, in order, if memory can hold it: its rows then come from there."""
        with open(self.path, "rb") as file:
            while fits_in_memory(os.path.getsize(self.path)) and file.read(1 << 24):
                pass

    def keep(self, where, ranks):
        """Replace what is streamed by a copy: in the "memory" of each host, or on each "device"."""
        kept = {}

        def copy(streamed):
            if where == "memory":
                return Mapped(ranks.shared(streamed.shape, streamed.dtype, streamed.read))
            return Resident(streamed, self.device)

        for split in self.train, self.valid, self.test:
            for name in "xy":
                streamed = getattr(split, name)
                if streamed not in kept:
                    kept[streamed] = copy(streamed)
                setattr(split, name, kept[streamed])
