"""How a dataset is laid out, and how its rows are gathered by their numbers.

A contiguous dataset is mapped into memory, and its rows are gathered in any order.  Others are
read by whole chunks.

Numbers that are not scaled on the device are scaled as they are read, and rounded then.
Rows of floats are finite, and codes are those of a category: they are checked when they are first
read.  Where the file says which checksum rows have, so are those of any type when all of them are
read, in order.
"""

import mmap
import os
from math import prod
from threading import Lock
from zlib import crc32

import h5py
import numpy as np

from dpedf.data.memory import expect_memory
from dpedf.data.sound import expect_finite, expect_known
from dpedf.data.stored import reading
from dpedf.device import overwrite
from dpedf.errors import UserError, one_line

BLOCK = 1 << 24  # bytes that are read at a time
WINDOW = 1 << 27  # bytes of chunks that are shuffled together


class ArrayRows:
    """The rows of an array, in memory or mapped into it: any row costs the same."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def gather(self, numbers, out):
        if out.dtype == self.array.dtype and self.array.flags.aligned:
            np.take(self.array, numbers, axis=0, out=out, mode="clip")  # "raise" would copy out
        else:  # of which take would copy all rows
            out[...] = self.array[numbers]


class DeviceRows:
    """Rows that are kept on the device: only their numbers are sent there."""

    def __init__(self, stored, device, alive):
        self.shape, self.dtype = stored.shape, stored.dtype.newbyteorder("=")
        try:
            self.array = device.empty(self.shape, self.dtype)
        except MemoryError as error:
            found = f"data.cache = 'device': {one_line(error)}"
            raise UserError(f"{found}, expected 'memory' or 'none'") from None
        for first, rows in stored.blocks():
            overwrite(self.array[first : first + len(rows)], rows.astype(self.dtype))
            alive()

    def take_on_device(self, numbers):
        """These rows, on the device, where their numbers are as well."""
        return self.array.take(numbers, axis=0)


class StoredRows:
    """Rows in a file.  Subclasses read(first, end) and gather them.

    as_stored: the type of a number in the file; dtype: of one that is gathered.
    at_a_time: how many are read at once, in order.  checked: is every number known to be sound?
    crc32: what the checksum of all of them has to be, None where nobody says; proven: is it?
    """

    def __init__(self, stored, where, dataset):
        self.stored, self.where, self.dataset = stored, where, dataset
        with reading(self.where):
            self.shape, dtype = dataset.shape, dataset.dtype
            # truth values are bytes, which may hold more than 0 and 1 in a file
            self.as_stored = self.dtype = np.dtype(np.uint8) if dtype.kind == "b" else dtype
            self.crc32 = int(dataset.attrs["crc32"]) if "crc32" in dataset.attrs else None
            self.proven = self.crc32 is None
        self.nbytes, self.checked = prod(self.shape) * self.dtype.itemsize, self.dtype.kind != "f"
        self.converts, self.scaling, self.columns = False, None, None

    def convert(self, dtype, scaling=None):
        """From now on, rows are of this type.  scaling: x is (x * scale - mean) / std before."""
        self.dtype, self.scaling = np.dtype(dtype), scaling
        self.converts, self.checked = True, False

    def hold_codes(self, columns):
        """From now on, codes are checked too, of the Columns of a table."""
        self.columns, self.checked = columns, False

    def made_of(self, stored, numbers):
        """The rows that are made of stored ones, of which the numbers are given.

        UserError: they are not finite.
        """
        rows = stored
        with np.errstate(over="ignore", invalid="ignore"):
            if self.scaling:
                scale, mean, std = self.scaling
                rows = rows.astype(mean.dtype)  # where x is near its mean, float32 has lost it
                rows *= scale
                rows -= mean
                rows /= std
            rows = rows.astype(self.dtype, copy=False)
        self.expect_sound(stored, rows, numbers)
        return rows

    def expect_sound(self, stored, rows, numbers):
        """UserError: these rows are not finite, or hold codes that are none."""
        if not self.checked:
            expect_finite(self.where, stored, rows, numbers)
            if self.columns:
                expect_known(self.where, stored, numbers, self.columns)

    def blocks(self):
        """Yield (number of the first row, rows) in order, some rows at a time, which are checked.

        UserError: they are damaged, or not finite.
        """
        found = 0
        for first in range(0, self.shape[0], self.at_a_time):
            end = min(first + self.at_a_time, self.shape[0])
            rows = self.read(first, end)
            if not self.proven:
                found = crc32(rows, found)
            yield first, self.made_of(rows, range(first, end))
        self.stored.expect_unchanged()
        if not self.proven and found != self.crc32:
            what = f"CRC-32 {found}, expected {self.crc32} as when it was written"
            raise UserError(f"{self.where}: {what}: it is damaged, or was changed since")
        self.proven = True

    def read_all(self, out, alive):
        """All rows, in order; alive() is called now and then."""
        for first, rows in self.blocks():
            out[first : first + len(rows)] = rows
            alive()


class MappedRows(StoredRows, ArrayRows):
    """The rows of a contiguous dataset."""

    def __init__(self, stored, where, dataset):
        super().__init__(stored, where, dataset)
        self.at_a_time = max(1, BLOCK * self.shape[0] // self.nbytes)
        with reading(self.where):
            self.offset = dataset.id.get_offset()
            end = self.offset + self.nbytes
            if end > stored.as_opened[0]:
                raise UserError(f"{self.where} ends beyond the file, expected a whole file")
            mapped = mmap.mmap(stored.descriptor, end, access=mmap.ACCESS_READ)
            flat = np.frombuffer(mapped, self.as_stored, prod(self.shape), self.offset)
            self.array = flat.reshape(self.shape)

    def read(self, first, end):
        """These rows, read from the file: so a disk that cannot read them raises an error."""
        rows, done = np.empty((end - first, *self.shape[1:]), self.as_stored), 0
        content, offset = rows.reshape(-1).view(np.uint8), self.offset + self.array[:first].nbytes
        while done < len(content):
            with reading(self.where):
                got = os.preadv(self.stored.descriptor, [content[done:]], offset + done)
            if not got:
                raise UserError(f"{self.where} ends beyond the file, expected a whole file")
            done += got
        return rows

    def gather(self, numbers, out):
        self.stored.expect_unchanged()
        rows = out
        if self.converts:
            rows = self.array[numbers]
        else:
            super().gather(numbers, out)
        self.stored.expect_unchanged()  # or the end of a page may have become zeros
        if self.converts:
            out[...] = self.made_of(rows, numbers)
        else:
            self.expect_sound(rows, rows, numbers)


class ChunkedRows(StoredRows):
    """The rows of a dataset that is read by whole chunks, of which the newest are kept."""

    def __init__(self, stored, where, dataset):
        super().__init__(stored, where, dataset)
        N, row = self.shape[0], self.nbytes // self.shape[0]
        chunk = dataset.chunks[0] if dataset.chunks else max(1, min(4096, BLOCK // row))
        self.chunk = self.at_a_time = min(N, chunk)
        expect_memory(f"{self.where}: chunks of {self.chunk:,} rows", 2 * self.chunk * row)
        self.kept, self.lock = {}, Lock()
        self.window = max(2, WINDOW // (self.chunk * row))  # chunks

    def read(self, first, end):
        with reading(self.where):
            return self.stored.read(self.dataset, slice(first, end)).view(self.as_stored)

    def gather(self, numbers, out):
        self.stored.expect_unchanged()
        chunk = numbers // self.chunk
        with self.lock:  # the loader's thread and an evaluation may both be here
            for c in np.unique(chunk):
                first = c * self.chunk
                if c not in self.kept:
                    if len(self.kept) > 2 * self.window:
                        del self.kept[next(iter(self.kept))]
                    rows = self.read(first, first + self.chunk)
                    self.kept[c] = self.made_of(rows, range(first, first + self.chunk))
                of_this_chunk = chunk == c
                out[of_this_chunk] = self.kept[c][numbers[of_this_chunk] - first]
        self.stored.expect_unchanged()


class NoRows(StoredRows):
    """A dataset of 0 rows."""

    at_a_time = 1

    def gather(self, numbers, out):
        """Nothing: no row has a number."""


def rows_of(stored, name, may_be_empty=False):
    """The rows of a dataset, as fast as its layout allows; None where there is no such dataset.

    UserError: it is damaged, or holds no rows of numbers, or not all rows that it declares.
    """
    held = stored.dataset(name)
    if held is None:
        return None
    where, (holder, dataset) = f"{stored.path}: {name}", held
    if holder is not stored:
        where = f"{where} is {dataset.name} of {holder.path}"
    with reading(where):
        try:
            shape, dtype = dataset.shape, dataset.dtype
        except (TypeError, ValueError) as error:  # such as integers of three bytes
            raise UserError(f"{where}: {one_line(error)}, expected rows of numbers") from None
        if dtype.kind not in "biuf" or not shape or 0 in shape[1:]:
            found = f"{dtype} of shape {shape}"
            raise UserError(f"{where}: {found}, expected rows of numbers")
        if not (shape[0] or may_be_empty):
            raise UserError(f"{where}: 0 rows, expected some")
        # of numbers in a format that is not this machine's, HDF5 makes such
        as_stored = dataset.id.get_type().equal(h5py.h5t.py_create(dtype))
        mapped = as_stored and dataset.id.get_offset() is not None
    kind = (MappedRows if mapped else ChunkedRows) if shape[0] else NoRows
    return kind(holder, where, dataset)
