"""A data file, opened: its groups, and the Inputs that their rows become.

A file holds groups train, test and perhaps valid, each with x (N, ...) and y (N,) or (N, ...).
Its attributes say where it comes from, how many classes there are, and how stored values become
inputs: (x * scale - mean) / std.  Integers of one or two bytes stay as they are until the device
computes with them, so that a quarter of the bytes travels.

Or each group holds a text (M,) of integers, which are never scaled.  Rows of T are cut from it:
x[i] is text[i*stride : i*stride + T], and y[i] the same shifted by one.
"""

import os
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from dpedf.data import targets
from dpedf.data.columns import KEYS, expect_codes
from dpedf.data.layout import StoredRows, rows_of
from dpedf.data.memory import MEMORY, expect_memory
from dpedf.data.scaling import NARROW, SCALING, Scaling, convert
from dpedf.data.split import Split, expect_integer
from dpedf.data.stored import Stored, reading
from dpedf.data.windows import TextWindows
from dpedf.data.writer import GROUPS
from dpedf.errors import UserError

ABOUT = "name", "source", "licence", "classes", "characters", "ignore"
ATTRIBUTES = *ABOUT, *SCALING, *KEYS, *targets.KEYS, "missing"

# What makes a data file of another one, by its suffix, or of a folder.
RECIPES = {".csv": "table", ".parquet": "table", ".npy": "arrays", ".npz": "arrays", "/": "images"}


def fits_in_memory(nbytes):
    """Can the page cache be expected to keep this many bytes?"""
    return nbytes <= MEMORY // 2


class Unlabelled:
    """The labels of n rows that have none: 0."""

    def __init__(self, n):
        self.shape, self.dtype = (n,), np.dtype(np.uint8)

    def gather(self, numbers, out):
        out[...] = 0

    def blocks(self):
        """None of them is stored."""
        return ()


class File:
    """An open data file.  Subclasses set the Inputs x and y, and which splits there are.

    splits: those that are used.  like: {"x": (shape of a row, dtype, where it was found)}, and y,
    which groups have to be like; {} before the first one is open.
    """

    def __init__(self, path, dtype, device, window, stride):
        self.path = path = os.path.expanduser(path)
        self.dtype, self.device = np.dtype(dtype), device
        self.window, self.stride = window, stride or window
        self.like = {}
        for name, found in {"data.window": window, "data.stride": stride}.items():
            expect_integer(name, found)
        if stride and not window:
            raise UserError(f"data.stride = {stride}, expected 0, or data.window too")
        try:
            self.stored = Stored(path)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file, {self.what_to_do()}") from None
        except UserError:
            suffix = "/" if os.path.isdir(path) else os.path.splitext(path)[1]
            if suffix.lower() not in RECIPES:
                raise
            expected = f"what data/{RECIPES[suffix.lower()]}.py makes of it"
            raise UserError(f"{path}: no data file, expected {expected}") from None
        read = ("text",) if window else ("x", "y")
        self.notes = self.stored.unread(ATTRIBUTES, GROUPS, read)

    def what_to_do(self):
        """Where there is no such file."""
        recipe = f"{os.path.splitext(self.path)[0]}.py"
        if os.path.exists(recipe):
            return f"make it with: python {recipe}"
        beside = {file.stem: str(file) for file in Path(self.path).parent.glob("*.h5")}
        if near := get_close_matches(Path(self.path).stem, beside, 1):
            return f"expected {beside[near[0]]}"
        return f"make it with: {'python data/text.py FILE' if self.window else 'dpedf.data.write'}"

    def groups_with(self, name):
        """The groups with a dataset of this name."""
        with reading(self.path):
            groups = list(self.stored.file)
        return [group for group in groups if self.stored.has(f"{group}/{name}")]

    def split(self, group):
        """The Split of a group, whose datasets are checked."""
        if self.window:
            stride = self.stride if group == "train" else self.window
            return self.windows(self.text(f"{group}/text"), stride)
        x, y = (rows_of(self.stored, f"{group}/{name}") for name in "xy")
        for name, found in ("x", x), ("y", y):
            if found is None:
                has_text = self.stored.has(f"{group}/text")
                expected = "data.window, since it has a text" if has_text else "x and y"
                what = f"{self.path}: no dataset {group}/{name}, expected {expected}"
                raise UserError("; ".join([what, *self.notes]))
            if found.shape[0] != x.shape[0]:
                what = f"{found.shape[0]:,} rows, expected {x.shape[0]:,} as x has"
                raise UserError(f"{found.where}: {what}")
            self.expect_like(name, found, group)
        return self.whole(x, y)

    def unlabelled(self, name, may_be_empty=False):
        """The Split of the rows in a dataset, which have no y."""
        x = rows_of(self.stored, name, may_be_empty)
        if x is None:
            raise UserError(f"{self.path}: no dataset {name}, expected rows there")
        self.expect_like("x", x, name)
        return self.whole(x, Unlabelled(x.shape[0]))

    def expect_like(self, name, found, place):
        """UserError: rows of x or y, at a place, are not like those that were opened before."""
        here = found.shape[1:], found.dtype, place
        shape, dtype, where = self.like.setdefault(name, here)
        if found.shape[1:] != shape:
            what = f"rows of {found.shape[1:]}, expected {shape} as in {where}"
        elif name == "y" and (found.dtype.kind == "f") != (dtype.kind == "f"):
            what = f"{found.dtype}, expected {dtype} as in {where}"
        else:
            return
        raise UserError(f"{found.where}: {what}")

    def whole(self, x, y):
        """The Split of all rows."""
        n = x.shape[0]
        expect_memory(f"{self.path}: the numbers of {n:,} rows", 16 * n)  # in order, and shuffled
        return Split(x, y, np.arange(n), self.device)

    def text(self, name, after=1):
        """The text in a dataset of this name, which is checked.

        after: how many symbols have to follow its first window.
        """
        found, T = rows_of(self.stored, name), self.window
        if found is None:
            what = f"no dataset, expected one, since data.window = {T}"
        elif found.dtype.kind not in "iu" or len(found.shape) != 1:
            what = f"{found.dtype} of shape {found.shape}, expected integers, one after the other"
        elif found.shape[0] < T + after:
            least = "more than" if after else "at least"
            what = f"{found.shape[0]} symbols, expected {least} data.window = {T}"
        else:
            return found
        raise UserError("; ".join([f"{self.path}: {name}: {what}", *self.notes]))

    def windows(self, text, stride):
        """The Split of a text into rows that are so many symbols apart."""
        x, y = (TextWindows(text, self.window, stride, shift, 1) for shift in (0, 1))
        return self.whole(x, y)

    def held_out(self, train, valid, seed):
        """(what is left of train, so many rows of it), of which none overlap."""
        T, stride = self.window or 1, self.stride or 1
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
        left = Split(train.x, train.y, train.numbers[free], self.device)
        return left, Split(apart.x, apart.y, held, self.device)

    def scale_rows(self, known=SCALING):
        """Have stored numbers become inputs, here or on the device.

        known: scale, mean and std of a file that does not say them.
        """
        self.scale, self.shift = np.ones((), self.dtype), -np.zeros((), self.dtype)
        if not self.window:
            scaling = Scaling(self.stored, self.x.shape, self.dtype, known)
            self.scale, self.shift = scaling.scale, scaling.shift
            for rows in self.stored_rows("x"):
                scaling.prepare(rows)
            for rows in self.stored_rows("y") if self.y.classes is None else ():
                convert(rows, self.dtype)
        self.device_scale = self.device.put(self.scale) if (self.scale != 1).any() else None
        self.device_shift = self.device.put(self.shift) if self.shift.any() else None

    def expect_codes(self, columns):
        """Have the codes in x checked as it is read, where these Columns are some of a table.

        UserError: they would be scaled.
        """
        if columns and any(columns.sizes):
            expect_codes(self.path, columns, self.scale, self.shift)
            for rows in self.stored_rows("x"):
                rows.hold_codes(columns)

    def stored_rows(self, names="xy"):
        """What is stored of x, of y, or of both, each once."""
        rows = [getattr(split, name) for split in self.splits for name in names]
        rows = dict.fromkeys(getattr(r, "text", r) for r in rows)
        return [r for r in rows if isinstance(r, StoredRows)]

    def put(self, x, y):
        """Set the Inputs to these rows, as the graph computes with them."""
        narrow, x = x.dtype.itemsize <= NARROW, x.astype(self.x.dtype)
        if narrow and self.device_scale is not None:
            x *= self.device_scale
        if narrow and self.device_shift is not None:
            x += self.device_shift
        self.x.value, self.y.value = x, y.astype(self.y.dtype)

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
