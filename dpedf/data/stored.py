"""An HDF5 file of rows.  What is wrong with it becomes one line."""

import os
from contextlib import contextmanager
from weakref import finalize

import h5py
import numpy as np

from dpedf.data.disk import expect_regular
from dpedf.errors import UserError, one_line

SHOWN = 6  # names in a line
LINKS = 32  # soft links on the way to a dataset: more lead in a circle

# What h5py raises where a file is damaged, depending on which of its bytes are.
DAMAGE = (
    *(OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError),
    *(OverflowError, MemoryError, SystemError),
)


@contextmanager
def reading(where):
    """In the with block h5py reads; what it raises becomes a UserError that begins with where."""
    try:
        yield
    except (UserError, FileNotFoundError):
        raise
    except DAMAGE as error:
        raise UserError(f"{where}: {one_line(error)}, expected a whole HDF5 file") from None


def expect_no_writer(path, descriptor):
    """UserError: this process writes to a file, of which a part may not be on the disk yet."""
    for identifier in h5py.h5f.get_obj_ids(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE):
        if writes_to(identifier, descriptor):
            found = "this process still has it open in h5py to write to it"
            raise UserError(f"{path}: {found}, expected that it is closed first")


def writes_to(identifier, descriptor):
    """Is what HDF5 has open under this identifier the file of a descriptor, and for writing?"""
    try:
        file = h5py.File(identifier)
        writes = file.mode == "r+" and file.driver == "sec2"
        return writes and os.path.sameopenfile(identifier.get_vfd_handle(), descriptor)
    except ValueError:  # it was closed meanwhile
        return False


def text_of(found):
    """An attribute, in which the bytes of a text, alone or in a list, are a str."""
    if isinstance(found, bytes):
        return found.decode()
    if isinstance(found, np.ndarray) and found.dtype.kind in "SO":
        return np.array([text_of(one) for one in found.flat], object).reshape(found.shape)
    return found


class Stored:
    """An open HDF5 file, which has to stay as it is.

    UserError: it cannot be read.  FileNotFoundError: there is none.
    """

    def __init__(self, path):
        self.path = path
        with reading(path):
            expect_regular(path)
            opened = open(path, "rb")
            finalize(self, opened.close)  # after the next one
            self.descriptor = opened.fileno()
            expect_no_writer(path, self.descriptor)
            # HDF5 refuses a name that this process has open in another way, but not this
            self.file = h5py.File(opened, "r")
            finalize(self, self.file.close)  # at the latest while Python can still read
            self.as_opened = self.size_and_time()

    def size_and_time(self):
        status = os.fstat(self.descriptor)
        return status.st_size, status.st_mtime_ns

    def expect_unchanged(self):
        """UserError: somebody wrote to the file.  To touch a map beyond its end kills a process."""
        with reading(self.path):
            now, before = self.size_and_time(), self.as_opened
        if now != before:
            changed = f"its size was {before[0]:,} bytes and is {now[0]:,}"
            if now[0] == before[0]:
                changed = "it has another time of change"
            raise UserError(
                f"{self.path}: somebody has written to it, {changed}, expected a file that stays "
                "as it is"
            )

    def dataset(self, name):
        """The dataset of this name; None where there is none."""
        with reading(f"{self.path}: {name}"):
            found = self.find(self.file, name, LINKS)
            return found if isinstance(found, h5py.Dataset) else None

    def has(self, name):
        """Is there anything of this name?"""
        with reading(f"{self.path}: {name}"):
            return self.find(self.file, name, LINKS) is not None

    def find(self, group, name, links):
        """The object of this name below a group, in this very file; None where there is none.

        HDF5 itself would open whatever other file a link points to, and wait if it is a FIFO.
        """
        for part in name.split("/"):
            if part in ("", "."):
                continue
            if not isinstance(group, h5py.Group) or group.get(part, getlink=True) is None:
                return None
            link = group.get(part, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                found = f"{part} is in another file, {link.filename!r}"
                raise UserError(f"{self.path}: {found}, expected all rows in this one")
            if isinstance(link, h5py.SoftLink):
                if not links:
                    raise UserError(f"{self.path}: the links of {part} lead in a circle")
                start = self.file if link.path.startswith("/") else group
                group = self.find(start, link.path, links - 1)
            else:
                group = group[part]
        return group

    def attribute(self, name, default):
        """An attribute of the file, or a dataset beside its groups: HDF5 may limit attributes.

        A list of one thing is that thing, and text is a str, however it is stored.
        """
        with reading(f"{self.path}: attribute {name}"):
            found = self.file.attrs.get(name)
            if found is None and (dataset := self.dataset(name)) is not None:
                found = dataset[()]
            if isinstance(found, np.ndarray) and found.size == 1:
                found = found.flat[0]
            return default if found is None else text_of(found)

    def unread(self, attributes, groups, datasets):
        """What the file holds beside attributes, groups and, in these, datasets of these names.

        A list of one line, or of none.
        """
        with reading(self.path):
            found = [name for name in self.file if name not in (*groups, *attributes)]
            for group in groups:
                inside = self.find(self.file, group, LINKS)
                names = inside if isinstance(inside, h5py.Group) else ()
                found += [f"{group}/{name}" for name in names if name not in datasets]
            found += [f"attribute {name}" for name in self.file.attrs if name not in attributes]
        if not found:
            return []
        names = ", ".join(found[:SHOWN]) + f" and {len(found) - SHOWN} more" * (len(found) > SHOWN)
        expected = f"expected groups {', '.join(groups)} with {' and '.join(datasets)}"
        return [f"{self.path}: not read: {names}; {expected}"]
