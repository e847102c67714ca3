"""Data files: HDF5 in, inputs of a graph out; and the writer that recipes use.

A file holds groups train, test and perhaps valid, each with x (N, ...) and y (N,) or (N, ...).
Its attributes say where it comes from, how many classes there are, and what turns stored
values into inputs: (x * scale - mean) / std.  Integers stay integers until they are computed
with, so that a quarter of the bytes travels.

Or each group holds a text (M,) of integers, which are never scaled.  Rows of T are cut from it:
x[i] is text[i*stride : i*stride + T], and y[i] the same shifted by one.
"""

import os
from pathlib import Path

import h5py
import numpy as np

from dpedf.device import CPU
from dpedf.edf import Input
from dpedf.errors import UserError, line
from dpedf.memory import shared
from dpedf.rows import Mapped, Pieces, Resident, Split, fits_in_memory, source


def write(
    path, *, name, source, licence, classes=None, characters=None, scale=1, mean=0, std=1, **groups
):
    """Write a data file: groups are train=(x, y), test=(x, y), or texts, train=text, test=text.

    characters: what the symbols of a text stand for, in one string.  An array that is given
    twice is stored once.  The file appears whole or not at all.
    """
    path = Path(path)
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        with h5py.File(unfinished, "w") as file:
            file.attrs.update(name=name, source=source, licence=licence)
            file.attrs.update(scale=scale, mean=mean, std=std)
            for key, known in ("classes", classes), ("characters", characters):
                if known is not None:
                    file.attrs[key] = known
            stored = {}
            for group, rows in groups.items():
                is_text = isinstance(rows, np.ndarray)
                for key, array in [("text", rows)] if is_text else zip("xy", rows, strict=True):
                    file[f"{group}/{key}"] = stored.get(id(array), array)
                    stored[id(array)] = file[f"{group}/{key}"]
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


class Data:
    """An open data file, and the Inputs x and y that its rows are put into.

    valid: how many rows to hold out of train, by seed, where there is no group valid.
    device: where they are computed with, the CPU by default.
    window: T, the symbols in a row of a text; 0 where there is none.  stride: from a row to learn
    from to the next, 0 for T.  Rows to validate and to test on are T apart, so that each symbol
    counts once.
    UserError: the file is not one that dpedf.data.write could have written.
    """

    def __init__(self, path, valid=0, seed=0, dtype=np.float32, device=None, window=0, stride=0):
        self.path, self.dtype, self.device = path, np.dtype(dtype), device or CPU()
        self.window, self.stride = window, stride or window
        if stride and not window:
            raise UserError(f"data.stride = {stride}, expected 0, or data.window too")
        try:
            with open(path, "rb"):  # whose errors are clearer than HDF5's
                self.file = h5py.File(path, "r", locking=False)
        except FileNotFoundError:
            recipe = f"{os.path.splitext(path)[0]}.py"
            made_by = "python data/text.py FILE" if window else "dpedf.data.write"
            make = f"python {recipe}" if os.path.exists(recipe) else made_by
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
        numbers = symbols = {"dtype": self.dtype}
        if self.train.y.dtype.kind in "iu":
            symbols = {"dtype": np.dtype(np.intp), "classes": self.classes()}
        self.x = Input(self.train.x.shape[1:], **(symbols if window else numbers))
        self.y = Input(self.train.y.shape[1:], **symbols)

    def split(self, group):
        """The rows of a group, after a look at its datasets."""
        if self.window:
            return self.cut(self.text(group), self.stride if group == "train" else self.window)
        for name in "xy":
            if not isinstance(self.file.get(f"{group}/{name}"), h5py.Dataset):
                has_text = f"{group}/text" in self.file
                expected = "data.window, since it has a text" if has_text else "x and y"
                raise UserError(f"{self.path}: no dataset {group}/{name}, expected {expected}")
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

    def text(self, group):
        """The text of a group, after a look at it."""
        found, T = self.file.get(f"{group}/text"), self.window
        if not isinstance(found, h5py.Dataset):
            what = f"no dataset, expected one, since data.window = {T}"
        elif found.dtype.kind not in "iu" or len(found.shape or ()) != 1:
            what = f"{found.dtype} of shape {found.shape}, expected integers, one after the other"
        elif len(found) <= T:
            what = f"{len(found)} symbols, expected more than data.window = {T}"
        else:
            return source(self.path, found)
        raise UserError(f"{self.path}: {group}/text: {what}")

    def cut(self, text, stride):
        """The rows of a text, so far apart."""
        x, y = (Pieces(text, self.window, stride, shift) for shift in (0, 1))
        return Split(x, y, np.arange(x.shape[0]), self.device)

    def hold_out(self, valid, seed):
        """Split validation rows off train, and drop those that overlap them."""
        train, T, stride = self.train, self.window or 1, self.stride or 1
        apart = self.cut(train.x.text, T) if self.window else train
        random = np.random.Generator(np.random.Philox(key=seed))
        held = np.sort(random.permutation(apart.rows)[:valid])
        first, last = train.rows * stride // T, -(-train.rows * stride // T)  # of those apart
        free = ~(np.isin(first, held) | np.isin(last, held))
        if not free.any():
            what = f"{len(held)} of the {len(apart)} rows of {self.path}"
            raise UserError(f"data.valid = {valid}: {what}, expected some left to learn from")
        self.valid = Split(apart.x, apart.y, held, self.device)
        self.train = Split(train.x, train.y, train.rows[free], self.device)

    def numbers(self, name, default):
        """An attribute of the file that scales its rows, as float64; a text has none."""
        found = default if self.window else self.file.attrs.get(name, default)
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
        """How many classes the labels have, or symbols there are, after a look at every one."""
        labels, name = {}, "text" if self.window else "y"
        says = "symbol {} at {}" if self.window else "label {} in row {}"
        for group in (g for g in ("train", "valid", "test") if g in self.file):
            try:
                labels[group] = self.file[group][name][...]
            except OSError as error:
                raise UserError(f"{self.path}: {group}/{name}: {line(error)}") from None
        classes = self.file.attrs.get("classes", int(labels["train"].max()) + 1)
        if not np.issubdtype(type(classes), np.integer):
            found = line(repr(classes))
            raise UserError(f"{self.path}: attribute classes = {found}, expected an integer")
        for group, y in labels.items():
            wrong = np.argwhere((y < 0) | (y >= classes))
            if len(wrong):
                label = says.format(y[tuple(wrong[0])], wrong[0][0])
                raise UserError(f"{self.path}: {group}/{name}: {label}, expected 0..{classes - 1}")
        return int(classes)

    def put(self, x, y):
        """Set the Inputs to these rows, as the graph computes with them."""
        x = x.astype(self.x.dtype)
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
        kept, resident = {}, where == "device"

        def copy(streamed):
            if isinstance(streamed, Pieces):
                put = self.device.put if resident else np.asarray
                return streamed.of(copy(streamed.text), put)
            if streamed not in kept:
                kept[streamed] = (
                    Resident(streamed, self.device)
                    if resident
                    else Mapped(shared(ranks, streamed.shape, streamed.dtype, streamed.read))
                )
            return kept[streamed]

        for split in self.train, self.valid, self.test:
            split.x, split.y, split.resident = copy(split.x), copy(split.y), resident
