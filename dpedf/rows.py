"""Rows of a data set: where they lie, in which order they are learned from, how they stream.

A contiguous dataset is mapped into memory, and its rows are gathered in any order.  Others are
read by whole chunks, whose order is shuffled, and their rows within a window of chunks.  The rows
of a text are cut from it as they are gathered.  A thread gathers blocks of minibatches ahead of
those that are computed with.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from math import prod
from threading import Lock

import numpy as np

from dpedf.device import overwrite
from dpedf.errors import UserError

BLOCK = 16  # minibatches that the loader's thread hands over at a time
BYTES = 1 << 25  # that it hands over at a time, where minibatches are large
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
        if out.dtype == self.dtype:
            np.take(self.array, rows, axis=0, out=out, mode="clip")  # "raise" would copy out
        else:  # bytes in the order of another machine
            out[...] = self.array[rows]

    def read(self, out):
        """All rows, in order."""
        out[...] = self.array


class Resident:
    """A dataset as an array of the device: row numbers travel there, not rows."""

    def __init__(self, source, device):
        self.shape, self.dtype = source.shape, source.dtype.newbyteorder("=")
        self.array, N = device.empty(self.shape, self.dtype), self.shape[0]
        size = max(1, BYTES * N // self.array.nbytes)  # rows at a time
        for first in range(0, N, size):
            rows = np.arange(first, min(first + size, N))
            here = np.empty((len(rows), *self.shape[1:]), self.dtype)
            source.take(rows, here)
            overwrite(self.array[first : first + size], here)

    def at(self, rows):
        """These rows, on the device, as their numbers are."""
        return self.array.take(rows, axis=0)


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


class Pieces:
    """A text as rows: row i is text[a : a + T], a = i * stride + shift.

    text: (M,), as one of the sources above.  put: what brings an array to where it lies.  There
    are as many rows as are whole with a shift of 1.
    """

    def __init__(self, text, T, stride, shift, put=np.asarray):
        self.text, self.T, self.stride, self.shift = text, T, stride, shift
        self.shape, self.dtype = ((text.shape[0] - 1 - T) // stride + 1, T), text.dtype
        self.positions = put(np.arange(shift, shift + T))
        if isinstance(text, Chunks):
            self.chunk = max(1, text.chunk // stride)
            self.window = max(2, text.window * text.chunk // (self.chunk * stride))

    def places(self, rows):
        """Where the symbols of these rows are in the text, (len(rows), T)."""
        return rows[:, None] * self.stride + self.positions

    def take(self, rows, out):
        self.text.take(self.places(rows), out)

    def at(self, rows):
        """These rows, on the device, as their numbers are."""
        return self.text.at(self.places(rows))

    def of(self, text, put):
        """The same rows of the same text where that lies elsewhere."""
        return Pieces(text, self.T, self.stride, self.shift, put)


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

    x, y: where they lie.  resident: is that on the device?  chunk: how many rows are shuffled as
    one, window: how many chunks their rows can then meet; a function of the file's layout,
    however x and y are kept.
    """

    resident = False

    def __init__(self, x, y, rows, device):
        self.x, self.y, self.rows, self.device = x, y, rows, device
        self.chunk, self.window = getattr(x, "chunk", 1), getattr(x, "window", x.shape[0])

    def __len__(self):
        return len(self.rows)

    def gathered(self, rows, empty=np.empty):
        """What is sent to the device of these rows: x, (len(rows), ...), and y, as stored.

        empty(shape, dtype) makes the arrays.  Where rows lie on the device, they are gathered
        there, by received, and it is their numbers that are sent.
        """
        if self.resident:
            sent = [empty(rows.shape, rows.dtype)]
            sent[0][...] = rows
        else:
            both = self.x, self.y
            sent = [empty((len(rows), *s.shape[1:]), s.dtype.newbyteorder("=")) for s in both]
            for stored, array in zip(both, sent, strict=True):
                stored.take(rows, array)
        return sent

    def received(self, *sent):
        """x and y, on the device, of what gathered sent there."""
        return (self.x.at(*sent), self.y.at(*sent)) if self.resident else sent

    def take(self, rows):
        """x and y of these rows, on the device, at once."""
        return self.received(*map(self.device.put, self.gathered(rows)))

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
        order, batches, sizes = self.order(seed, epoch), [], []
        for first in range(start * B, len(order), B):
            sizes.append(min(B, len(order) - first))
            low, high = shard(sizes[-1])
            batches.append(order[first + low : first + high])
        for (x, y), b in zip(self.stream(batches), sizes, strict=True):
            yield x, y, b

    def stream(self, batches):
        """Yield (x, y) of each batch of rows, while a thread gathers those that follow."""

        def load(batches, slot):
            slot.send(self.gathered(np.concatenate(batches), slot.empty))

        row = sum(prod(source.shape[1:]) * source.dtype.itemsize for source in (self.x, self.y))
        most = max(1, min(BLOCK, BYTES // (1 + row * max(map(len, batches), default=0))))
        enter, here, there = self.device.enter_thread, self.device.slot(), self.device.slot()
        with closing(here), closing(there), ThreadPoolExecutor(1, "loader", enter) as loader:
            size = 1  # a small block is there at once
            ahead = batches and loader.submit(load, batches[:1], here)
            while batches:
                block, batches, size = batches[:size], batches[size:], min(2 * size, most)
                ahead.result()
                ahead = batches and loader.submit(load, batches[:size], there)
                (x, y), end = self.received(*here.receive()), 0
                for rows in block:
                    part = slice(end, end := end + len(rows))
                    yield x[part], y[part]
                here.release()
                here, there = there, here
