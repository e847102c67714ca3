"""The writer of data files, with which every recipe ends."""

import io
import os
from collections.abc import Iterator
from itertools import zip_longest
from zlib import crc32

import h5py
import numpy as np

from dpedf.data.disk import replace
from dpedf.errors import UserError

GROUPS = "train", "valid", "test"


def write(
    path, *, name, source, licence, classes=None, characters=None, scale=1, mean=0, std=1, **groups
):
    """Write a data file: groups are train=(x, y), test=(x, y), or texts, train=text, test=text.

    classes: how many labels there are, or their names.
    characters: what the symbols of a text stand for, as one string.  An array that is given twice
    is stored once.  The file is made in memory, which has to hold the rows once more, and appears
    whole or not at all.  OSError: the disk is full, or refuses it.  UserError: a group of another
    name, which nobody would read; x and y of other numbers of rows; a text with a NUL.  TypeError:
    an array holds no numbers, or masks some.

    Each dataset has an attribute crc32, of its bytes; HDF5 itself adds checksums to what describes
    them, from version 1.8 of its format on.  So damage is noticed when the rows are read.
    """
    path = os.path.expanduser(path)
    for group in groups:
        if group not in GROUPS:
            raise UserError(f"{path}: group {group}, expected {', '.join(GROUPS)}")
    about = {"name": name, "source": source, "licence": licence, "classes": classes}
    about |= {"characters": characters, "scale": scale, "mean": mean, "std": std}
    image = io.BytesIO()  # on a full disk, HDF5 itself can end the process
    # where numbers are at odd addresses, NumPy is slower, and may copy all of them to take some
    aligned = {"alignment_threshold": 1, "alignment_interval": 64}
    with h5py.File(image, "w", libver="v108", **aligned) as file:
        for key, known in about.items():
            if isinstance(known, str) and "\0" in known:
                raise UserError(f"{path}: {key} with a NUL, expected a text without, as in HDF5")
            if known is not None:
                file.attrs[key] = known.tolist() if is_names(known) else known
        stored = []  # (array, its dataset): while it is kept here, no other array can be it
        for group, rows in groups.items():
            is_text, counts = isinstance(rows, np.ndarray) and rows.ndim == 1, set()
            for key, given in [("text", rows)] if is_text else zip_longest("xy", rows):
                if key is None or given is None:
                    raise UserError(f"{path}: {group}, expected (x, y), or a text of one index")
                name = f"{group}/{key}"
                array = array_of(given, f"{path}: {name}")
                if array.dtype.kind not in "biuf":
                    raise TypeError(f"{path}: {name} is of {array.dtype}, expected numbers")
                counts.add(array.shape[:1])
                if len(counts) > 1:
                    found = ", ".join(str(n) for (n,) in sorted(counts))
                    raise UserError(f"{path}: {group} of {found} rows, expected x and y of as many")
                same = (its for known, its in stored if known is array)
                if twice := [its for its in same if np.array_equal(its, array)]:
                    file[name] = twice[0]  # with other numbers, it is an array that is reused
                    continue
                dataset = file.create_dataset(name, data=array)
                dataset.attrs["crc32"] = np.uint32(crc32(np.ascontiguousarray(array)))
                stored.append((array, dataset))
    replace(path, image.getbuffer())


def array_of(given, where):
    """An array as it is; of what else holds rows, even of an iterator over them, a new one."""
    if any(map(np.ma.is_masked, given if isinstance(given, list | tuple) else [given])):
        raise TypeError(f"{where} is a masked array, expected numbers that all count")
    if isinstance(given, Iterator):  # which may fill one array again for each row
        return np.array([np.array(array_of(row, where)) for row in given])
    try:
        return np.asanyarray(given)
    except ValueError:
        raise TypeError(f"{where} has rows of several shapes, expected one") from None


def is_names(known):
    """Is it a text of NumPy, or an array of such, for which HDF5 has no type?"""
    return isinstance(known, np.ndarray | np.generic) and known.dtype.kind == "U"
