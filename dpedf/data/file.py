"""A data file, opened: its splits, and the Inputs that its rows become.

A file holds groups train, test and perhaps valid, each with x (N, ...) and y (N,) or (N, ...).
Its attributes say where it comes from, how many classes there are, and how stored values become
inputs: (x * scale - mean) / std.  Integers of one or two bytes stay as they are until the device
computes with them, so that a quarter of the bytes travels.

Or each group holds a text (M,) of integers, which are never scaled.  Rows of T are cut from it:
x[i] is text[i*stride : i*stride + T], and y[i] the same shifted by one.
"""

import os
from contextlib import contextmanager
from math import prod

import numpy as np

from dpedf.data.labels import classes_of, hints
from dpedf.data.layout import ArrayRows, DeviceRows, rows_of
from dpedf.data.memory import MEMORY, expect_memory
from dpedf.data.scaling import NARROW, Scaling, convert
from dpedf.data.split import Split, expect_integer, gathered
from dpedf.data.stored import Stored
from dpedf.data.windows import TextWindows
from dpedf.data.writer import GROUPS
from dpedf.device import CPU
from dpedf.edf import Input
from dpedf.errors import UserError, concerning, one_line
from dpedf.parallel.shared_memory import shared_array

ATTRIBUTES = "name", "source", "licence", "classes", "characters", "scale", "mean", "std"


def fits_in_memory(nbytes):
    """Can the page cache be expected to keep this many bytes?"""
    return nbytes <= MEMORY // 2


class Data:
    """An open data file, and the Inputs x and y that its rows are put into.

    valid: how many rows are held out of train, by seed, where there is no group valid.
    device: what computes with the rows, by default the CPU.
    window: T, the symbols in a row of a text; 0 for other files.  stride: symbols from one row of
    train to the next, 0 for T.  Rows of valid and test are T apart: each symbol counts once.
    UserError: the file is not one that dpedf.data.write could have written.
    """

    def __init__(self, path, valid=0, seed=0, dtype=np.float32, device=None, window=0, stride=0):
        self.path = path = os.path.expanduser(path)
        self.dtype, self.device = np.dtype(dtype), device or CPU()
        self.window, self.stride = window, stride or window
        counts = {"data.valid": valid, "seed": seed, "data.window": window, "data.stride": stride}
        for name, found in counts.items():
            expect_integer(name, found)
        if stride and not window:
            raise UserError(f"data.stride = {stride}, expected 0, or data.window too")
        try:
            self.stored = Stored(path)
        except FileNotFoundError:
            recipe = f"{os.path.splitext(path)[0]}.py"
            made_by = "python data/text.py FILE" if window else "dpedf.data.write"
            make = f"python {recipe}" if os.path.exists(recipe) else made_by
            raise UserError(f"{path}: no such file, make it with: {make}") from None
        read = ("text",) if window else ("x", "y")
        self.notes = self.stored.unread(ATTRIBUTES, GROUPS, read)
        self.train = self.split("train")
        self.test = self.split("test")
        if self.stored.has("valid"):
            self.valid = self.split("valid")
        else:
            self.hold_out(valid, seed)
        numbers = symbols = {"dtype": self.dtype}
        if self.train.y.dtype.kind in "iu":
            symbols = {"dtype": np.dtype(np.intp), "classes": self.classes()}
        self.x = Input(self.train.x.shape[1:], **(symbols if window else numbers))
        self.y = Input(self.train.y.shape[1:], **symbols)
        self.scale, self.shift = np.ones((), self.dtype), -np.zeros((), self.dtype)
        if not window:
            self.scale_rows()
        self.device_scale = self.device.put(self.scale) if (self.scale != 1).any() else None
        self.device_shift = self.device.put(self.shift) if self.shift.any() else None

    def scale_rows(self):
        """Have stored numbers become inputs, here or on the device."""
        scaling = Scaling(self.stored, self.x.shape, self.dtype)
        self.scale, self.shift = scaling.scale, scaling.shift
        for rows in self.stored_rows("x"):
            scaling.prepare(rows)
        for rows in self.stored_rows("y") if self.y.classes is None else ():
            convert(rows, self.dtype)

    @contextmanager
    def explaining(self):
        """Inside the with block, a UserError ends with what of the file may be the reason."""
        try:
            yield
        except UserError as error:
            y = gathered(self.train.y, self.train.numbers[:512])
            hint = hints(self.train.x.shape, y)
            raise type(error)("; ".join([str(error), *self.notes, *hint])) from None

    def split(self, group):
        """The Split of a group, whose datasets are checked."""
        if self.window:
            return self.windows(self.text(group), self.stride if group == "train" else self.window)
        x, y = (rows_of(self.stored, f"{group}/{name}") for name in "xy")
        for name, found in ("x", x), ("y", y):
            if found is None:
                has_text = self.stored.has(f"{group}/text")
                expected = "data.window, since it has a text" if has_text else "x and y"
                what = f"{self.path}: no dataset {group}/{name}, expected {expected}"
                raise UserError("; ".join([what, *self.notes]))
            first = found if group == "train" else getattr(self.train, name)
            if found.shape[0] != x.shape[0]:
                what = f"{found.shape[0]:,} rows, expected {x.shape[0]:,} as x has"
            elif found.shape[1:] != first.shape[1:]:
                what = f"rows of {found.shape[1:]}, expected {first.shape[1:]} as in train"
            elif name == "y" and (found.dtype.kind == "f") != (first.dtype.kind == "f"):
                what = f"{found.dtype}, expected {first.dtype} as in train"
            else:
                continue
            raise UserError(f"{found.where}: {what}")
        return self.whole(x, y)

    def whole(self, x, y):
        """The Split of all rows."""
        n = x.shape[0]
        expect_memory(f"{self.path}: the numbers of {n:,} rows", 16 * n)  # in order, and shuffled
        return Split(x, y, np.arange(n), self.device)

    def text(self, group):
        """The text of a group, which is checked."""
        found, T = rows_of(self.stored, f"{group}/text"), self.window
        if found is None:
            what = f"no dataset, expected one, since data.window = {T}"
        elif found.dtype.kind not in "iu" or len(found.shape) != 1:
            what = f"{found.dtype} of shape {found.shape}, expected integers, one after the other"
        elif found.shape[0] <= T:
            what = f"{found.shape[0]} symbols, expected more than data.window = {T}"
        else:
            return found
        raise UserError("; ".join([f"{self.path}: {group}/text: {what}", *self.notes]))

    def windows(self, text, stride):
        """The Split of a text into rows that are so many symbols apart."""
        x, y = (TextWindows(text, self.window, stride, shift) for shift in (0, 1))
        return self.whole(x, y)

    def hold_out(self, valid, seed):
        """Split rows of validation off train, which also loses the rows that overlap them."""
        train, T, stride = self.train, self.window or 1, self.stride or 1
        apart = self.windows(train.x.text, T) if self.window else train
        stream = np.random.Philox(key=[seed, 0], counter=[0, 0, 0, 3])  # not that of epoch 0
        random = np.random.Generator(stream)
        held = np.sort(random.permutation(apart.numbers)[:valid])
        # for each row of train, the first and the last of the rows T apart that it overlaps
        first, last = train.numbers * stride // T, -(-train.numbers * stride // T)
        free = ~(np.isin(first, held) | np.isin(last, held))
        if not free.any():
            what = f"{len(held)} of the {len(apart)} rows of {self.path}"
            raise UserError(f"data.valid = {valid}: {what}, expected some left to learn from")
        self.valid = Split(apart.x, apart.y, held, self.device)
        self.train = Split(train.x, train.y, train.numbers[free], self.device)

    def classes(self):
        """How many classes the labels have, or symbols a text has; every one of them is checked."""
        declared = self.stored.attribute("classes", None)
        classes, note = classes_of(self.path, declared, self.stored_rows("y"), self.window > 0)
        self.notes += note
        return classes

    def stored_rows(self, names="xy"):
        """What is stored of x, of y, or of both, each once."""
        splits = self.train, self.valid, self.test
        rows = [getattr(split, name) for split in splits for name in names]
        return list(dict.fromkeys(getattr(r, "text", r) for r in rows))

    def put(self, x, y):
        """Set the Inputs to these rows, as the graph computes with them."""
        narrow, x = x.dtype.itemsize <= NARROW, x.astype(self.x.dtype)
        if narrow and self.device_scale is not None:
            x *= self.device_scale
        if narrow and self.device_shift is not None:
            x += self.device_shift
        self.x.value, self.y.value = x, y.astype(self.y.dtype)

    def description(self):
        """What the ranks have to agree on, a line each."""
        splits = {"train": self.train, "valid": self.valid, "test": self.test}
        lines = [
            f"{len(s)} rows {s.x.shape[1:]} {s.x.dtype} for {s.y.dtype} to {name}, "
            f"in chunks of {s.chunk}, {s.window} a window"
            for name, s in splits.items()
        ]
        lines.append(one_line(f"scale {self.scale}, shift {self.shift}, {self.y.classes} classes"))
        return "\n".join(lines)

    def read_through(self, ranks):
        """Read all rows once, in order, if memory can hold them; then they come from there.

        AgreedError: they are damaged, or not finite.
        """
        stored = self.stored_rows()
        if fits_in_memory(sum(rows.nbytes for rows in stored)):
            with ranks.together():
                for rows in stored if ranks.host_rank == 0 else ():
                    for _ in rows.blocks():
                        ranks.alive()
            for rows in stored:
                rows.checked = True

    def keep(self, where, ranks):
        """Copy all rows to the "memory" of each host or to each "device", to gather them there.

        AgreedError: there is not enough memory, or the rows are damaged, or not finite.
        """
        copies, on_device, stored = {}, where == "device", self.stored_rows()
        if not on_device:
            with ranks.together():
                needed = sum(prod(rows.shape) * rows.dtype.itemsize for rows in stored)
                expect_memory(f"data.cache = 'memory': all rows of {self.path}", needed)
        for rows in stored:
            if on_device:
                with ranks.together():
                    copies[rows] = DeviceRows(rows, self.device, ranks.alive)
                continue
            with concerning("data.cache = 'memory'"):
                array = shared_array(ranks, rows.shape, rows.dtype)
            with ranks.together():
                if ranks.host_rank == 0:
                    rows.read_all(array, ranks.alive)
            copies[rows] = ArrayRows(array)

        def copy(rows):
            if isinstance(rows, TextWindows):
                put = self.device.put if on_device else np.asarray
                return rows.moved_to(copies[rows.text], put)
            return copies[rows]

        for split in self.train, self.valid, self.test:
            split.move(copy(split.x), copy(split.y), on_device)
