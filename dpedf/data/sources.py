"""Where the numbers of a dataset are: in its file, or in others that HDF5 reads for it.

For numbers that are not there, HDF5 makes up others, such as zeros: these are refused here.
"""

import os
from math import ceil, prod

import h5py
import numpy as np
from h5py import h5s

from dpedf.data.disk import expect_regular
from dpedf.errors import UserError, one_line


def size_and_time(file):
    """Of a path or a descriptor: what differs where somebody has written to the file."""
    status = os.stat(file)
    return status.st_size, status.st_mtime_ns


def located(name, path):
    """Where HDF5 finds a file that is named in the one at a path."""
    folders = [os.path.dirname(path) for path in (os.path.abspath(path), os.path.realpath(path))]
    folders.insert(1, os.curdir)
    names = [name, os.path.basename(name)] if os.path.isabs(name) else [name]
    places = [os.path.join(folder, its) for its in names for folder in folders]
    return next(filter(os.path.lexists, places), places[0])


def expect_stored(where, dataset):
    """{path: its size and time} of the raw files that hold a dataset; none where its own file does.

    UserError: some of it is nowhere, or is compressed by what HDF5 does not have here.
    """
    if dataset.shape is None:
        return {}
    if dataset.chunks:
        sizes = zip(dataset.shape, dataset.chunks, strict=True)
        expected, what = prod(ceil(n / size) for n, size in sizes), "chunks"
        found = dataset.id.get_num_chunks()
        expect_filters(where, dataset)
    else:
        expected, what = prod(dataset.shape) * dataset.id.get_type().get_size(), "bytes"
        found = dataset.id.get_storage_size()
    if found < expected:
        raise UserError(f"{where}: {found:,} {what} are stored, expected {expected:,}")
    raw, left = {}, expected
    for path, offset, size in dataset.external or ():
        size = min(size, left)
        left -= size
        try:
            expect_regular(path)
            raw[path] = size_and_time(path)
        except OSError as error:
            found = f"{where}: its rows are in the file {path}: {one_line(error)}"
            raise UserError(f"{found}, expected {size:,} bytes from byte {offset:,} on") from None
        if raw[path][0] < offset + size:
            found = f"the file {path}, which has {raw[path][0]:,} bytes"
            raise UserError(f"{where}: its rows are in {found}, expected {offset + size:,}")
    return raw


def expect_filters(where, dataset):
    """UserError: chunks are compressed by a filter that HDF5 does not have here."""
    plan, masks = dataset.id.get_create_plist(), []
    filters = enumerate(plan.get_filter(i) for i in range(plan.get_nfilters()))
    missing = [(i, its) for i, its in filters if not h5py.h5z.filter_avail(its[0])]
    if missing:  # a chunk that a filter left as it was has a bit for it
        dataset.id.chunk_iter(lambda chunk: masks.append(chunk.filter_mask))
    for i, (number, _, _, name) in missing:
        if not all(mask >> i & 1 for mask in masks):
            called = f"filter {number} {name.decode('utf-8', 'replace')}".strip()
            found = f"compressed by {called}, which HDF5 does not have here"
            expected = "a folder with it in HDF5_PLUGIN_PATH, such as hdf5plugin.PLUGIN_PATH"
            raise UserError(f"{where}: {found}, expected {expected} of package hdf5plugin")


def expect_sources(dataset, shape_of):
    """UserError: rows of a virtual dataset come from nowhere.

    shape_of(file, name): of a dataset in a file that is named in this one, which is checked.
    """
    left = h5s.create_simple(dataset.shape)  # what no source gives
    left.select_hyperslab((0,) * dataset.ndim, dataset.shape)
    for its in dataset.virtual_sources():
        file, name = (text.replace("%%", "%") for text in its[1:3])
        if unlimited(its.vspace):
            raise UserError(f"{file}: {name} without an end, expected a number of rows")
        shape, everything = shape_of(file, name), its.vspace.get_select_type() == h5s.SEL_ALL
        if its.src_space.get_select_type() == h5s.SEL_ALL:  # of as large a source as there is
            size = prod(dataset.shape) if everything else its.vspace.get_select_npoints()
            fits, expected = prod(shape) == size, f"{size:,} numbers"
        else:
            _, last = its.src_space.get_select_bounds()
            expected = f"at least {tuple(end + 1 for end in last)}"
            fits = len(shape) == len(last) and all(np.greater(shape, last))
        if not fits:
            raise UserError(f"{file}: {name} has shape {shape}, expected {expected}")
        if everything:
            left.select_none()
        elif left.get_select_npoints():
            left = left.combine_select(its.vspace, h5s.SELECT_NOTB)
    if left.get_select_npoints():
        raise UserError(f"what is at {left.get_select_bounds()[0]} comes from none of them")


def unlimited(space):
    """Does a selection go on as its source grows, so that it has no size of its own?"""
    if space.get_select_type() != h5s.SEL_HYPERSLABS or not space.is_regular_hyperslab():
        return False
    _, _, count, block = space.get_regular_hyperslab()
    return h5s.UNLIMITED in (*count, *block)
