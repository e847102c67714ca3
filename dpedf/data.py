"""Data files: HDF5 in, shards of minibatches out; and the writer that recipes use.

A file holds groups train, test and perhaps valid, each with x (N, ...) and y (N,) or (N, ...).
Its attributes say where it comes from, how many classes there are, and what turns stored
values into inputs: (x * scale - mean) / std.  Integers stay integers until they are computed
with, so that a quarter of the bytes travels.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np

from dpedf.edf import Input
from dpedf.errors import UserError

BLOCK = 16  # minibatches that the loader's thread hands over at a time
WINDOW = 1 << 27  # bytes of chunks that are shuffled together, where a file is not mapped
MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


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


class Mapped:
    """A dataset as an array, in memory or mapped into it: any row costs the same."""

    window = None

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def take(self, rows, out):
        np.take(self.array, rows, axis=0, out=out, mode="clip")  # "raise" would copy out

    def read(self, out):
        """All rows, in order."""
        out[...] = self.array


class Chunks:
    """A dataset that is read by whole chunks of rows; the newest ones are kept."""

    def __init__(self, dataset, chunk):
        self.dataset, self.shape, self.dtype = dataset, dataset.shape, dataset.dtype
        self.chunk, self.kept = chunk, {}
        nbytes = chunk * dataset.nbytes // len(dataset)
        self.window = max(2, WINDOW // nbytes)  # chunks

    def take(self, rows, out):
        chunk = rows // self.chunk
        for c in np.unique(chunk):
            if c not in self.kept:
                if len(self.kept) > 2 * self.window:
                    del self.kept[next(iter(self.kept))]
                self.kept[c] = self.dataset[c * self.chunk : (c + 1) * self.chunk]
            here = chunk == c
            out[here] = self.kept[c][rows[here] - c * self.chunk]

    def read(self, out):
        """All rows, in order."""
        for first in range(0, len(out), self.chunk):
            rows = slice(first, first + self.chunk)
            out[rows] = self.dataset[rows]


def source(path, dataset):
    """The rows of a dataset, as fast as its layout and the memory of this machine allow."""
    offset = dataset.id.get_offset()
    if offset is None or dataset.nbytes > MEMORY // 2:
        return Chunks(dataset, dataset.chunks[0] if dataset.chunks else 4096)
    if offset + dataset.nbytes > os.path.getsize(path):  # to touch such a map kills the process
        raise UserError(f"{path}: {dataset.name} ends beyond the file, expected a whole file")
    return Mapped(np.asarray(np.memmap(path, dataset.dtype, "r", offset, dataset.shape)))


class Split:
    """Some rows of a group: to learn from, to validate or to test on."""

    def __init__(self, x, y, rows):
        self.x, self.y, self.rows = x, y, rows

    def __len__(self):
        return len(self.rows)

    def take(self, rows):
        """x, (len(rows), ...), and y of these rows of the group, as they are stored."""
        x = np.empty((len(rows), *self.x.shape[1:]), self.x.dtype)
        y = np.empty((len(rows), *self.y.shape[1:]), self.y.dtype)
        self.x.take(rows, x)
        self.y.take(rows, y)
        return x, y

    @property
    def global_shuffle(self):
        """Can a row meet any other?  Or only those whose chunks share a window with its own?"""
        return self.x.window is None or self.x.window * self.x.chunk >= self.x.shape[0]

    def order(self, seed, epoch):
        """All rows once, shuffled: a function of (seed, epoch), the same on every rank."""
        random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
        rows = random.permutation(self.rows)
        if self.global_shuffle:
            return rows
        chunk = rows // self.x.chunk
        window = random.permutation(chunk.max() + 1) // self.x.window  # of each chunk
        return rows[np.argsort(window[chunk], kind="stable")]

    def minibatches(self, seed, epoch, B, shard, start=0):
        """Yield (x, y, b): this rank's rows of each minibatch of an epoch; it has b in all.

        B: rows of a minibatch, all ranks together; the last one may have less.
        shard(b): where in b rows those of this rank start and end.
        start: how many minibatches of the epoch to skip.
        """
        order, cuts = self.order(seed, epoch), []
        for first in range(start * B, len(order), B):
            b = min(B, len(order) - first)
            low, high = shard(b)
            cuts.append((first + low, first + high, b))

        def load(cuts):
            x, y = self.take(np.concatenate([order[low:high] for low, high, b in cuts]))
            minibatches, end = [], 0
            for low, high, b in cuts:
                here = slice(end, end := end + high - low)
                minibatches.append((x[here], y[here], b))
            return minibatches

        with ThreadPoolExecutor(1, "loader") as loader:
            size, ahead = 1, loader.submit(load, cuts[:1])  # a small block is there at once
            while cuts:
                cuts, size = cuts[size:], min(2 * size, BLOCK)
                block, ahead = ahead, cuts and loader.submit(load, cuts[:size])
                yield from block.result()


class Data:
    """An open data file, and the Inputs x and y that its rows are put into.

    valid: how many rows to hold out of train, by seed, where there is no group valid.
    UserError: the file is not one that dpedf.data.write could have written.
    """

    def __init__(self, path, valid=0, seed=0, dtype=np.float32):
        self.path, self.dtype = path, np.dtype(dtype)
        recipe = Path(path).with_suffix(".py")
        if not Path(path).exists():
            make = f"python {recipe}" if recipe.exists() else "a recipe of dpedf.data.write"
            raise UserError(f"{path}: no such file, make it with: {make}")
        try:
            self.file = h5py.File(path, "r", locking=False)
        except OSError as error:
            raise UserError(f"{path}: {error}, expected a whole HDF5 file") from None
        self.train, self.test = self.split("train"), self.split("test")
        if "valid" in self.file:
            self.valid = self.split("valid")
        else:
            self.hold_out(valid, seed)
        found = {"scale": 1.0, "mean": 0.0, "std": 1.0, "classes": None} | dict(self.file.attrs)
        self.scale = np.asarray(found["scale"] / found["std"], dtype)
        self.shift = np.asarray(-found["mean"] / found["std"], dtype)
        self.x = Input(self.train.x.shape[1:], self.dtype)
        self.y = Input(self.train.y.shape[1:], self.dtype)
        if self.train.y.dtype.kind in "iu":
            self.y.dtype = np.dtype(np.intp)
            self.y.classes = self.classes(found["classes"])

    def split(self, group):
        """The rows of a group, after a look at its datasets."""
        for name in "xy":
            if not isinstance(self.file.get(f"{group}/{name}"), h5py.Dataset):
                raise UserError(f"{self.path}: no dataset {group}/{name}, expected x and y")
        x, y = self.file[group]["x"], self.file[group]["y"]
        for name, found in ("x", x), ("y", y):
            first = self.file.get(f"train/{name}")
            if found.dtype.kind not in "iuf" or not found.shape:
                what = f"of type {found.dtype}, shape {found.shape}, expected rows of numbers"
            elif found.shape[1:] != first.shape[1:]:
                what = f"rows of {found.shape[1:]}, expected {first.shape[1:]} as in train"
            elif not 0 < len(found) == len(x):
                what = f"{len(found)} rows, expected as many as x, and not none"
            else:
                continue
            raise UserError(f"{self.path}: {group}/{name}: {what}")
        sources = (source(self.path, dataset) for dataset in (x, y))
        return Split(*sources, np.arange(len(x)))

    def hold_out(self, valid, seed):
        """Split validation rows off train."""
        x, y, rows = self.train.x, self.train.y, self.train.rows
        if valid >= len(rows):
            raise UserError(
                f"data.valid = {valid}, expected less than the {len(rows)} of {self.path}"
            )
        rows = np.random.Generator(np.random.Philox(key=seed)).permutation(rows)
        self.valid = Split(x, y, np.sort(rows[:valid]))
        self.train = Split(x, y, np.sort(rows[valid:]))

    def classes(self, classes):
        """How many classes the labels have, after a look at every label."""
        groups = [group for group in ("train", "valid", "test") if group in self.file]
        labels = {group: self.file[group]["y"][...] for group in groups}
        classes = int(labels["train"].max()) + 1 if classes is None else int(classes)
        for group, y in labels.items():
            wrong = np.argwhere((y < 0) | (y >= classes))
            if len(wrong):
                label = f"label {y[tuple(wrong[0])]} in row {wrong[0][0]}"
                raise UserError(f"{self.path}: {group}/y: {label}, expected 0..{classes - 1}")
        return classes

    def put(self, x, y):
        """Set the Inputs to these rows, as the graph computes with them."""
        x = x.astype(self.dtype)
        if self.scale.size > 1 or self.scale != 1:
            x *= self.scale
        if self.shift.any():
            x += self.shift
        self.x.value, self.y.value = x, y.astype(self.y.dtype)

    @property
    def fits_in_memory(self):
        return os.path.getsize(self.path) <= MEMORY // 2

    def read_through(self):
        """Read the file once, in order: from then on its rows come from memory in any order."""
        with open(self.path, "rb") as file:
            while file.read(1 << 24):
                pass

    def keep_in_memory(self, ranks):
        """Replace what is streamed by one copy in the memory of each host."""
        kept = {}
        for split in self.train, self.valid, self.test:
            for name in "xy":
                streamed = getattr(split, name)
                if streamed not in kept:
                    array = ranks.shared(streamed.shape, streamed.dtype, streamed.read)
                    kept[streamed] = Mapped(array)
                setattr(split, name, kept[streamed])
