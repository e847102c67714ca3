"""A data file, opened: its splits, and the Inputs that its rows become.

A file holds groups train, test and perhaps valid, each with x (N, ...) and y (N,) or (N, ...).
Its attributes say where it comes from, how many classes there are, and how stored values become
inputs: (x * scale - mean) / std.  Integers stay integers until the device computes with them, so
that a quarter of the bytes travels.

Or each group holds a text (M,) of integers, which are never scaled.  Rows of T are cut from it:
x[i] is text[i*stride : i*stride + T], and y[i] the same shifted by one.
"""

import os

import numpy as np

from dpedf.data.layout import ArrayRows, DeviceRows, TextWindows, rows_of
from dpedf.data.memory import MEMORY, expect_memory
from dpedf.data.split import Split
from dpedf.data.stored import Stored
from dpedf.device import CPU
from dpedf.edf import Input
from dpedf.errors import UserError, concerning, one_line
from dpedf.parallel.shared_memory import shared_array


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
        self.path, self.dtype, self.device = path, np.dtype(dtype), device or CPU()
        self.window, self.stride = window, stride or window
        if stride and not window:
            raise UserError(f"data.stride = {stride}, expected 0, or data.window too")
        try:
            self.stored = Stored(path)
        except FileNotFoundError:
            recipe = f"{os.path.splitext(path)[0]}.py"
            made_by = "python data/text.py FILE" if window else "dpedf.data.write"
            make = f"python {recipe}" if os.path.exists(recipe) else made_by
            raise UserError(f"{path}: no such file, make it with: {make}") from None
        self.train = self.split("train")
        self.test = self.split("test")
        if self.stored.has("valid"):
            self.valid = self.split("valid")
        else:
            self.hold_out(valid, seed)
        scale, mean, std = (self.scaling(*a) for a in (("scale", 1), ("mean", 0), ("std", 1)))
        with np.errstate(over="ignore"):
            self.scale, self.shift = (scale / std).astype(dtype), (-mean / std).astype(dtype)
        if not (np.isfinite(self.scale).all() and np.isfinite(self.shift).all()):
            found = one_line(f"x * {self.scale} + {self.shift} by attributes scale, mean and std")
            raise UserError(f"{path}: {found}, expected what {self.dtype} can hold")
        self.device_scale = self.device.put(self.scale) if (self.scale != 1).any() else None
        self.device_shift = self.device.put(self.shift) if self.shift.any() else None
        numbers = symbols = {"dtype": self.dtype}
        if self.train.y.dtype.kind in "iu":
            symbols = {"dtype": np.dtype(np.intp), "classes": self.classes()}
        self.x = Input(self.train.x.shape[1:], **(symbols if window else numbers))
        self.y = Input(self.train.y.shape[1:], **symbols)

    def split(self, group):
        """The Split of a group, whose datasets are checked."""
        if self.window:
            return self.windows(self.text(group), self.stride if group == "train" else self.window)
        x, y = (rows_of(self.stored, f"{group}/{name}") for name in "xy")
        for name, found in ("x", x), ("y", y):
            if found is None:
                has_text = self.stored.dataset(f"{group}/text")
                expected = "data.window, since it has a text" if has_text else "x and y"
                raise UserError(f"{self.path}: no dataset {group}/{name}, expected {expected}")
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
        raise UserError(f"{self.path}: {group}/text: {what}")

    def windows(self, text, stride):
        """The Split of a text into rows that are so many symbols apart."""
        x, y = (TextWindows(text, self.window, stride, shift) for shift in (0, 1))
        return self.whole(x, y)

    def hold_out(self, valid, seed):
        """Split rows of validation off train, which also loses the rows that overlap them."""
        train, T, stride = self.train, self.window or 1, self.stride or 1
        apart = self.windows(train.x.text, T) if self.window else train
        random = np.random.Generator(np.random.Philox(key=seed))
        held = np.sort(random.permutation(apart.numbers)[:valid])
        # for each row of train, the first and the last of the rows T apart that it overlaps
        first, last = train.numbers * stride // T, -(-train.numbers * stride // T)
        free = ~(np.isin(first, held) | np.isin(last, held))
        if not free.any():
            what = f"{len(held)} of the {len(apart)} rows of {self.path}"
            raise UserError(f"data.valid = {valid}: {what}, expected some left to learn from")
        self.valid = Split(apart.x, apart.y, held, self.device)
        self.train = Split(train.x, train.y, train.numbers[free], self.device)

    def scaling(self, name, default):
        """An attribute that scales the rows of the file, as float64; a text has none."""
        found = default if self.window else self.stored.attribute(name, default)
        numbers, shape = np.asarray(found), self.train.x.shape[1:]
        try:
            np.broadcast_to(numbers, shape)
            fits = numbers.dtype.kind in "iuf" and np.isfinite(numbers).all()
        except ValueError:
            fits = False
        if not fits or (name == "std" and (numbers == 0).any()):
            what = f"numbers for rows of {shape}, and no std of 0"
            raise UserError(
                f"{self.path}: attribute {name} = {one_line(repr(found))}, expected {what}"
            )
        return numbers.astype(np.float64)

    def classes(self):
        """How many classes the labels have, or symbols a text has; every one of them is checked."""
        says = "symbol {} at {}" if self.window else "label {} in row {}"
        classes, stored = self.stored.attribute("classes", None), self.stored_rows("y")
        if classes is None:
            largest = max(int(labels.max()) for _, labels in stored[0].blocks())
            classes = largest + 1
        if not isinstance(classes, int | np.integer):
            found = one_line(repr(classes))
            raise UserError(f"{self.path}: attribute classes = {found}, expected an integer")
        for rows in stored:
            for first, labels in rows.blocks():
                for at in np.argwhere((labels < 0) | (labels >= classes))[:1]:
                    label = says.format(labels[tuple(at)], first + at[0])
                    raise UserError(f"{rows.where}: {label}, expected 0..{classes - 1}")
        return int(classes)

    def stored_rows(self, names="xy"):
        """What is stored of x, of y, or of both, each once."""
        splits = self.train, self.valid, self.test
        rows = [getattr(split, name) for split in splits for name in names]
        return list(dict.fromkeys(getattr(r, "text", r) for r in rows))

    def put(self, x, y):
        """Set the Inputs to these rows, as the graph computes with them."""
        x = x.astype(self.x.dtype)
        if self.device_scale is not None:
            x *= self.device_scale
        if self.device_shift is not None:
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
                needed = sum(rows.nbytes for rows in stored)
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
