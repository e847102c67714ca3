"""Arrays in NumPy's .npy files as a data file of dpedf; memory need not hold them.

    python data/arrays.py x.npy y.npy --scale 1/255   # writes data/NAME.h5 of x's name NAME
    python data/arrays.py x.npy y.npy --test-x x2.npy --test-y y2.npy --valid 0.1
    python data/arrays.py x.npy y.npy --classes cat dog fox

x is (N, ...), y is (N,) or (N, ...).  A y of integers or bools holds labels, from 0 on, and one of
floats holds numbers.  Without y, for a model that needs none, every row has the label 0.  Rows to
validate and to test are drawn from x and y, unless they have files of their own.
"""

import argparse
from fractions import Fraction
from pathlib import Path

import numpy as np

from dpedf.data import scatter
from dpedf.data.disk import expect_regular
from dpedf.data.fractions import add_fractions, split_of
from dpedf.data.recipe import (
    about_of,
    add_about,
    beside,
    parser_of,
    readable,
    recipe_errors,
    summary,
)
from dpedf.data.unfinished import blocks_of
from dpedf.data.writer import GROUPS
from dpedf.errors import UserError, one_line, plural, print_line

BEGINS = b"\x93NUMPY"
NAMES = "numpy.unique(y, return_inverse=True)[1] makes labels of names"
NUMBERS = "a y that is no label is saved as floats, y.astype(float)"


def mapped(path, like=None):
    """The array in a file, which stays there.  UserError: there is none, or none of rows.

    like: an array whose rows are of the same type and shape.
    """
    try:
        expect_regular(path)
        with open(path, "rb") as file:
            if file.read(len(BEGINS)) != BEGINS:
                raise ValueError("another kind of file")
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError, SyntaxError, TypeError) as error:
        found = one_line(error).rstrip(".")
        raise UserError(f"{path}: {found}, expected a whole .npy file of numbers") from None
    if array.dtype.kind not in "biuf":
        hint = f"; {NAMES}" if array.dtype.kind in "SU" else ""
        raise UserError(f"{path}: of {array.dtype}, expected numbers{hint}")
    if array.size == 0 or array.ndim == 0:
        raise UserError(f"{path}: of shape {array.shape}, expected rows of numbers")
    forms = [(a.shape[1:], a.dtype.newbyteorder("=")) for a in (array, like) if a is not None]
    if forms[0] != forms[-1]:
        found, expected = (f"rows of {shape} of {dtype}" for shape, dtype in forms)
        raise UserError(f"{path}: {found}, expected {expected} as those to train")
    return array


def opened(args, named):
    """({group: (x, y)} of those that have files, how many classes y has).

    y is None where there is none, and so are the classes of a y of numbers.
    named: how many classes there are, or their names, or None.  UserError: the arrays do not go
    together, or a label is none.
    """
    pairs, classes = {}, len(named) if isinstance(named, list) else named
    for group in GROUPS:
        x, y = (getattr(args, key if group == "train" else f"{group}_{key}") for key in "xy")
        if x is y is None:
            continue
        if x is None or (y is None) != (args.y is None):
            expected = f"--{group}-x" + (f" and --{group}-y" if args.y else " alone, as x is")
            raise UserError(f"rows to {group}: expected {expected}")
        like = pairs.get("train", (None, None))
        pairs[group] = arrays = [
            file and mapped(file, its) for file, its in zip((x, y), like, strict=True)
        ]
        if y and len(arrays[0]) != len(arrays[1]):
            found = f"{y}: {plural(len(arrays[1]), 'row')}"
            raise UserError(f"{found}, expected {len(arrays[0]):,} as in {x}")
        if y and arrays[1].dtype.kind in "biu":
            classes = expect_labels(y, arrays[1], classes)
        elif named is not None:
            found = f"{y}: of {arrays[1].dtype}" if y else "no y"
            raise UserError(f"--classes, but {found}, expected labels, integers from 0 on")
    return pairs, classes


def expect_labels(file, labels, classes):
    """How many classes labels have: so many, or where it is None, one more than the largest."""
    ranges = [(int(block.min()), int(block.max())) for (block,) in blocks_of(labels)]
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    if classes is None:
        classes = 2 if labels.dtype.kind == "b" else high + 1
    if low < 0 or high >= classes:
        found = f"{file}: label {low if low < 0 else high}, expected 0..{max(classes - 1, 0)}"
        raise UserError(f"{found}; {NUMBERS}")
    return classes


def blocks(pairs):
    """Yield (x, y) for some rows at a time."""
    for x, y in pairs:
        for block in blocks_of(x) if y is None else blocks_of(x, y):
            block = [rows.astype(rows.dtype.newbyteorder("="), copy=False) for rows in block]
            yield block if len(block) == 2 else (*block, np.zeros(len(block[0]), np.uint8))


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
    add("x", metavar="x.npy", type=Path, help="rows to train, or to draw from")
    add("y", metavar="y.npy", type=Path, nargs="?", help="their labels, or numbers")
    for group in GROUPS[1:]:
        for key in "xy":
            add(f"--{group}-{key}", metavar="FILE", type=Path, help=f"{key} of rows to {group}")
    add("--classes", metavar="NAME", nargs="+", help="how many classes there are, or their names")
    add("--scale", metavar="S", type=number, default=1, help="an input is x times S, as 1/255 (1)")
    add_about(parser)
    add_fractions(parser)
    args = parser.parse_args()
    with recipe_errors(parser, output := args.output or beside(__file__, args.x.stem)):
        named = args.classes and [*map(readable, args.classes)]
        if named and len(named) == 1 and named[0].isdecimal():
            named = int(named[0])
        if named == 0:
            raise UserError("--classes 0, expected at least 1")
        pairs, classes = opened(args, named)
        split = split_of({group: len(x) for group, (x, _) in pairs.items()}, args)
        about = about_of(args, args.x.stem, args.x.name, "that of the arrays")
        about |= {"classes": named if args.y else 1, "scale": args.scale}
        scatter(output, blocks(pairs.values()), split, **about)
        holds = "numbers" if classes is None else f"labels 0..{classes - 1}"
        print_line(f"{output}: {summary(split, 'row')}; y: {holds if args.y else 'all 0'}")


if __name__ == "__main__":
    main()
