"""What the command lines of recipes have in common."""

import argparse
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dpedf.errors import UserError, one_line, plural, print_error, visible
from dpedf.parallel.signals import leave_quietly


def parser_of(about, output=None):
    """The parser of a recipe.  about: its docstring; output: the file that it writes by default."""
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, formatter_class=shape)
    parser.add_argument("--output", metavar="FILE", type=Path, default=output, help="write FILE")
    return parser


def add_about(parser):
    """Give a recipe the options --name, --source and --licence, of data of one's own."""
    for key in "name", "source", "licence":
        parser.add_argument(f"--{key}", metavar="TEXT", help=f"the {key} that the file states")


def about_of(args, name, source, licence):
    """{"name": ..., "source": ..., "licence": ...}: the options, or else these."""
    known = {"name": name, "source": source, "licence": licence}
    return {key: readable(getattr(args, key) or its) for key, its in known.items()}


@contextmanager
def recipe_errors(parser, output):
    """Inside the with block, what fails is one line and status 2, and Ctrl-C ends quietly.

    output: the file that is written, which an OSError is about.
    """
    leave_quietly()
    try:
        yield
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
    for path in inputs:
        if os.path.exists(path) and os.path.exists(there) and os.path.samefile(path, there):
            raise UserError(f"--output {output} would replace {path}, expected another file")


def beside(recipe, name):
    """The file of a name that a recipe writes where no other is asked for."""
    return Path(recipe).with_name(f"{name}.h5")


def readable(name):
    """The name of a file as a text, in which bytes that are no UTF-8 are question marks."""
    return name.encode("utf-8", "replace").decode()


def summary(split, noun):
    """ "80 images to train, 10 to validate, 10 to test", of a split as scatter takes it."""
    trains, *others = np.bincount(split, minlength=3).tolist()
    parts = [f"{plural(trains, noun)} to train"]
    for n, does in zip(others, ("validate", "test"), strict=True):
        parts += [f"{n:,} to {does}"] if n else []
    return ", ".join(parts)
