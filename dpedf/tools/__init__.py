"""The tools of `python -m dpedf TOOL ...`, one file each: what its name says, by main(words).

main returns the status that the tool ends with, None for 0; of a UserError, dpedf/__main__.py
says the line, and ends with 2.
"""

import argparse

from dpedf.errors import UserError


class Parser(argparse.ArgumentParser):
    """Of a tool's words, by its name and docstring; what is wrong with them is a UserError."""

    def __init__(self, name, doc):
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(f"dpedf {name}", description=doc, formatter_class=layout)

    def error(self, message):
        raise UserError(f"{self.prog}: {message}; --help says more")
