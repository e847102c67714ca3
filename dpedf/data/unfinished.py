"""A data file that is being written, in memory that does not grow with its rows.

HDF5 can end the process where a disk is full.  So it writes into memory, and that only what stands
around the rows: it gives each dataset its place in the file, where the rows go by calls of our own.
"""

import errno
import mmap
import os
from io import SEEK_SET, RawIOBase
from math import prod
from zlib import crc32

import h5py
import numpy as np
from tqdm import tqdm

from dpedf.data.spool import BLOCK
from dpedf.errors import UserError


class Around(RawIOBase):
    """A file in memory, as HDF5 uses one; of it, only what was written takes memory."""

    def __init__(self):
        self.pieces, self.place, self.size = [], 0, 0  # (where, bytes), as they were written

    def seek(self, place, whence=SEEK_SET):
        self.place = place if whence == SEEK_SET else self.size + place
        return self.place

    def tell(self):
        return self.place

    def write(self, piece):
        self.pieces.append((self.place, bytes(piece)))
        self.place += len(piece)
        self.size = max(self.size, self.place)
        return len(piece)

    def readinto(self, out):
        out[:] = bytes(len(out))
        for place, piece in self.pieces:
            low, high = max(place, self.place), min(place + len(piece), self.place + len(out))
            if low < high:
                out[low - self.place : high - self.place] = piece[low - place : high - place]
        self.place += len(out)
        return len(out)

    def truncate(self, size):
        self.size = size
        return size


class Unfinished:
    """A data file in the making.  hdf5: it, as h5py has it; its attributes may be set.

    path: where it will be.  file: an empty one, to which all is written when the with block ends.
    """

    def __init__(self, path, file):
        self.path, self.file, self.around, self.datasets = path, file, Around(), []
        # where numbers are at odd addresses, NumPy is slower, and may copy all of them to take some
        aligned = {"alignment_threshold": 1, "alignment_interval": 64}
        self.hdf5 = h5py.File(self.around, "w", libver="v108", **aligned)
        self.bar = tqdm(unit="B", unit_scale=True, total=0, leave=False, disable=None, delay=0.5)

    def __enter__(self):
        return self

    def __exit__(self, failed, *_):
        self.bar.close()
        for dataset in self.datasets:
            dataset.made.attrs["crc32"] = np.uint32(dataset.crc)
        self.hdf5.close()
        if not failed:
            assert all(dataset.place == dataset.end for dataset in self.datasets)
            for place, piece in self.around.pieces:
                self.write(place, piece)
            self.file.truncate(self.around.size)

    def write(self, place, content):
        self.file.seek(place)
        self.file.write(content)

    def dataset(self, name, shape, dtype):
        """A new dataset for rows.  TypeError: of no numbers.  OSError: the disk is too small."""
        where = f"{self.path}: {name}"
        if np.dtype(dtype).kind not in "biuf":
            raise TypeError(f"{where} is of {dtype}, expected numbers")
        if not shape:
            raise UserError(f"{where} is a single number, expected rows")
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        made = self.hdf5.create_dataset(name, shape, dtype, dcpl=properties)
        self.bar.total += made.nbytes
        if made.nbytes and hasattr(os, "posix_fallocate"):
            try:  # now, rather than after hours of work
                os.posix_fallocate(self.file.fileno(), made.id.get_offset(), made.nbytes)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # this disk cannot tell
                    raise
        self.datasets.append(Unwritten(self, made, where))
        return self.datasets[-1]


class Unwritten:
    """A dataset, to which its rows are appended.  crc: the CRC-32 of those that are."""

    def __init__(self, unfinished, made, where):
        self.unfinished, self.made, self.where = unfinished, made, where
        self.place, self.crc = made.id.get_offset() or 0, 0  # None where there are no rows
        self.end = self.place + made.nbytes

    def append(self, rows):
        shape, dtype = self.made.shape[1:], self.made.dtype
        if rows.shape[1:] != shape or not np.can_cast(rows.dtype, dtype):
            found = f"{self.where}: rows of {rows.shape[1:]} of {rows.dtype}"
            raise UserError(f"{found}, expected {shape} of {dtype} as those before")
        content = rows.astype(dtype, "C", copy=False)
        if content.size:
            self.unfinished.write(self.place, content.data)
            self.place, self.crc = self.place + content.nbytes, crc32(content, self.crc)
            self.unfinished.bar.update(content.nbytes)


def blocks_of(*arrays):
    """Yield consecutive rows of arrays, all of which have as many; some at a time."""
    row = sum(prod(array.shape[1:]) * array.dtype.itemsize for array in arrays)
    step = max(1, BLOCK // max(1, row))
    for first in range(0, arrays[0].shape[0], step):
        yield [array[first : first + step] for array in arrays]
        for array in arrays:
            mapped = getattr(array, "_mmap", None)  # None too of a copy, which is a memmap as well
            if mapped and array.mode != "c":
                mapped.madvise(mmap.MADV_DONTNEED)  # what was read need not stay in memory


def checksum(rows):
    """The CRC-32 of all rows."""
    crc = 0
    for (block,) in blocks_of(rows):
        crc = crc32(np.ascontiguousarray(block), crc)
    return crc
