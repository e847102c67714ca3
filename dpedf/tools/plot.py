"""Draw the training curves of runs, the mistakes of a model, or its first layer.

    dpedf plot runs/mnist runs/softmax -o curves.png

Runs are named by the settings in which they differ.
"""

import io
import warnings
from pathlib import Path

from dpedf.data.disk import replace, writing
from dpedf.errors import UserError, one_line, print_line
from dpedf.run.command_line import Parser, expect_one_process
from dpedf.run.history import History

METADATA = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}  # no time in any
OF_AXIS = {"epoch": "steps_per_epoch", "time": "seconds"}  # what has to be known for it
DOTS = 150  # an inch
STYLE = {
    "text.parse_math": False,  # a name may hold any character
    "font.size": 9,
    "axes.titlesize": 10,
    "legend.fontsize": 9,
    "svg.hashsalt": "dpedf",  # the same bytes for the same picture
}


def expect_matplotlib():
    """UserError: it is missing, or cannot be imported."""
    try:
        import matplotlib.backends.backend_agg
        import matplotlib.figure  # noqa: F401
    except Exception as error:  # what is broken raises anything
        install = 'pip install "dpedf[plot]"'
        raise UserError(f"dpedf plot: {one_line(error)}, which draws: {install}") from None


def format_of(path):
    """ "png", "svg" or "pdf".  UserError: the name of a picture has another ending."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in METADATA:
        raise UserError(f"-o {path}: expected a name that ends in .png, .svg or .pdf")
    if not path.parent.is_dir():
        raise UserError(f"-o {path}: no such directory, expected {path.parent} to be there")
    return kind


def save(figure, path, kind):
    """Write a picture, whole or not at all."""
    content = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # of characters that the font does not have
        figure.savefig(content, format=kind, dpi=DOTS, metadata=METADATA[kind])
    with writing(path):
        replace(path, content.getvalue())
    print_line(path)


def curves(runs, asked):
    """The picture of training curves.  asked: what it is drawn over, or None."""
    from dpedf.tools import _curves

    there = {Path(run).resolve(): run for run in reversed(runs)}
    histories = [History(run) for run in reversed(there.values())]
    by = asked or "epoch"
    for history in histories:
        for note in history.notes:
            print_line(note)
        if by not in history.axes:
            what = (
                f"no {OF_AXIS[by]} in its evaluations" if history.evaluated else "no evaluation yet"
            )
            if asked:
                expected = f"expected some, or --by {history.axes[-1]}"
                raise UserError(f"{history.path}: {what}, {expected}")
            print_line(f"{history.path}: {what}, so curves go by step")
            by = "step"
    return _curves.draw(histories, by)


def main(words):
    parser = Parser("dpedf plot", __doc__)
    add = parser.add_argument
    add("runs", metavar="RUN", nargs="+", help="the directory of a run")
    add("-o", "--output", metavar="FILE", help="the picture, in .png, .svg or .pdf (curves.png)")
    add("--by", choices=["epoch", "step", "time"], help="what curves are drawn over (epoch)")
    args = parser.read(words)
    expect_one_process("plot")
    path = Path(args.output or "curves.png")
    kind = format_of(path)
    expect_matplotlib()
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        save(curves(args.runs, args.by), path, kind)
