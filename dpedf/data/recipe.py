"""What the command lines of recipes have in common."""

import argparse
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dpedf.data.disk import expect_place
from dpedf.data.split import expect_integer
from dpedf.data.writer import GROUPS
from dpedf.errors import UserError, one_line, plural, print_error, visible
from dpedf.parallel.signals import Stopped, leave_quietly, stopped_by

TESTS = 0.1  # the part of the rows that tests, where nothing else is asked for


def parser_of(about, output=None):
    """The parser of a recipe.  about: its docstring; output: the file that it writes by default."""
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, formatter_class=shape)
    parser.add_argument("--output", metavar="FILE", type=Path, default=output, help="write FILE")
    return parser


def add_fractions(parser, tests=True):
    """Give a recipe the options --valid, --seed and, unless its source has rows to test, --test."""
    add = parser.add_argument
    what = "how much of the rows {}, drawn by seed ({:g})"
    add("--valid", metavar="FRACTION", type=float, help=what.format("validates", 0))
    if tests:
        add("--test", metavar="FRACTION", type=float, help=what.format("tests", TESTS))
    add("--seed", metavar="N", type=int, default=0, help="another seed draws other rows (0)")


def add_options(parser):
    """Give a recipe of data of one's own these options, and --name, --source and --licence."""
    add_fractions(parser)
    for key in "name", "source", "licence":
        parser.add_argument(f"--{key}", metavar="TEXT", help=f"the {key} that the file states")


def about_of(args, name, source, licence):
    """{"name": ..., "source": ..., "licence": ...}: the options that are given, else these."""
    known = {"name": name, "source": source, "licence": licence}
    return {key: readable(getattr(args, key, None) or its) for key, its in known.items()}


@contextmanager
def recipe_errors(parser, output):
    """Inside the with block, what fails is one line and status 2; Ctrl-C is one, with its own.

    output: the file that is written, which an OSError is about.
    """
    leave_quietly()
    try:
        expect_place(output.expanduser())
        yield
    except Stopped as stopped:
        print_error(stopped_by(stopped.code))
        raise
    except UserError as error:
        found = one_line(error)
    except OSError as error:
        found = f"{output}: {one_line(error)}"
    else:
        return
    print_error(visible(found))
    parser.exit(2)


def expect_kept(inputs, output):
    """UserError: the output would replace one of these files, that it is made of."""
    there = os.path.expanduser(output)  # as a data file is written
    for path in inputs if os.path.exists(there) else ():
        if os.path.exists(path) and os.path.samefile(path, there):
            raise UserError(f"--output {output} would replace {path}, expected another file")


def beside(recipe, name):
    """The file of a name that a recipe writes where no other is asked for."""
    return Path(recipe).with_name(f"{name}.h5")


def readable(name):
    """The name of a file as a text, in which bytes that are no UTF-8 are question marks."""
    return name.encode("utf-8", "replace").decode()


def summary(split, noun):
    """ "80 images to train, 10 to validate, 10 to test", of a split as scatter takes it."""
    counts = np.bincount(split, minlength=len(GROUPS)).tolist()
    parts = zip(counts, ("train", "validate", "test"), strict=True)
    (first, does), *others = ((n, does) for n, does in parts if n)
    return ", ".join([f"{plural(first, noun)} to {does}", *(f"{n:,} to {d}" for n, d in others)])


def drawn(n, valid, test, seed, given=()):
    """The group of each of n rows: (n,), 0 to train, 1 to validate, 2 to test.

    valid, test: fractions, None for the defaults.  given: which of these groups the source has
    itself.  Which rows test is a function of (n, test, seed).  UserError: a fraction is none, or
    leaves a group without rows.
    """
    expect_integer("--seed", seed)
    left = np.random.Generator(np.random.Philox(key=[seed, 0])).permutation(n)
    split = np.zeros(n, np.uint8)
    for group, number, fraction in ("test", 2, test), ("valid", 1, valid):
        if fraction is None:
            fraction = TESTS if group == "test" and group not in given else 0
        elif group in given:
            found = f"--{group} {fraction:g}, but there are rows for that already"
            raise UserError(f"{found}, expected no such option")
        needed = group == "test" and group not in given  # a run ends with rows to test
        if not 0 <= fraction < 1 or (needed and not fraction):  # nan as well
            expected = "more than 0 and less than 1" if needed else "from 0 to less than 1"
            expected += ", since a run ends with rows to test" * (fraction == 0)
            raise UserError(f"--{group} {fraction:g}, expected a fraction {expected}")
        size = round(n * fraction)
        if fraction and not size:
            found = f"--{group} {fraction:g} of {plural(n, 'row')} is none"
            raise UserError(f"{found}, expected one at least")
        if size >= len(left):
            found = f"--{group} {fraction:g} takes all that is left of {plural(n, 'row')}"
            raise UserError(f"{found}, expected some to train")
        split[left[:size]], left = number, left[size:]
    return split


def split_of(counts, args):
    """The group of each row of a source, as scatter takes it.

    counts: {group: how many rows}, in the order of GROUPS, of the groups that the source has
    itself; those to train are drawn from.  args: those of add_fractions.
    """
    asked = args.valid, getattr(args, "test", None), args.seed, counts.keys() - {"train"}
    groups = [
        drawn(n, *asked) if group == "train" else np.full(n, GROUPS.index(group), np.uint8)
        for group, n in counts.items()
    ]
    return np.concatenate(groups)
