"""Rows of a data set: where they lie, in which order they are learned from, how they stream.

A contiguous dataset is mapped into memory, and its rows are gathered in any order.  Others are
read by whole chunks, whose order is shuffled, and their rows within a window of chunks.  A
thread gathers blocks of minibatches ahead of those that are computed with.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np

from dpedf.errors import UserError

BLOCK = 16  # minibatches that the loader's thread hands over at a time
WINDOW = 1 << 27  # bytes of chunks that are shuffled together
MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def fits_in_memory(nbytes):
    """May the page cache be expected to keep so much?"""
    return nbytes <= MEMORY // 2


class Mapped:
    """A dataset as an array, in memory or mapped into it: any row costs the same."""

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
        self.chunk, self.kept, self.lock = chunk, {}, Lock()
        self.window = max(2, WINDOW * len(dataset) // (chunk * dataset.nbytes))  # chunks

    def take(self, rows, out):
        chunk = rows // self.chunk
        with self.lock:  # the loader's thread and an evaluation may both be here
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
    """The rows of a dataset, as fast as its layout allows."""
    offset = dataset.id.get_offset()
    if offset is None:
        return Chunks(dataset, dataset.chunks[0] if dataset.chunks else 4096)
    if offset + dataset.nbytes > os.path.getsize(path):  # to touch such a map kills the process
        raise UserError(f"{path}: {dataset.name} ends beyond the file, expected a whole file")
    return Mapped(np.asarray(np.memmap(path, dataset.dtype, "r", offset, dataset.shape)))


class Split:
    """Some rows of a group: to learn from, to validate or to test on.

    x, y: where they lie.  chunk: how many rows are shuffled as one, window: how many chunks
    their rows can then meet; a function of the file's layout, however x and y are kept.
    """

    def __init__(self, x, y, rows):
        self.x, self.y, self.rows = x, y, rows
        self.chunk, self.window = getattr(x, "chunk", 1), getattr(x, "window", x.shape[0])

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
        return self.window * self.chunk >= self.x.shape[0]

    def order(self, seed, epoch):
        """All rows once, shuffled: a function of (seed, epoch), the same on every rank."""
        random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
        rows = random.permutation(self.rows)
        if self.global_shuffle:
            return rows
        chunk = rows // self.chunk
        window = random.permutation(chunk.max() + 1) // self.window  # of each chunk
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
