"""The tools of `python -m dpedf TOOL ...`, one file each, which defines main(words).

main returns the exit status, None for 0.  dpedf/__main__.py prints the line of a UserError, and
exits with 2.
"""

import argparse
from pathlib import Path

from dpedf.errors import UserError
from dpedf.run.own_code import own_file


class Parser(argparse.ArgumentParser):
    """The parser of a tool's command line; its errors are UserErrors."""

    def __init__(self, name, doc):
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(f"dpedf {name}", description=doc, formatter_class=layout)

    def error(self, message):
        raise UserError(f"{self.prog}: {message}; --help says more")


def expect_own_code(settings, run):
    """UserError: the settings of a run name code that lies outside of its directory.

    Who opens a run need not trust who wrote it.
    """
    file = own_file(settings.model["build"])
    if file and not Path(file).resolve().is_relative_to(Path(run).resolve()):
        found = f'model.build = "{settings.model["build"]}" is code outside of {run}'
        raise UserError(f"{found}, expected --trust to run {file}")
