"""What a model predicts for each row of a file, and how that is written to another one."""

import csv
import io
from math import prod
from pathlib import Path
from zipfile import BadZipFile, ZipFile, ZipInfo

import h5py
import numpy as np

from dpedf.data.disk import replacing, writing
from dpedf.data.targets import Targets
from dpedf.device import host
from dpedf.edf import CompNodes, Forward
from dpedf.errors import RunError, UserError
from dpedf.kernels.activation import sigmoid
from dpedf.parallel.passes import memory_of_passes
from dpedf.program import during, program
from dpedf.run.evaluate import classifies, rows_of_block
from dpedf.run.measures import kind_of
from dpedf.run.targets import predicted

LETTERS = {"probabilities": "p", "scores": "s", "output": "y"}  # of the numbers of a row


class Predictions:
    """What is written for each row: of a classifier the class and the numbers it follows from.

    what: "probabilities", of each class; "scores", where the output of a classifier is no
    probability; "output", where there are no classes, in the units of the table from which the
    targets are.
    shape, dtype: of these numbers, of a row.  labels: the shape of its classes; None without.
    UserError: the output depends on more than x.
    """

    def __init__(self, model, part):
        Q, y, names = model.Q, model.y, model.form.names
        if y in program(Q).inputs:
            raise UserError(f"{model.file}: the output depends on y, expected that x is enough")
        part.put(*part.rows.load(part.rows.numbers[:0]))
        Forward(Q)
        self.shape, self.dtype, self.what = Q.value.shape[1:], Q.value.dtype, "output"
        self.labels, self.names, self.binary = None, (), False
        if classifies(model.ell, y):
            self.labels, self.names = y.shape, names if len(names) == y.classes else ()
            self.binary = len(self.shape) == len(y.shape)
            if self.binary:  # the score of class 1, which has the probabilities of both
                self.shape = *self.shape, 2
            likely = self.binary or is_probability(Q, model.ell)
            self.what = "probabilities" if likely else "scores"
        self.targets = Targets()
        if model.form.targets and kind_of(Q, model.ell, y) == "regression":
            self.targets = model.form.targets
            self.dtype = self.of(Q.value)[1].dtype

    def of(self, Q):
        """(classes, numbers) for some rows with this output; without classes None."""
        if self.labels is None:
            return None, self.targets.as_in_table(Q)
        classes = predicted(Q, 1 + len(self.labels))
        return classes, np.stack([sigmoid(-Q), sigmoid(Q)], axis=-1) if self.binary else Q

    def columns(self):
        """The names of the columns of numbers."""
        letter = LETTERS[self.what]
        if self.targets.names:
            return self.targets.names
        if self.labels is None or not self.names:
            return [f"{letter}{j}" for j in range(prod(self.shape))]
        return [f"{letter}_{name}" for name in self.names]


def is_probability(Q, ell):
    """Is Q a Softmax, or what a loss takes the logarithm of?"""
    softmax = any(cls.__name__ == "Softmax" for cls in type(Q).__mro__)  # also that of the slides
    return softmax or any(getattr(n, "log_Q", None) and n.Q is Q for n in CompNodes(ell))


def outputs(Q, part, ranks, rows):
    """Yield the output for all rows in order, some at a time, to rank 0; to the others nothing.

    Ranks take turns: each block is computed by one.  rows: of a pass of training, as for evaluate.
    AgreedError: a row is not finite.
    """
    numbers, size = part.rows.numbers, ranks.size
    rows = rows_of_block(Q, part, part.rows, rows)
    blocks = [numbers[first : first + rows] for first in range(0, len(numbers), rows)]
    mine = part.rows.stream(blocks[ranks.rank :: size])
    shape, dtype = Q.value.shape[1:], Q.value.dtype
    for first in range(0, len(blocks), size):
        lengths = [len(block) for block in blocks[first : first + size]]
        found = np.empty((0, *shape), dtype)
        with ranks.together():
            if ranks.rank < len(lengths):
                found = output(Q, part, mine, (first + ranks.rank) * rows)
        if size > 1:
            found = at_rank_0(ranks, found, [n * prod(shape) for n in lengths])
        ranks.alive()
        if ranks.rank == 0:
            yield found


def output(Q, part, stream, row):
    """The output for the next rows of a stream, on the host."""
    try:
        x, y = next(stream)
    except RunError as error:  # of rows that are looked at for the first time
        raise UserError(str(error)) from None
    with memory_of_passes(), during(row=row):
        part.put(x, y)
        Forward(Q)
        return np.ascontiguousarray(host(Q.value))


def at_rank_0(ranks, found, sizes):
    """What the first ranks have found, one after the other, on rank 0; on others no rows.

    sizes: how many numbers each of them has found.
    """
    counts = [0] * ranks.size if ranks.rank else sizes + [0] * (ranks.size - len(sizes))
    received, cuts = np.empty(sum(counts), found.dtype), [0] + [found.size] * ranks.size
    ranks.start_exchange(found.reshape(-1), cuts, received, counts).Wait()
    return received.reshape(-1, *found.shape[1:])


def save(path, predictions, n, blocks, ranks):
    """Write the predictions for n rows, of which blocks yields the output, on rank 0.

    RunError: the file could not be written, and is as it was before.
    """
    if ranks.rank:
        for _ in blocks:
            raise AssertionError("rank 0 alone gets rows")
        return
    with writing(path), replacing(path) as file:
        WRITERS[Path(path).suffix](file, predictions, n, map(predictions.of, blocks))


def write_csv(file, predictions, n, blocks):
    """A line for each row: the class, its name where there are names, and the numbers."""
    columns, names = predictions.columns(), predictions.names
    digits = "%.9g" if predictions.dtype.itemsize <= 4 else "%.17g"  # from which bits come back
    pattern = ",".join([digits] * len(columns)) + "\n"
    if predictions.labels is not None:
        columns = ["class", *(["name"] if names else []), *columns]
    begins = [as_csv(j, name)[:-1] + "," for j, name in enumerate(names)] + ["-1,,"]
    file.write(as_csv(*columns).encode())
    for classes, numbers in blocks:
        lines = [pattern % tuple(row) for row in numbers.reshape(len(numbers), -1).tolist()]
        if classes is not None:
            starts = [begins[c] if names else f"{c}," for c in classes.tolist()]
            lines = map("".join, zip(starts, lines, strict=True))
        file.write("".join(lines).encode())


def as_csv(*words):
    """A line of CSV, in which words are quoted where they need it."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(words)
    return line.getvalue()


def write_h5(file, predictions, n, blocks):
    """Datasets: class, and the numbers by what they are."""
    what, first = predictions.what, 0
    with h5py.File(file, "w") as to:  # by way of Python, so that a full disk is an OSError
        to.create_dataset(what, (n, *predictions.shape), predictions.dtype)
        if predictions.labels is not None:
            to.create_dataset("class", (n, *predictions.labels), np.int64)
        for classes, numbers in blocks:
            rows = slice(first, first := first + len(numbers))
            to[what][rows] = numbers
            if classes is not None:
                to["class"][rows] = classes


def write_npz(file, predictions, n, blocks):
    """The same as arrays of NumPy.  Classes are kept in memory until the numbers are written."""
    kept = [np.empty((0, *(predictions.labels or ())), np.int64)]
    header = {"descr": predictions.dtype.str, "fortran_order": False}
    with ZipFile(file, "w") as to:
        with to.open(ZipInfo(f"{predictions.what}.npy"), "w", force_zip64=True) as numbers:
            shape = (n, *predictions.shape)
            np.lib.format.write_array_header_1_0(numbers, header | {"shape": shape})
            for classes, found in blocks:
                numbers.write(found.tobytes())
                if classes is not None:
                    kept.append(classes)
        if predictions.labels is not None:
            with to.open(ZipInfo("class.npy"), "w", force_zip64=True) as classes:
                np.lib.format.write_array(classes, np.concatenate(kept))


def holds_predictions(path):
    """Does a file .h5 or .npz hold what is written above, and nothing else?"""
    try:
        if Path(path).suffix == ".h5":
            with h5py.File(path) as file:
                names = {*file, *file.attrs}
        else:
            with ZipFile(path) as file:
                names = {name.removesuffix(".npy") for name in file.namelist()}
    except (OSError, BadZipFile):
        return False
    return len(names & {*LETTERS}) == 1 and names <= {"class", *LETTERS}


WRITERS = {".csv": write_csv, ".h5": write_h5, ".npz": write_npz}
