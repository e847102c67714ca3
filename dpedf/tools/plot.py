"""Draw the training curves of runs, the mistakes of a model, or its first layer.

    dpedf plot runs/mnist runs/softmax -o curves.png
    dpedf plot runs/mnist --mistakes

Runs are named by the settings in which they differ.
"""

import io
import warnings
from pathlib import Path

from dpedf.data.disk import replace, writing
from dpedf.device import CPU
from dpedf.errors import UserError, concerning, one_line, print_line
from dpedf.run.command_line import Parser, expect_one_process
from dpedf.run.trained import Trained
from dpedf.tools.experiments.past import named
from dpedf.tools.pictures.history import History

METADATA = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}  # no time in any
KNOWN_BY = {"epoch": "steps_per_epoch", "step": "step", "time": "seconds"}  # in evaluations
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
    how = dict(format=kind, dpi=DOTS, metadata=METADATA[kind], bbox_inches="tight")
    figure.savefig(content, **how)
    with writing(path):
        replace(path, content.getvalue())
    print_line(path)


def curves(runs, asked):
    """The picture of training curves.  asked: what it is drawn over, or None."""
    from dpedf.tools.pictures.curves import draw

    there = {Path(run).resolve(): run for run in reversed(runs)}
    histories = [History(run) for run in reversed(there.values())]
    by = asked or "epoch"
    for history in histories:
        for note in history.notes:
            print_line(note)
        if by not in history.axes:
            some = f"no {KNOWN_BY[by]} in its evaluations"
            found = f"{history.path}: {some if history.evaluated else 'no evaluation yet'}"
            if asked:
                raise UserError(f"{found}, expected some, or --by {history.axes[-1]}")
            print_line(f"{found}, so curves go by step")
            by = "step"
    return draw(histories, by)


def pictured(kind, args):
    """The picture of this kind: "curves", "mistakes" or "weights"."""
    from dpedf.tools.pictures import grids  # imports matplotlib

    if kind == "curves":
        return curves(args.runs, args.by)
    if len(args.runs) > 1:
        raise UserError(f"{len(args.runs)} runs, expected one, whose model is looked at")
    draw = grids.draw_mistakes if kind == "mistakes" else grids.draw_weights
    model = Trained(args.runs[0], CPU(), args.checkpoint, args.trust)
    for note in model.notes:
        print_line(note)
    with concerning(model.file):
        return draw(model)


def main(words):
    parser = Parser("dpedf plot", __doc__)
    add = parser.add_argument
    add("runs", metavar="RUN", nargs="+", help="the directory of a run, or of several")
    name = "the picture, a .png, .svg or .pdf (curves.png, mistakes.png or weights.png)"
    add("-o", "--output", metavar="FILE", type=Path, help=name)
    add("--by", choices=[*KNOWN_BY], help="what curves are drawn over (epoch)")
    kinds = parser.add_mutually_exclusive_group()
    mistakes = "draw the test images that a model got most wrong, the most confident first"
    kinds.add_argument("--mistakes", action="store_true", help=mistakes)
    weights = "draw the weights of the first layer as images"
    kinds.add_argument("--weights", action="store_true", help=weights)
    parser.add_checkpoint()
    args = parser.read(words)
    expect_one_process("plot")
    args.runs = [run for path in args.runs for run in named(path)]
    kind = "mistakes" if args.mistakes else "weights" if args.weights else "curves"
    path = (args.output or Path(f"{kind}.png")).expanduser()
    if kind == "curves" and (args.checkpoint or args.trust):
        raise UserError("--checkpoint and --trust go with --mistakes or --weights")
    if kind != "curves" and args.by:
        raise UserError(f"--by {args.by} goes with curves, not with --{kind}")
    ending = format_of(path)
    expect_matplotlib()
    import matplotlib

    # Warnings would be of strange numbers, and of characters that the font does not have.
    with matplotlib.rc_context(), warnings.catch_warnings(action="ignore"):
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        save(pictured(kind, args), path, ending)
