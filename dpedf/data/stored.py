"""An HDF5 file of rows.  What is wrong with it becomes one line."""

import os
from contextlib import contextmanager
from weakref import finalize

import h5py
import numpy as np

from dpedf.data.disk import expect_regular
from dpedf.data.sources import expect_sources, expect_stored, located, size_and_time
from dpedf.errors import UserError, concerning, one_line

SHOWN = 6  # names in a line
OF_DATASETS = (  # attributes that our writer gives them, and dimension scales of HDF5
    *("crc32", "CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "DIMENSION_LABELS"),
)
LINKS = 32  # links and virtual datasets on the way to numbers: more lead in a circle

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
    kinds = h5py.h5f.OBJ_FILE | h5py.h5f.OBJ_DATASET | h5py.h5f.OBJ_GROUP
    for identifier in h5py.h5f.get_obj_ids(h5py.h5f.OBJ_ALL, kinds):
        if writes_to(identifier, descriptor):
            found = "this process still has it open in h5py to write to it"
            raise UserError(f"{path}: {found}, expected that it is closed first")


def writes_to(identifier, descriptor):
    """Is what HDF5 has open under this identifier in the file of a descriptor, and for writing?"""
    try:
        file = h5py.File(identifier)
        if file.mode != "r+":
            return False
        if file.driver == "sec2":
            return os.path.sameopenfile(file.id.get_vfd_handle(), descriptor)
        return os.path.samestat(os.stat(file.filename), os.fstat(descriptor))
    except DAMAGE:  # it was closed meanwhile, or its name leads nowhere
        return False


def text_of(found):
    """An attribute, in which the bytes of a text, alone or in a list, are a str."""
    if isinstance(found, bytes):
        return found.decode(errors="backslashreplace")
    if isinstance(found, np.ndarray) and found.dtype.kind in "SO":
        return np.array([text_of(one) for one in found.flat], object).reshape(found.shape)
    return found


class Stored:
    """An open HDF5 file, which has to stay as it is, as have the sources of its datasets.

    others: the files that its links lead to, opened.  sources: {path: its size and time} of the
    files that HDF5 reads for its datasets.  UserError: it cannot be read.  FileNotFoundError:
    there is none.
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
            self.as_opened, self.others, self.sources = size_and_time(self.descriptor), {}, {}

    def expect_unchanged(self):
        """UserError: somebody wrote to the file.  To touch a map beyond its end kills a process."""
        watched = {self.descriptor: (self.path, self.as_opened)}
        watched |= {path: (path, as_opened) for path, as_opened in self.sources.items()}
        expected = "expected a file that stays as it is"
        for file, (path, before) in watched.items():
            try:
                now = size_and_time(file)
            except OSError as error:
                raise UserError(f"{path}: {one_line(error)}, {expected}") from None
            if now != before:
                changed = f"its size was {before[0]:,} bytes and is {now[0]:,}"
                if now[0] == before[0]:
                    changed = "it has another time of change"
                raise UserError(f"{path}: somebody has written to it, {changed}, {expected}")

    def dataset(self, name, links=LINKS):
        """(the Stored that holds it, the dataset) of this name; None where there is none.

        UserError: not all of its numbers are there, where HDF5 would make up the rest.
        """
        where = f"{self.path}: {name}"
        with reading(where):
            stored, found = self.find(name, links) or (self, None)
            if not isinstance(found, h5py.Dataset):
                return None
            if stored is not self:
                where = f"{where} is {found.name} of {stored.path}"
            if found.is_virtual:
                stored.follow(where, found, links)
            else:
                stored.sources |= expect_stored(where, found)
            return stored, found

    def read(self, dataset, rows):
        """These rows of a dataset of this file.

        A virtual one is read by way of the path, from which HDF5 finds its sources.  They are
        closed again: while HDF5 has a file open, it does not look for what has changed in it.
        With this driver, it takes no interest in how this process has the same files open.
        """
        if not dataset.is_virtual:
            return dataset[rows]
        self.expect_in_place()
        with h5py.File(self.path, "r", driver="stdio", locking=False) as file:
            found = file[dataset.name][rows]
        self.expect_in_place()
        return found

    def expect_in_place(self):
        """UserError: the path does not lead to the file any more."""
        place = os.path.exists(self.path) and os.stat(self.path)
        if not place or not os.path.samestat(place, os.fstat(self.descriptor)):
            raise UserError(f"{self.path}: it was replaced, expected a file that stays as it is")

    def has(self, name):
        """Is there anything of this name?"""
        with reading(f"{self.path}: {name}"):
            return self.find(name) is not None

    def find(self, name, links=LINKS, group=None):
        """(the Stored, the object) of this name, below a group; None where there is none.

        HDF5 itself would open whatever a link to another file leads to, and wait if it is a FIFO.
        """
        stored, group = self, group or self.file
        for part in name.split("/"):
            if part in ("", "."):
                continue
            link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
            if link is None:
                return None
            if isinstance(link, h5py.HardLink):
                group = group[part]
                continue
            if not links:
                raise UserError(f"{stored.path}: the links of {part} lead in a circle")
            if isinstance(link, h5py.ExternalLink):
                with concerning(f"{stored.path}: {part} is in another file"):
                    if link.filename not in stored.others:
                        stored.others[link.filename] = stored.opened(link.filename)
                    other = stored.others[link.filename]
                    found = other.find(link.path, links - 1)
                    if found is None:
                        raise UserError(f"{other.path}: there is no {link.path}")
            else:
                start = None if link.path.startswith("/") else group
                found = stored.find(link.path, links - 1, start)
            if found is None:
                return None
            stored, group = found
        return stored, group

    def opened(self, name):
        """The Stored of a file that is named in this one."""
        path = located(name, self.path)
        try:
            return Stored(path)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file, expected the one with these rows") from None

    def follow(self, where, dataset, links):
        """UserError: the sources of a virtual dataset of this file are not all there."""
        shapes = {}

        def shape_of(file, name):
            if (file, name) not in shapes:
                if not links:
                    raise UserError("the sources lead in a circle")
                other = self.opened(os.path.abspath(self.path) if file == "." else file)
                holder, found = other.dataset(name, links - 1) or (other, None)
                if found is None:
                    raise UserError(f"{other.path}: there is no dataset {name}")
                shapes[file, name] = found.shape
                for its in other, holder:
                    self.sources |= {its.path: its.as_opened} | its.sources
            return shapes[file, name]

        with concerning(f"{where} is made of other datasets"):
            expect_sources(dataset, shape_of)

    def attribute(self, name, default):
        """An attribute of the file, or a dataset beside its groups: HDF5 may limit attributes.

        A list of one thing, unless it names the only class, is that thing.  Text is a str.
        """
        with reading(f"{self.path}: attribute {name}"):
            found = self.file.attrs.get(name)
            if found is None and (held := self.dataset(name)):
                stored, dataset = held
                found = stored.read(dataset, ())
            found = text_of(found)
            alone = isinstance(found, np.ndarray) and found.size == 1
            if alone and not (name == "classes" and found.dtype == object):
                found = found.flat[0]
            return default if found is None else found

    def unread(self, attributes, groups, datasets):
        """What the file holds beside attributes, groups and, in these, datasets of these names.

        A list of one line, or of none.
        """
        with reading(self.path):
            found = [name for name in self.file if name not in (*groups, *attributes)]
            for group in groups:
                _, inside = self.find(group) or (self, None)
                names = inside if isinstance(inside, h5py.Group) else ()
                found += [f"{group}/{name}" for name in names if name not in datasets]
                if isinstance(inside, h5py.Dataset):
                    found.append(f"{group}, a dataset")
            found += [f"attribute {name}" for name in self.file.attrs if name not in attributes]
            for path in (f"{group}/{name}" for group in groups for name in ("", *datasets)):
                _, holder = self.find(path) or (self, None)
                names = () if holder is None else [n for n in holder.attrs if n not in OF_DATASETS]
                where = f"{path.rstrip('/')} (not of the file)"
                found += [f"attribute {name} of {where}" for name in names]
        if not found:
            return []
        names = ", ".join(found[:SHOWN]) + f" and {len(found) - SHOWN} more" * (len(found) > SHOWN)
        expected = f"expected groups {', '.join(groups)} with {' and '.join(datasets)}"
        return [f"{self.path}: not read: {names}; {expected}"]
