"""Predict the class of each row of a file, and how likely each one is.

    dpedf predict runs/mnist images.h5 -o predicted.csv
    mpirun -n 4 python -m dpedf predict runs/mnist data/mnist.h5 --split test -o predicted.h5

FILE is HDF5, with rows x at its top or in a group, or a text; labels are not read.  Rows are
scaled by its attributes scale, mean and std, or where it has none, as those of the run were.

OUT has the rows in the same order: class (-1 where the output is nan) and the probabilities;
scores where the output is no probability; of a model without classes, its output, which is in the
units of the table where data/table.py has standardised the target.
"""

import argparse
import os
from functools import partial
from math import prod
from pathlib import Path

from dpedf.data.disk import expect_place
from dpedf.data.part import Part
from dpedf.errors import UserError, plural
from dpedf.parallel import job
from dpedf.run.command_line import Parser
from dpedf.run.predictions import WRITERS, Predictions, holds_predictions, outputs, save
from dpedf.run.trained import opened


def main(words):
    parser = Parser("dpedf predict", __doc__)
    add = parser.add_argument
    add("run", metavar="RUN", help="the directory of the run")
    add("file", metavar="FILE", help="the rows, such as images.h5")
    add("-o", "--output", metavar="OUT", required=True, type=output, help="a .csv, .h5 or .npz")
    add("--split", metavar="GROUP", help="of FILE, such as test, if it has several")
    parser.add_checkpoint()
    job.run_watched(partial(predict, parser.read(words)))


def output(path):
    """The type of a path that a writer is known for."""
    if Path(path).suffix not in WRITERS:
        raise argparse.ArgumentTypeError(f"{path}, expected a name in {', '.join(WRITERS)}")
    return os.path.expanduser(path)


def predict(args, ranks):
    with opened(args, ranks) as model:
        with ranks.together():
            part = Part(args.file, model.form, model.x, model.y, model.settings.data, model.device)
            part.open_unlabelled(args.split)
            predictions = Predictions(model, part)
            if ranks.rank == 0:
                expect_place(args.output)
                read = part.path, model.file, os.path.expanduser(model.settings.data.file)
                expect_replaceable(Path(args.output), read, predictions)
        part.read_through(ranks)
        n = len(part.rows)
        save(args.output, predictions, n, outputs(model.Q, part, ranks, model.rows), ranks)
        for note in [*model.notes, *part.notes]:
            ranks.say(note)
        by = f"{model.file} of step {model.step:,}"
        ranks.say(f"{args.output}: {predictions.what} of {plural(n, 'row')}, by {by}")


def expect_replaceable(path, read, predictions):
    """UserError: predictions cannot be written here, or over a file that somebody needs.

    read: files by which the run or its model is read.  .h5 and .npz are what data sets are, too.
    """
    if path.exists() and path.stat().st_size:
        if any(os.path.exists(file) and path.samefile(file) for file in read):
            raise UserError(f"{path} is read here, and would be lost, expected another OUT")
        if path.suffix != ".csv" and not holds_predictions(path):
            found = f"{path} is no file of predictions, and would be lost"
            raise UserError(f"{found}, expected another OUT")
    if path.suffix == ".csv" and predictions.labels:
        found = f"rows of {plural(prod(predictions.labels), 'label')}"
        raise UserError(f"{path}: {found}, expected .h5 or .npz, since a line of .csv has one")
