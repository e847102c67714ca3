"""Draw the training curves of runs, from their metrics.jsonl:

pip install -e ".[plot]"
python examples/curve.py runs/mnist runs/softmax --output curve.svg
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from dpedf.errors import UserError, one_line, print_error
from dpedf.run import metrics

try:
    import matplotlib
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator
except ImportError as error:
    print_error(f'examples/curve.py: {one_line(error)}, which draws: pip install -e ".[plot]"')
    sys.exit(UserError.status)
matplotlib.use("svg")


def evaluations(run):
    """What a run found whenever it was evaluated, and after how many epochs, such as 1.5."""
    path = run / "metrics.jsonl"
    try:
        events, _ = metrics.read(path)
    except OSError as error:
        raise UserError(f"{path}: {one_line(error)}, expected the events of a run") from None
    found = [e for e in events if e["event"] == "eval"]
    if not found:
        raise UserError(f"{path}: no evaluation yet, expected one")
    return found, [e["step"] / e["steps_per_epoch"] for e in found]


def numbers(events, key):
    """What events have by this key; nan, which is not drawn, where they have null."""
    return np.array([event[key] for event in events], float)


def draw(runs, output):
    figure, (losses, errors) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    scale = "log"  # which has no 0
    for color, run in enumerate(runs):
        found, epochs = evaluations(run)
        style, name = {"color": f"C{color}"}, run.resolve().name
        style["marker"] = "." if len(found) == 1 else None  # a line has two points
        losses.plot(epochs, numbers(found, "train_loss"), "--", **style)
        losses.plot(epochs, numbers(found, "valid_loss"), **style, label=name)
        wrong = 100 * (1 - numbers(found, "valid_accuracy"))
        errors.plot(epochs, wrong, **style, label=name)
        scale = "linear" if (wrong == 0).any() else scale
    losses.set(xlabel="epoch", ylabel="loss (dashed: training)", yscale="log")
    errors.set(xlabel="epoch", ylabel="validation error, %", yscale=scale)
    errors.yaxis.set_major_formatter("{x:g}")
    if scale == "log":
        errors.yaxis.set_minor_locator(LogLocator(subs=(1.5, 2, 3, 4, 6)))
        errors.yaxis.set_minor_formatter("{x:g}")
    names = errors.get_legend_handles_labels()
    figure.legend(*names, loc="outside upper center", ncols=len(runs), frameon=False)
    for axes in losses, errors:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(output, metadata={"Date": None})
    except (OSError, ValueError) as error:
        raise UserError(f"--output {output}: {one_line(error)}") from None


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run directories")
    parser.add_argument("--output", type=Path, default="curve.svg", help="the picture to write")
    arguments = parser.parse_args()
    draw(arguments.runs, arguments.output)
    print(arguments.output)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print_error(f"examples/curve.py: {error}")
        sys.exit(UserError.status)
