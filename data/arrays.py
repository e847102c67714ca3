"""Arrays that NumPy has saved as a data file of dpedf; memory need not hold those of .npy files.

    python data/arrays.py x.npy y.npy --scale 1/255   # writes data/NAME.h5 of x's name NAME
    python data/arrays.py x.npy y.npy --test-x x2.npy --test-y y2.npy --valid 0.1
    python data/arrays.py x.npy y.npy --classes cat dog fox
    python data/arrays.py mnist.npz                   # of x_train, y_train, x_test and y_test

x is (N, ...), y is (N,) or (N, ...).  A y of integers or bools holds labels, from 0 on, and one of
floats holds numbers.  Without y, for a model that needs none, every row has the label 0.  Rows to
validate and to test are drawn from x and y, unless they have files of their own.  An .npz, whose
arrays memory has to hold, has x and y, or x_train, x_valid (or x_val) and x_test, and y alike.
"""

import argparse
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from zipfile import ZipFile

import numpy as np

from dpedf.data import scatter
from dpedf.data.disk import expect_regular
from dpedf.data.labels import hints
from dpedf.data.memory import expect_memory
from dpedf.data.recipe import (
    about_of,
    add_options,
    beside,
    expect_kept,
    parser_of,
    readable,
    recipe_errors,
    split_of,
    summary,
)
from dpedf.data.sound import expect_finite
from dpedf.data.tables import BROKEN
from dpedf.data.unfinished import blocks_of
from dpedf.data.writer import GROUPS
from dpedf.errors import UserError, one_line, plural, print_line

BEGINS = b"\x93NUMPY"
NAMES = "numpy.unique(y, return_inverse=True)[1] makes labels of names"
NUMBERS = "a y that is no label is saved as floats, y.astype(float)"
SUFFIXES = {"": "train", "_train": "train", "_valid": "valid", "_val": "valid", "_test": "test"}
MEMBERS = {f"{key}{end}": (group, key) for end, group in SUFFIXES.items() for key in "xy"}
MOST = 1 << 31  # classes
FIRST = 512  # rows of y that may say what it was meant to be


@contextmanager
def reading(path, kind):
    """Inside the with block, a file that is none of NumPy's is a UserError."""
    try:
        expect_regular(path)
        with np.errstate(over="ignore"):
            yield
    except UserError:
        raise
    except BROKEN as error:
        found = one_line(error).rstrip(".") or type(error).__name__
        raise UserError(f"{path}: {found}, expected a whole {kind} file of numbers") from None


def files_of(args):
    """{(group, "x" or "y"): the file that the user names for it}."""
    options = {(g, key): key if g == "train" else f"{g}_{key}" for g in GROUPS for key in "xy"}
    files = {place: getattr(args, option) for place, option in options.items()}
    return {place: file for place, file in files.items() if file}


def arrays_of(args):
    """{(group, "x" or "y"): (where it is from, the array)}."""
    files = files_of(args)
    if args.x.suffix.lower() != ".npz":
        return {place: (file, mapped(file)) for place, file in files.items()}
    if len(files) > 1:
        raise UserError(f"{args.x} and other files, expected all arrays in the .npz")
    return members(args.x)


def mapped(path):
    """The array in an .npy file, which stays there."""
    with reading(path, ".npy"):
        with open(path, "rb") as file:
            if file.read(len(BEGINS)) != BEGINS:
                raise ValueError("another kind of file")
        return np.lib.format.open_memmap(path, mode="r")


def members(path):
    """The arrays in an .npz, as of arrays_of."""
    with reading(path, ".npz"), ZipFile(path) as archive:
        expect_memory(f"{path}: its arrays", sum(its.file_size for its in archive.infolist()))
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        known = {MEMBERS[name]: name for name in names if name in MEMBERS}
        if ("train", "x") not in known or len(known) < len(MEMBERS.keys() & {*names}):
            found = f"{path}: holds {', '.join(names) or 'nothing'}"
            expected = "x and y, or x_train, y_train, x_test and y_test"
            raise UserError(f"{found}, expected {expected}; data/table.py takes columns")
        if others := [name for name in names if name not in MEMBERS]:
            print_line(f"not read: {', '.join(others)} of {path}")
        found = {}
        for place, name in known.items():
            with archive.open(f"{name}.npy") as member:
                found[place] = f"{path}: {name}", np.lib.format.read_array(member)
        return found


def expect_rows(where, array, like):
    """UserError: an array holds no rows of numbers, or others than that which it should be like."""
    if array.dtype.kind not in "biuf":
        hint = f"; {NAMES}" if array.dtype.kind in "SU" else ""
        raise UserError(f"{where}: of {array.dtype}, expected numbers{hint}")
    if array.size == 0 or array.ndim == 0:
        raise UserError(f"{where}: of shape {array.shape}, expected rows of numbers")
    forms = [(a.shape[1:], a.dtype.newbyteorder("=")) for a in (array, like)]
    if forms[0] != forms[1]:
        found, expected = (f"rows of {shape} of {dtype}" for shape, dtype in forms)
        raise UserError(f"{where}: {found}, expected {expected} as those to train")


def expect_pairs(arrays):
    """How many rows each group has.  UserError: the arrays do not go together."""
    counts, labelled = {}, ("train", "y") in arrays
    for group in GROUPS:
        its = {key: arrays[group, key] for key in "xy" if (group, key) in arrays}
        if its and [*its] != (expected := ["x", "y"] if labelled else ["x"]):
            expected = "x and y" if labelled else "x alone"
            raise UserError(f"rows to {group}: {' and '.join(its)}, expected {expected}")
        for key, (where, array) in its.items():
            expect_rows(where, array, arrays["train", key][1])
            counts.setdefault(group, len(array))
            if len(array) != counts[group]:
                found = f"{where}: {plural(len(array), 'row')}"
                raise UserError(f"{found}, expected {counts[group]:,} as in {its['x'][0]}")
    return counts


def classes_of(arrays, named):
    """How many classes y has, or None where it holds numbers.  UserError: a label is none of them.

    named: how many there are, or their names; None for one more than the largest label.
    """
    targets = [arrays[group, "y"] for group in GROUPS if (group, "y") in arrays]
    if not targets or targets[0][1].dtype.kind == "f":
        if named is not None:
            found = f"{targets[0][0]}: of {targets[0][1].dtype}" if targets else "no y"
            raise UserError(f"--classes, but {found}, expected labels, integers from 0 on")
        return None if targets else 1
    ranges = {}
    for where, labels in targets:
        blocks = [(int(block.min()), int(block.max())) for (block,) in blocks_of(labels)]
        ranges[where] = min(low for low, _ in blocks), max(high for _, high in blocks)
    classes = len(named) if isinstance(named, list) else named
    if classes is None:
        truth = targets[0][1].dtype.kind == "b"
        classes = 2 if truth else min(max(high for _, high in ranges.values()) + 1, MOST)
    for where, (low, high) in ranges.items():
        if low < 0 or high >= classes:
            found = f"{where}: label {low if low < 0 else high}"
            raise UserError(f"{found}, expected 0..{max(classes - 1, 0)}; {NUMBERS}")
    return classes


def blocks(arrays, counts):
    """Yield (x, y) for some rows at a time.  UserError: not all numbers are finite."""
    for group in counts:
        places = [arrays[group, key] for key in "xy" if (group, key) in arrays]
        first = 0
        for block in blocks_of(*(array for _, array in places)):
            numbers = range(first, first + len(block[0]))
            first = numbers.stop
            for (where, _), rows in zip(places, block, strict=True):
                expect_finite(where, rows, rows, numbers)
            block = [rows.astype(rows.dtype.newbyteorder("="), copy=False) for rows in block]
            yield block if len(block) == 2 else (*block, np.zeros(len(numbers), np.uint8))


def number(text):
    """A number other than 0: 0.5, 1e-3 or 1/255."""
    try:
        found = float(Fraction(text))
    except (ZeroDivisionError, OverflowError):
        found = 0
    if not found:
        raise argparse.ArgumentTypeError(f"{text}, expected a number such as 0.5 or 1/255")
    return found


def main():
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("x", metavar="x.npy", type=Path, help="rows to train, or to draw from; or an .npz")
    add("y", metavar="y.npy", type=Path, nargs="?", help="their labels, or numbers")
    for group, does in ("valid", "validate"), ("test", "test"):
        for key in "xy":
            add(f"--{group}-{key}", metavar="FILE", type=Path, help=f"{key} of rows that {does}")
    add("--classes", metavar="NAME", nargs="+", help="how many classes there are, or their names")
    add("--scale", metavar="S", type=number, default=1, help="an input is x times S, as 1/255 (1)")
    add_options(parser)
    args = parser.parse_args()
    with recipe_errors(parser, output := args.output or beside(__file__, args.x.stem)):
        named = args.classes and [*map(readable, args.classes)]
        if named and len(named) == 1 and named[0].isdecimal():
            named = int(named[0])
        if named == 0:
            raise UserError("--classes 0, expected at least 1")
        expect_kept(files_of(args).values(), output)
        arrays = arrays_of(args)
        counts = expect_pairs(arrays)
        classes, split = classes_of(arrays, named), split_of(counts, args)
        about = about_of(args, args.x.stem, args.x.name, "that of the arrays")
        about |= {"classes": named or classes, "scale": args.scale}
        scatter(output, blocks(arrays, counts), split, **about)
        x, y = (arrays.get(("train", key), (None, None))[1] for key in "xy")
        holds = "numbers" if classes is None else f"labels 0..{classes - 1}"
        print_line(f"{output}: {summary(split, 'row')}; y: {'all 0' if y is None else holds}")
        for hint in () if y is None else hints(x.shape, y[:FIRST]):
            print_line(f"{output}: {hint}")


if __name__ == "__main__":
    main()
