"""The writer of data files, with which every recipe ends."""

from pathlib import Path

import h5py
import numpy as np


def write(
    path, *, name, source, licence, classes=None, characters=None, scale=1, mean=0, std=1, **groups
):
    """Write a data file: groups are train=(x, y), test=(x, y), or texts, train=text, test=text.

    characters: what the symbols of a text stand for, as one string.  An array that is given twice
    is stored once.  The file appears whole or not at all.
    """
    path = Path(path)
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        with h5py.File(unfinished, "w") as file:
            file.attrs.update(name=name, source=source, licence=licence)
            file.attrs.update(scale=scale, mean=mean, std=std)
            for key, known in ("classes", classes), ("characters", characters):
                if known is not None:
                    file.attrs[key] = known
            stored = {}
            for group, rows in groups.items():
                is_text = isinstance(rows, np.ndarray)
                for key, array in [("text", rows)] if is_text else zip("xy", rows, strict=True):
                    file[f"{group}/{key}"] = stored.get(id(array), array)
                    stored[id(array)] = file[f"{group}/{key}"]
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
