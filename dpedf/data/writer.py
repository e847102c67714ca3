"""The writer of data files, with which every recipe ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product, zip_longest

import h5py
import numpy as np

from dpedf.data.columns import attributes
from dpedf.data.disk import replacing
from dpedf.data.scaling import SCALING
from dpedf.data.spool import Spool
from dpedf.data.unfinished import Unfinished, blocks_of, checksum
from dpedf.errors import UserError
from dpedf.parallel.signals import stopping

GROUPS = "train", "valid", "test"
MOST = 4000  # texts in an attribute, for which HDF5 has 64 KiB


def write(
    path,
    *,
    name,
    source,
    licence,
    classes=None,
    characters=None,
    ignore=None,
    scale=1,
    mean=0,
    std=1,
    columns=None,
    categories=None,
    **groups,
):
    """Write a data file: groups are train=(x, y), test=(x, y), or texts, train=text, test=text.

    classes: how many labels there are, or their names.  ignore: a label that does not count.
    characters: what the symbols of a text stand for, as one string.
    columns: the names of those of a table x, (N, I).  categories: for each of them 0 where it holds
    numbers, else how many categories, or their names.  x holds their codes, from 0 on.

    x and y are arrays, mapped ones too, datasets of h5py, lists, or iterators over rows.  An array
    that is given twice is stored once.  Rows are written some at a time, and the file appears whole
    or not at all.  OSError: the disk is full, or refuses it.  UserError: a group of another name,
    which nobody would read; x and y of other numbers of rows; a text with a NUL.  TypeError: an
    array holds no numbers, or masks some.

    Each dataset has an attribute crc32, of its bytes; HDF5 itself adds checksums to what describes
    them, from version 1.8 of its format on.  So damage is noticed when the rows are read.
    """
    path = os.path.expanduser(path)
    for group in groups:
        if group not in GROUPS:
            raise UserError(f"{path}: group {group}, expected {', '.join(GROUPS)}")
    about = {"name": name, "source": source, "licence": licence, "classes": classes}
    about |= {"characters": characters, "ignore": ignore, "scale": scale, "mean": mean, "std": std}
    about |= {"columns": columns, "categories": categories}
    with writing(path, about) as unfinished:
        stored = []  # (array, its dataset): while it is kept here, no other array can be it
        for group, pair in groups.items():
            is_text, counts = isinstance(pair, np.ndarray) and pair.ndim == 1, set()
            for key, given in [("text", pair)] if is_text else zip_longest("xy", pair):
                if key is None or given is None:
                    raise UserError(f"{path}: {group}, expected (x, y), or a text of one index")
                name = f"{group}/{key}"
                array = rows_of(given, path, name)
                same = [its for known, its in stored if known is array]
                if twice := [its for its in same if its.crc == checksum(array)]:
                    unfinished.hdf5[name] = twice[0].made
                else:  # with other numbers, it is an array that is reused
                    dataset = unfinished.dataset(name, array.shape, array.dtype)
                    stored.append((array, dataset))
                    streams = isinstance(array, Spool)
                    for (rows,) in array.blocks() if streams else blocks_of(array):
                        dataset.append(rows)
                counts.add(array.shape[0])
                if len(counts) > 1:
                    found = ", ".join(map(str, sorted(counts)))
                    raise UserError(f"{path}: {group} of {found} rows, expected x and y of as many")


def scatter(path, blocks, split, *, name, source, licence, **about):
    """Write a data file of rows that come in blocks, in the order of their source.

    blocks: yields (x, y), arrays of some rows each, of one type and of rows of one shape, or (x,)
    alone, of rows without labels.
    split: (N,), for each row the number in GROUPS of its group.  A group without rows is not
    written; in the others, rows keep their order.  about: as of write, and so is what is raised.
    """
    path, done, datasets = os.path.expanduser(path), 0, {}
    counts = dict(zip(GROUPS, np.bincount(split, minlength=len(GROUPS)), strict=True))
    about = {"name": name, "source": source, "licence": licence} | SCALING | about
    with writing(path, about) as unfinished:
        for block in blocks:
            first, done = done, done + len(block[0])
            its = split[first:done]
            block = dict(zip("xy", block, strict=False))
            for key, rows in block.items():
                if len(rows) != len(its):
                    found = f"{path}: {key} has {len(rows):,} rows from row {first:,} on"
                    raise UserError(f"{found}, expected {len(its):,}")
            for group, key in product(GROUPS, block) if not datasets else ():
                if n := counts[group]:
                    shape, dtype = (n, *block[key].shape[1:]), block[key].dtype
                    datasets[group, key] = unfinished.dataset(f"{group}/{key}", shape, dtype)
            for group, key in datasets:
                datasets[group, key].append(block[key][its == GROUPS.index(group)])
        if done != len(split):
            raise UserError(f"{path}: {done:,} rows, expected the {len(split):,} of the split")


@contextmanager
def writing(path, about):
    """with writing(path, about) as unfinished: with these attributes, it is at the path at the end.

    SIGTERM ends the program as Ctrl-C does: what is half written is removed.
    """
    with stopping(), replacing(path) as file, Unfinished(path, file) as unfinished:
        for key, known in attributes(**about).items():
            known = known.tolist() if is_names(known) else known
            texts = known if isinstance(known, list | tuple) else [known]
            if any(isinstance(its, str) and "\0" in its for its in texts):
                raise UserError(f"{path}: {key} with a NUL, expected a text without, as in HDF5")
            if known is not None:
                place = unfinished.hdf5 if np.size(known) > MOST else unfinished.hdf5.attrs
                place[key] = known
        yield unfinished


def rows_of(given, path, name):
    """An array as it is, or what else holds rows, with a shape, a type and blocks of rows."""
    where = f"{path}: {name}"
    if isinstance(given, Iterator):
        return Spool((array_of(row, where) for row in given), where, os.path.dirname(path) or ".")
    return given if isinstance(given, h5py.Dataset) else array_of(given, where)


def array_of(given, where):
    """The array of what holds rows.  TypeError: they are of several shapes, or masked."""
    if any(map(np.ma.is_masked, given if isinstance(given, list | tuple) else [given])):
        raise TypeError(f"{where} is a masked array, expected numbers that all count")
    try:
        return np.asanyarray(given)
    except ValueError:
        raise TypeError(f"{where} has rows of several shapes, expected one") from None


def is_names(known):
    """Is it a text of NumPy, or an array of such, for which HDF5 has no type?"""
    return isinstance(known, np.ndarray | np.generic) and known.dtype.kind == "U"
