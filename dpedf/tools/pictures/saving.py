"""How a picture is drawn and written."""

import io
import warnings
from contextlib import contextmanager
from pathlib import Path

from dpedf.data.disk import expect_place, replace, writing
from dpedf.errors import UserError, concerning, extra, print_line

METADATA = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}  # no time in any
DOTS = 150  # an inch
STYLE = {
    "text.parse_math": False,  # a name may hold any character
    "font.size": 9,
    "axes.titlesize": 10,
    "legend.fontsize": 9,
    "svg.hashsalt": "dpedf",  # the same bytes for the same picture
}


@contextmanager
def drawing(tool):
    """In the with block, matplotlib draws pictures in our style.  UserError: it is missing."""
    with extra("plot", tool):
        import matplotlib.backends.backend_agg
        import matplotlib.figure
    # Warnings would be of strange numbers, and of characters that the font does not have.
    with matplotlib.rc_context(), warnings.catch_warnings(action="ignore"):
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def format_of(path):
    """ "png", "svg" or "pdf".  UserError: the name of a picture has another ending."""
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in METADATA:
        raise UserError(f"-o {path}: expected a name that ends in .png, .svg or .pdf")
    with concerning("-o"):
        expect_place(path)
    return kind


def save(figure, path, kind, source):
    """Write a picture of what lies there, whole or not at all."""
    content = io.BytesIO()
    how = dict(format=kind, dpi=DOTS, metadata=METADATA[kind], bbox_inches="tight")
    figure.savefig(content, **how)
    with writing(path):
        replace(path, content.getvalue())
    print_line(f"{path}: drawn from {source}")
