"""What the command lines of recipes have in common."""

import argparse
from contextlib import contextmanager
from pathlib import Path

from dpedf.errors import UserError, one_line, print_error, visible
from dpedf.parallel.signals import leave_quietly


def parser_of(about, output):
    """The parser of a recipe.  about: its docstring; output: the file that it writes by default."""
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, formatter_class=shape)
    parser.add_argument("--output", metavar="FILE", type=Path, default=output, help="write FILE")
    return parser


@contextmanager
def recipe_errors(parser, output):
    """Inside the with block, what fails is one line and status 2, and Ctrl-C ends quietly.

    output: the file that is written, which an OSError is about.
    """
    leave_quietly()
    try:
        yield
    except (UserError, TypeError) as error:
        found = one_line(error)
    except OSError as error:
        found = f"{output}: {one_line(error)}"
    else:
        return
    print_error(visible(found))
    parser.exit(2)
