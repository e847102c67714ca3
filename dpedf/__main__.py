"""dpedf: data-parallel training of neural networks, and the hours around it.

    dpedf TOOL ...
    dpedf TOOL --help
    dpedf --version

`python -m dpedf TOOL` is the same.  Each tool is a file of dpedf/tools.
"""

import ast
import sys
from importlib import import_module
from pathlib import Path

from dpedf import __version__, errors, tools
from dpedf.errors import RunError, UserError, one_line, print_error, visible
from dpedf.parallel import launcher

FIRST = "train"  # of the list


def listed():
    """{name: (what it does, an example)} of every tool: the first two lines of its docstring."""
    files = sorted(Path(tools.__file__).parent.glob("[!_]*.py"), key=lambda f: (f.stem != FIRST, f))
    known = {}
    for file in files:
        doc = ast.get_docstring(ast.parse(file.read_text("utf-8")))
        what, example, *_ = [line.strip() for line in doc.splitlines() if line]
        known[file.stem] = what.rstrip(":."), example
    return known


def run(name="--help", *words):
    """The status that a tool ends with.  UserError: there is none of this name."""
    known = listed()
    if name == "help" and words:
        name, words = words[0], ["--help"]
    if name == "--version":
        if launcher.speaks():
            print(f"dpedf {__version__}")
        return 0
    if name in ("--help", "-h", "help"):
        if launcher.speaks():
            lines = (f"  {tool:10}{what}\n{'':12}{line}" for tool, (what, line) in known.items())
            print(__doc__.rstrip(), "", *lines, sep="\n")
        return 0
    if name.endswith(".toml") or "=" in name:
        raise UserError(f"{name}: expected a tool before it, such as dpedf train {name}")
    if name.startswith("-"):
        expected = errors.nearest(name, ["--help", "--version"])
        raise UserError(f"{name}: expected {expected}, or a tool before it, such as dpedf train")
    if name not in known:
        raise UserError(f"{name}: no such tool, expected {errors.nearest(name, known)}")
    return import_module(f"dpedf.tools.{name}").main(list(words))


def main():
    launcher.expect_numbers()
    try:
        status = run(*sys.argv[1:]) or errors.lost_output()
        sys.stdout.flush()
    except (UserError, RunError) as error:
        if launcher.speaks():
            print_error(visible(str(error)))
        status = error.status
    except BrokenPipeError:  # the reader of the output, such as head, has gone
        status = 1
    except OSError as error:
        print_error(f"{error.filename or 'standard output'}: {one_line(error)}")
        status = 1
    except KeyboardInterrupt:
        status = 130
    errors.flush()
    return status


if __name__ == "__main__":
    sys.exit(main())
