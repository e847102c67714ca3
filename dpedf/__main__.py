"""The tools of dpedf:

    python -m dpedf TOOL ...
    python -m dpedf TOOL --help

Each is a file of dpedf/tools.
"""

import ast
import sys
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from dpedf import tools
from dpedf.errors import UserError, flush, one_line, print_error, visible


def listed():
    """{name: the first line of its docstring} of every tool."""
    files = sorted(Path(tools.__file__).parent.glob("[!_]*.py"))
    sources = {file.stem: ast.parse(file.read_text("utf-8")) for file in files}
    docs = {name: ast.get_docstring(source) for name, source in sources.items()}
    return {name: doc.splitlines()[0].rstrip(":.") for name, doc in docs.items()}


def run(name="--help", *words):
    """The status that a tool ends with.  UserError: there is none of this name."""
    known = listed()
    if name in ("--help", "-h"):
        lines = (f"    {tool:12}{what}" for tool, what in known.items())
        print(__doc__.rstrip(), "", *lines, sep="\n")
        return 0
    if name not in known:
        near = get_close_matches(name, known, 1) or [f"one of {', '.join(known)}"]
        raise UserError(f"{name}: no such tool, expected {near[0]}")
    return import_module(f"dpedf.tools.{name}").main(list(words))


def main():
    try:
        status = run(*sys.argv[1:])
        sys.stdout.flush()
    except UserError as error:
        print_error(visible(str(error)))
        status = 2
    except BrokenPipeError:  # the reader of the output, such as head, has gone
        status = 1
    except OSError as error:
        print_error(f"{error.filename or 'standard output'}: {one_line(error)}")
        status = 1
    except KeyboardInterrupt:
        status = 130
    flush()
    return status


if __name__ == "__main__":
    sys.exit(main())
