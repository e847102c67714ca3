"""The splits of a data file that a run learns from, validates and tests on."""

from contextlib import contextmanager
from math import prod

import numpy as np

from dpedf.data.columns import columns_of
from dpedf.data.file import File
from dpedf.data.labels import classes_of, hints, ignored
from dpedf.data.layout import ArrayRows, DeviceRows
from dpedf.data.memory import expect_memory
from dpedf.data.split import expect_integer, gathered
from dpedf.data.targets import targets_of
from dpedf.data.windows import TextWindows
from dpedf.device import CPU
from dpedf.edf import Input
from dpedf.errors import UserError, concerning, one_line
from dpedf.parallel.shared_memory import shared_array


class Data(File):
    """An open data file, and the Inputs x and y that its rows are put into.

    valid: how many rows are held out of train, by seed, where there is no group valid.
    device: what computes with the rows, by default the CPU.
    window: T, the symbols in a row of a text; 0 for other files.  stride: symbols from one row of
    train to the next, 0 for T.  Rows of valid and test are T apart: each symbol counts once.
    UserError: the file is not one that dpedf.data.write could have written.
    """

    def __init__(self, path, valid=0, seed=0, dtype=np.float32, device=None, window=0, stride=0):
        for name, found in {"data.valid": valid, "seed": seed}.items():
            expect_integer(name, found)
        super().__init__(path, dtype, device or CPU(), window, stride)
        self.train = self.split("train")
        self.test = self.split("test")
        if self.stored.has("valid"):
            self.valid = self.split("valid")
        else:
            self.train, self.valid = self.held_out(self.train, valid, seed)
        numbers = symbols = {"dtype": self.dtype}
        self.ignore = None if window else ignored(self.stored)
        if self.train.y.dtype.kind in "iu":
            symbols = {"dtype": np.dtype(np.intp), "classes": self.classes()}
        self.x = Input(self.train.x.shape[1:], **(symbols if window else numbers))
        self.y = Input(self.train.y.shape[1:], **symbols)
        self.y.ignore = self.ignore if self.y.classes else None
        self.columns = None if window else columns_of(self.stored, self.x.shape)
        self.x.categories = self.columns.sizes if self.columns else ()
        self.targets = None if self.y.classes else targets_of(self.stored, self.y.shape)
        self.scale_rows()
        self.expect_codes(self.columns)

    @property
    def splits(self):
        return self.train, self.valid, self.test

    @contextmanager
    def explaining(self):
        """Inside the with block, a UserError ends with what of the file may be the reason."""
        try:
            yield
        except UserError as error:
            y = gathered(self.train.y, self.train.numbers[:512])
            hint = hints(self.train.x.shape, y)
            raise type(error)("; ".join([str(error), *self.notes, *hint])) from None

    def classes(self):
        """How many classes the labels have, or symbols a text has; every one of them is checked."""
        declared = self.stored.attribute("classes", None)
        kind = self.window > 0, self.ignore
        classes, note = classes_of(self.path, declared, self.stored_rows("y"), *kind)
        self.notes += note
        return classes

    def description(self):
        """What the ranks have to agree on, a line each."""
        splits = zip(("train", "valid", "test"), self.splits, strict=True)
        lines = [
            f"{len(s)} rows {s.x.shape[1:]} {s.x.dtype} for {s.y.dtype} to {name}, "
            f"in chunks of {s.chunk}, {s.window} a window"
            for name, s in splits
        ]
        lines.append(one_line(f"scale {self.scale}, shift {self.shift}, {self.y.classes} classes"))
        return "\n".join(lines)

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

        for split in self.splits:
            split.move(copy(split.x), copy(split.y), on_device)
