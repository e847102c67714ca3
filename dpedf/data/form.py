"""The form of the rows on which a model was trained, with which it is built again without them."""

from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from dpedf.data.scaling import SCALING
from dpedf.edf import Input
from dpedf.errors import UserError, one_line


class Form(msgspec.Struct, frozen=True):
    """Shapes and types of rows.

    x_shape, x_dtype, y_shape, y_dtype: of the Inputs x and y.  stored: the type of x in the file.
    symbols: how many an x of text has, else None.  classes: how many labels there are, or None.
    names: of the classes, or the characters of a text; () where the file has none.
    scaling: the attributes scale, mean and std of the file.  rows: how many it was trained on.
    """

    x_shape: tuple[int, ...]
    x_dtype: str
    stored: str
    symbols: int | None
    y_shape: tuple[int, ...]
    y_dtype: str
    classes: int | None
    names: tuple[str, ...]
    scaling: dict[str, Any]
    rows: Annotated[int, Meta(ge=1)]

    def inputs(self):
        """(x, y), without rows."""
        return (
            Input(self.x_shape, np.dtype(self.x_dtype), self.symbols),
            Input(self.y_shape, np.dtype(self.y_dtype), self.classes),
        )

    def text(self):
        return msgspec.json.encode(self).decode()


def form_of(data):
    """The Form of the rows of an open data file."""
    x, y, stored = data.x, data.y, data.stored
    scaling = (
        {} if data.window else {key: stored.attribute(key, its) for key, its in SCALING.items()}
    )
    return Form(
        *(x.shape, str(x.dtype), str(type_in_file(data.train.x)), x.classes),
        *(y.shape, str(y.dtype), y.classes, names_of(stored, x.classes or y.classes)),
        {key: np.asarray(its).tolist() for key, its in scaling.items()},
        len(data.train),
    )


def type_in_file(rows):
    """The type of stored numbers, in whatever byte order."""
    return getattr(rows, "as_stored", rows.dtype).newbyteorder("=")


def names_of(stored, classes):
    """The names of so many classes, or the characters of a text; () where they are not named."""
    for key in "characters", "classes":
        found = stored.attribute(key, None)
        if isinstance(found, str | np.ndarray) and len(found) == classes:
            return tuple(map(str, found))
    return ()


def read_form(path, text):
    """The Form in a checkpoint.  UserError: there is none."""
    try:
        return msgspec.json.decode(text, type=Form)
    except msgspec.DecodeError as error:
        raise UserError(f"{path}: its form: {one_line(error)}, expected that of a run") from None
