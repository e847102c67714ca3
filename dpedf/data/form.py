"""The form of the rows on which a model was trained, with which it is built again without them."""

from math import prod
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from dpedf.data.columns import Columns
from dpedf.data.scaling import SCALING
from dpedf.data.targets import Targets
from dpedf.edf import Input
from dpedf.errors import UserError, one_line

Shape = tuple[Annotated[int, Meta(ge=0)], ...]
Positive = Annotated[int, Meta(ge=1)]
# The types of Inputs: floats, symbols and labels.
DTYPES = "float32", "float64", str(np.dtype(np.intp))


class Form(msgspec.Struct, frozen=True):
    """Shapes and types of rows.

    x_shape, x_dtype, y_shape, y_dtype: of the Inputs x and y.  stored: the type of x in the file.
    symbols: how many an x of text has, else None.  classes: how many labels there are, or None.
    names: of the classes, or the characters of a text; () where the file has none.
    scaling: the attributes scale, mean and std of the file.  rows: how many it was trained on.
    columns: those of a table, else None.  ignore: a label that does not count, or None.
    targets: of a regression, else None.
    """

    x_shape: Shape
    x_dtype: Literal[DTYPES]
    stored: Annotated[str, Meta(min_length=1)]
    symbols: Positive | None
    y_shape: Shape
    y_dtype: Literal[DTYPES]
    classes: Positive | None
    names: tuple[str, ...]
    scaling: dict[str, Any]
    rows: Positive
    columns: Columns | None = None
    ignore: int | None = None
    targets: Targets | None = None

    def __post_init__(self):
        named = self.symbols or self.classes or 0
        if len(self.names) not in (0, named):
            raise UserError(f"{len(self.names)} names for {named} classes")
        if self.columns and (len(self.columns.sizes),) != self.x_shape:
            raise UserError(f"{len(self.columns.sizes)} columns for rows of {self.x_shape}")
        for key, its in msgspec.structs.asdict(self.targets).items() if self.targets else ():
            if len(its) not in (0, prod(self.y_shape)):
                raise UserError(f"{len(its)} {key} of targets for rows of {self.y_shape}")

    def inputs(self):
        """(x, y), without rows."""
        x = Input(self.x_shape, np.dtype(self.x_dtype), self.symbols)
        x.categories = self.columns.sizes if self.columns else ()
        y = Input(self.y_shape, np.dtype(self.y_dtype), self.classes)
        y.ignore = self.ignore
        return x, y

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
        *(data.columns, data.y.ignore, data.targets),
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


def read_form(text):
    """The Form in the text of a checkpoint, whoever wrote it.  UserError: there is none."""
    try:
        return msgspec.json.decode(text, type=Form)
    except (msgspec.DecodeError, RecursionError) as error:  # a ValidationError too
        raise UserError(f"its form: {one_line(error)}, expected that of a run") from None
