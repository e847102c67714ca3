"""Draw the training curves of runs, from their metrics.jsonl:

pip install -e ".[plot]"
python examples/curve.py runs/mnist runs/softmax --output curve.svg
"""

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("svg")
from matplotlib import pyplot


def numbers(events, key):
    """What events have by this key; nan, which is not drawn, where they have null."""
    return np.array([event[key] for event in events], float)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run directories")
    parser.add_argument("--output", type=Path, default="curve.svg", help="the picture to write")
    arguments = parser.parse_args()
    figure, (losses, errors) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for color, run in enumerate(arguments.runs):
        lines = (run / "metrics.jsonl").read_text().splitlines()
        found = [e for e in map(json.loads, lines) if e["event"] == "eval"]
        epochs, style = [e["epoch"] for e in found], {"color": f"C{color}"}
        losses.plot(epochs, [e["train_loss"] for e in found], "--", **style)
        losses.plot(epochs, numbers(found, "valid_loss"), **style, label=run.name)
        wrong = 100 * (1 - numbers(found, "valid_accuracy"))
        errors.plot(epochs, wrong, **style, label=run.name)
    losses.set(xlabel="epoch", ylabel="loss (dashed: training)", yscale="log")
    errors.set(xlabel="epoch", ylabel="validation error, %", yscale="log")
    errors.yaxis.set_major_formatter("{x:g}")
    errors.yaxis.set_minor_formatter("{x:g}")
    names = errors.get_legend_handles_labels()
    figure.legend(*names, loc="outside upper center", ncols=len(arguments.runs), frameon=False)
    for axes in losses, errors:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(arguments.output, metadata={"Date": None})
    print(arguments.output)


if __name__ == "__main__":
    main()
