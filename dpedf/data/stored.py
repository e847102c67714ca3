"""An HDF5 file of rows.  What is wrong with it becomes one line."""

import os
from contextlib import contextmanager

import h5py

from dpedf.data.disk import expect_regular
from dpedf.errors import UserError, one_line

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


class Stored:
    """An open HDF5 file, which has to stay as it is.

    UserError: it cannot be read.  FileNotFoundError: there is none.
    """

    def __init__(self, path):
        self.path = path
        with reading(path):
            expect_regular(path)
            with open(path, "rb"):  # whose errors are clearer than HDF5's
                self.file = h5py.File(path, "r", locking=False)
            self.descriptor = self.file.id.get_vfd_handle()
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
        for part in filter(None, name.split("/")):
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
        """An attribute of the file."""
        with reading(f"{self.path}: attribute {name}"):
            return self.file.attrs.get(name, default)
