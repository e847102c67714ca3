"""How a dataset is laid out, and how its rows are gathered by their numbers.

A contiguous dataset is mapped into memory, and its rows are gathered in any order.  Others are
read by whole chunks.  The rows of a text are windows, cut from it as they are gathered.
"""

import os
from threading import Lock

import numpy as np

from dpedf.device import overwrite
from dpedf.errors import UserError

COPIED = 1 << 25  # bytes that are copied to the device at a time
WINDOW = 1 << 27  # bytes of chunks that are shuffled together


class ArrayRows:
    """The rows of an array, in memory or mapped into it: any row costs the same."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def gather(self, numbers, out):
        if out.dtype == self.dtype:
            np.take(self.array, numbers, axis=0, out=out, mode="clip")  # "raise" would copy out
        else:  # bytes in the order of another machine
            out[...] = self.array[numbers]

    def read_all(self, out):
        """All rows, in order."""
        out[...] = self.array


class DeviceRows:
    """Rows that are kept on the device: only their numbers are sent there."""

    def __init__(self, stored, device):
        self.shape, self.dtype = stored.shape, stored.dtype.newbyteorder("=")
        self.array, N = device.empty(self.shape, self.dtype), self.shape[0]
        size = max(1, COPIED * N // self.array.nbytes)  # rows at a time
        for first in range(0, N, size):
            numbers = np.arange(first, min(first + size, N))
            rows = np.empty((len(numbers), *self.shape[1:]), self.dtype)
            stored.gather(numbers, rows)
            overwrite(self.array[first : first + size], rows)

    def take_on_device(self, numbers):
        """These rows, on the device, where their numbers are as well."""
        return self.array.take(numbers, axis=0)


class ChunkedRows:
    """The rows of a dataset that is read by whole chunks, of which the newest are kept."""

    def __init__(self, dataset, chunk):
        self.dataset, self.shape, self.dtype = dataset, dataset.shape, dataset.dtype
        self.chunk, self.kept, self.lock = chunk, {}, Lock()
        self.window = max(2, WINDOW * len(dataset) // (chunk * dataset.nbytes))  # chunks

    def gather(self, numbers, out):
        chunk = numbers // self.chunk
        with self.lock:  # the loader's thread and an evaluation may both be here
            for c in np.unique(chunk):
                if c not in self.kept:
                    if len(self.kept) > 2 * self.window:
                        del self.kept[next(iter(self.kept))]
                    self.kept[c] = self.dataset[c * self.chunk : (c + 1) * self.chunk]
                of_this_chunk = chunk == c
                out[of_this_chunk] = self.kept[c][numbers[of_this_chunk] - c * self.chunk]

    def read_all(self, out):
        """All rows, in order."""
        for first in range(0, len(out), self.chunk):
            part = slice(first, first + self.chunk)
            out[part] = self.dataset[part]


class TextWindows:
    """The windows of a text as rows: row i is text[a : a + T] with a = i * stride + shift.

    text: (M,), as rows of one of the kinds above.  put: brings an array to where the text is.
    There are as many rows as are whole with a shift of 1.
    """

    def __init__(self, text, T, stride, shift, put=np.asarray):
        self.text, self.T, self.stride, self.shift = text, T, stride, shift
        self.shape, self.dtype = ((text.shape[0] - 1 - T) // stride + 1, T), text.dtype
        self.offsets = put(np.arange(shift, shift + T))
        if isinstance(text, ChunkedRows):
            self.chunk = max(1, text.chunk // stride)
            self.window = max(2, text.window * text.chunk // (self.chunk * stride))

    def positions(self, numbers):
        """The positions in the text of the symbols of these rows, (len(numbers), T)."""
        return numbers[:, None] * self.stride + self.offsets

    def gather(self, numbers, out):
        self.text.gather(self.positions(numbers), out)

    def take_on_device(self, numbers):
        """These rows, on the device, where their numbers are as well."""
        return self.text.take_on_device(self.positions(numbers))

    def moved_to(self, text, put):
        """The same windows of a copy of the text that is somewhere else."""
        return TextWindows(text, self.T, self.stride, self.shift, put)


def rows_of(path, dataset):
    """The rows of an HDF5 dataset, as fast as its layout allows."""
    offset = dataset.id.get_offset()
    if offset is None:
        return ChunkedRows(dataset, dataset.chunks[0] if dataset.chunks else 4096)
    if offset + dataset.nbytes > os.path.getsize(path):  # touching such a map kills the process
        raise UserError(f"{path}: {dataset.name} ends beyond the file, expected a whole file")
    return ArrayRows(np.asarray(np.memmap(path, dataset.dtype, "r", offset, dataset.shape)))
