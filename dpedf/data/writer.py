"""The writer of data files, with which every recipe ends."""

import io
from zlib import crc32

import h5py
import numpy as np

from dpedf.data.disk import replace


def write(
    path, *, name, source, licence, classes=None, characters=None, scale=1, mean=0, std=1, **groups
):
    """Write a data file: groups are train=(x, y), test=(x, y), or texts, train=text, test=text.

    characters: what the symbols of a text stand for, as one string.  An array that is given twice
    is stored once.  The file is made in memory, which has to hold the rows once more, and appears
    whole or not at all.  OSError: the disk is full, or refuses it.

    Each dataset has an attribute crc32, of its bytes; HDF5 itself adds checksums to what describes
    them, from version 1.8 of its format on.  So damage is noticed when the rows are read.
    """
    image = io.BytesIO()  # on a full disk, HDF5 itself can end the process
    with h5py.File(image, "w", libver="v108") as file:
        file.attrs.update(name=name, source=source, licence=licence)
        file.attrs.update(scale=scale, mean=mean, std=std)
        for key, known in ("classes", classes), ("characters", characters):
            if known is not None:
                file.attrs[key] = known
        stored = {}
        for group, rows in groups.items():
            is_text = isinstance(rows, np.ndarray)
            for key, array in [("text", rows)] if is_text else zip("xy", rows, strict=True):
                if id(array) in stored:
                    file[f"{group}/{key}"] = stored[id(array)]
                    continue
                stored[id(array)] = dataset = file.create_dataset(f"{group}/{key}", data=array)
                dataset.attrs["crc32"] = np.uint32(crc32(np.ascontiguousarray(array)))
    replace(path, image.getbuffer())
