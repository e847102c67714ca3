"""Draw training curves, the mistakes of a model, or its first layer.

    dpedf plot runs/mnist runs/softmax -o curves.png
    dpedf plot runs/mnist --mistakes

Runs are named by the settings in which they differ.
"""

import os
from pathlib import Path

from dpedf.device import CPU
from dpedf.errors import UserError, concerning, print_line
from dpedf.run.command_line import Parser, expect_one_process
from dpedf.run.trained import Trained
from dpedf.tools.experiments.past import named
from dpedf.tools.pictures.history import History
from dpedf.tools.pictures.saving import drawing, format_of, save

KNOWN_BY = {"epoch": "steps_per_epoch", "step": "step", "time": "seconds"}  # in evaluations


def curves(runs, asked):
    """(the picture of training curves, of which runs).  asked: what it is drawn over, or None."""
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
    paths = [str(history.run) for history in histories]
    return draw(histories, by), " and ".join(paths) if len(paths) < 3 else f"{len(paths)} runs"


def pictured(kind, args):
    """(the picture of this kind, where it is from): "curves", "mistakes" or "weights"."""
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
        return draw(model), f"{model.file}, step {model.step:,}"


def main(words):
    parser = Parser("dpedf plot", __doc__)
    add = parser.add_argument
    add("runs", metavar="RUN", nargs="+", help="the directory of a run, or of several")
    name = "the picture, a .png, .svg or .pdf (curves.png, mistakes.png or weights.png)"
    add("-o", "--output", metavar="FILE", help=name)
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
    path = os.path.expanduser(args.output or f"{kind}.png")
    if kind == "curves" and (args.checkpoint or args.trust):
        raise UserError("--checkpoint and --trust go with --mistakes or --weights")
    if kind != "curves" and args.by:
        raise UserError(f"--by {args.by} goes with curves, not with --{kind}")
    ending = format_of(path)
    with drawing("dpedf plot"):
        figure, source = pictured(kind, args)
        save(figure, path, ending, source)
