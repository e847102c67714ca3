"""Evaluate a model: its loss, accuracy, and which classes it confuses.

    dpedf evaluate runs/mnist --split valid
    mpirun -n 4 python -m dpedf evaluate runs/mnist --data other.h5

The rows are those of the run's own data file, or of another one with rows of the same shapes.
"""

from functools import partial
from pathlib import Path

from dpedf.data.part import Part
from dpedf.errors import UserError, lost_output, percent, plural, short
from dpedf.parallel import job
from dpedf.run.command_line import Parser
from dpedf.run.directory import BEST, CHECKPOINT
from dpedf.run.evaluate import measure
from dpedf.run.measures import chosen, said
from dpedf.run.scores import class_report, confusion_table, wilson
from dpedf.run.trained import opened


def main(words):
    parser = Parser("dpedf evaluate", __doc__)
    add = parser.add_argument
    add("run", metavar="RUN", help="the directory of the run")
    add("--data", metavar="FILE", help="another data file than that of the run")
    add("--split", choices=["train", "valid", "test"], default="test", help="which rows (test)")
    parser.add_checkpoint()
    job.run_watched(partial(evaluate, parser.read(words)))


def evaluate(args, ranks):
    with opened(args, ranks) as model:
        settings = model.settings
        with ranks.together():
            path = args.data or settings.data.file
            if not args.data and not Path(path).exists():
                raise UserError(f"{path}: no such file, expected that of the run, or --data FILE")
            part = Part(path, model.form, model.x, model.y, settings.data, model.device)
            part.open_split(args.split, settings.seed)
        part.read_through(ranks)
        with ranks.together():
            metrics = chosen(settings.run.metrics, model.Q, model.ell, model.y)
        found = measure(model.Q, model.ell, part, part.rows, ranks, model.rows, True, metrics)
        rows = plural(len(part.rows), "row")
        ranks.say(f"{model.file} of step {model.step:,}, {args.split} of {path}: {rows}")
        if model.file.name == BEST:
            last = f"--checkpoint {CHECKPOINT} has the last step"
            ranks.say(f"{BEST} has the lowest valid loss; {last}")
        for note in [*model.notes, *part.notes]:
            ranks.say(note)
        for line in described(found, args.split, model):
            ranks.say(line)
    return lost_output()


def described(found, split, model):
    """What was found, in lines."""
    yield f"{split} loss {short(found.loss)}"
    metrics = {name: its for name, its in found.metrics.items() if name != "f1"}
    for line in said(metrics):  # F1 is the macro average in the table of classes
        yield f"{split} {line}"
    if found.accuracy is None:
        return
    accuracy, scores = f"{split} accuracy {percent(found.accuracy)}", found.scores
    if scores and percent(scores.accuracy) != percent(found.accuracy):
        accuracy += f", the mean over rows (of all labels {percent(scores.accuracy)})"
    if model.y.shape:
        yield accuracy
        yield "no interval: the labels of a row depend on each other"
    else:
        low, high = (100 * end for end in wilson(found.accuracy, found.n))
        yield f"{accuracy}, 95 % interval {low:.2f} to {high:.2f} %, n = {found.n:,}"
    if scores is None:
        yield f"{model.y.classes:,} classes: too many to count which are confused"
        return
    names = model.form.names
    yield f"\n{class_report(scores, names)}"
    yield f"\n{confusion_table(scores.confusion, names)}"
