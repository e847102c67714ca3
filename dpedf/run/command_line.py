"""Command lines: of training, and of the tools."""

import argparse
import re
from difflib import get_close_matches
from pathlib import Path

from dpedf.errors import UserError
from dpedf.parallel import launcher
from dpedf.run.config import load
from dpedf.run.tree import plain, shown, shown_key


class Parser(argparse.ArgumentParser):
    """The parser of a command line.  Its errors are UserErrors, and name the nearest option."""

    def __init__(self, name, doc):
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(name, description=doc, formatter_class=layout, allow_abbrev=False)

    def read(self, words):
        """What the words say.  --section.key=value may be written for section.key=value."""
        words = [re.sub(r"^--(?=\w+\.\w+=|seed=)", "", word) for word in words]
        args, unknown = self.parse_known_intermixed_args(words)
        if unknown:
            name, options = unknown[0].partition("=")[0], self._option_string_actions
            near = get_close_matches(name, options, 1)
            expected = f", expected {near[0]}" if near else ""
            self.error(f"{shown_key(unknown[0])} is unknown{expected}")
        return args

    def add_config(self):
        """A config, and settings that replace some of its keys."""
        self.add_argument("config", metavar="CONFIG", help="such as configs/mnist.toml")
        replaces = "replaces one of its keys"
        self.add_argument(
            "settings", metavar="section.key=value", nargs="*", default=[], help=replaces
        )

    def add_checkpoint(self):
        """Which checkpoint of a run is opened, and whether its code is."""
        best = "best.h5, or checkpoint.h5 where nothing was validated"
        self.add_argument("--checkpoint", metavar="NAME", help=f"a file of the run ({best})")
        trust = "run the code that the run names, though it lies elsewhere"
        self.add_argument("--trust", action="store_true", help=trust)

    def error(self, message):
        what = re.sub(r"^argument (\S+?): ", r"\1 ", message)
        raise UserError(f"{self.prog}: {what}; --help says more")

    def print_help(self, file=None):
        if launcher.speaks():
            super().print_help(file)


def at_least(least, kind=int):
    """The type of an option: a number that is at least so much."""

    def number(text):
        try:
            text = found = kind(text)
        except ValueError:
            found = None
        if found is None or not least <= found < 2**63:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{shown(text)}, expected {what} of at least {least}")
        return found

    return number


def expect_one_process(tool):
    """UserError: a launcher started several, of which each would do the same."""
    if (size := launcher.size()) > 1:
        raise UserError(f"{tool} on {size} ranks, expected one: it needs no mpirun")


def from_command_line(words):
    """(path, Config, flags) of "CONFIG [section.key=value ...] [--resume | --overwrite]"."""
    for word in words:
        if not plain(word):
            raise UserError(f"{ascii(word)}: expected words in UTF-8")
    flags = {word for word in words if word in ("--resume", "--overwrite")}
    path, *overrides = [word for word in words if word not in flags] or [""]
    if not path or ("=" in path and not Path(path).is_file()) or path.startswith("-"):
        raise UserError("no CONFIG, expected a TOML file first, such as configs/mnist.toml")
    if len(flags) == 2:
        raise UserError("--resume and --overwrite, expected one of them")
    return path, load(path, overrides), flags
