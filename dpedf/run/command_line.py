"""Command lines: of training, and of the tools."""

import argparse
import os
import re
import shutil
import textwrap
from difflib import get_close_matches
from functools import partial
from itertools import pairwise

from dpedf.errors import UserError, nearest
from dpedf.parallel import launcher
from dpedf.run.config import load
from dpedf.run.settings.listing import listing
from dpedf.run.settings.sections import TYPES
from dpedf.run.settings.spelling import end, initials, is_closed
from dpedf.run.settings.tree import plain, shown, shown_key

KEYS = [key for key in TYPES if "." in key or key == "seed"]  # without sections


class Parser(argparse.ArgumentParser):
    """The parser of a command line.  Its errors are UserErrors, and name the nearest option."""

    takes_config = needs_config = False

    def __init__(self, name, doc):
        layout = argparse.RawDescriptionHelpFormatter
        says = doc and filled(doc, shutil.get_terminal_size().columns - 2)  # as argparse's own
        super().__init__(name, description=says, formatter_class=layout, allow_abbrev=False)

    def read(self, words):
        """What the words say.  --section.key=value may be written for section.key=value."""
        if self.takes_config:
            dashes = re.compile(r"^--(?=(\w+(\.\w+)+|seed)\s*=)")
            words = [dashes.sub("", word) for word in joined(words)]
        args, unknown = self.parse_known_intermixed_args(words)
        if unknown:
            following = [*words, ""][words.index(unknown[0]) + 1]
            expected = self.expected(*unknown[0].partition("=")[::2], following)
            self.error(f"{shown_key(unknown[0])} is unknown{expected}")
        if self.takes_config:
            args.config, args.settings = told_apart([args.config or "", *args.settings])
            if not args.config and (self.needs_config or args.settings):
                expected = "expected a TOML file, such as configs/mnist.toml"
                self.error(f"the following arguments are required: CONFIG; {expected}")
        return args

    def expected(self, name, value, following):
        """What is expected in place of an unknown option, after a comma; "" if nothing is near."""
        near = {option: option for option in self._option_string_actions}
        if self.takes_config:
            value = value or shown_key(following) or "..."
            for key in KEYS:
                names = key, end(key), initials(end(key))
                near |= {f"--{name}": f"{key}={value}" for name in names if name}
            near |= {"-n": f"mpirun -n {value} before the command", "--config": f"{value} alone"}
        found = get_close_matches(name, near, 1)
        return f", expected {near[found[0]]}" if found else ""

    def add_config(self, needed=True):
        """A config, and settings that replace some of its keys, in any order."""
        self.takes_config, self.needs_config = True, needed
        self.add_argument("config", metavar="CONFIG", nargs="?", help="such as configs/mnist.toml")
        replaces = "replaces one of its keys"
        self.add_argument(
            "settings", metavar="section.key=value", nargs="*", default=[], help=replaces
        )

    def add_checkpoint(self):
        """Which checkpoint of a run is opened, and whether its code is."""
        best = "best.h5, or checkpoint.h5 where nothing was validated"
        self.add_argument("--checkpoint", metavar="NAME", help=f"a file of the run ({best})")
        trust = "run the code that the run names in a file"
        self.add_argument("--trust", action="store_true", help=trust)

    def _check_value(self, action, value):
        if action.choices is not None and value not in action.choices:
            expected = nearest(str(value), [*map(str, action.choices)])
            raise argparse.ArgumentError(action, f"{shown_key(value)}, expected {expected}")

    def error(self, message):
        what = re.sub(r"^argument (\S+?): ", r"\1 ", message)
        what = what.replace("ignored explicit argument", "takes no value, found")
        raise UserError(f"{self.prog}: {what}; --help says more")

    def format_help(self):
        text = super().format_help()
        return text.replace("[CONFIG]", "CONFIG") if self.needs_config else text

    def print_help(self, file=None):
        if launcher.speaks():
            super().print_help(file)


def filled(doc, width):
    """A docstring with its paragraphs as wide as this, and its commands as they are."""
    paragraphs = doc.strip().split("\n\n")
    fill = partial(textwrap.fill, width=width, break_long_words=False, break_on_hyphens=False)
    return "\n\n".join(p if p.startswith(" ") else fill(p) for p in paragraphs)


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


def joined(words):
    """These words, of which each setting is one.  A shell divides [784, 10] and key = value."""
    found = []
    for word in words:
        inner = word[1:-1] if word[:1] == word[-1:] and word[:1] in [*"\"'"] else ""
        word = inner if inner and not inner.startswith("-") else word  # quotes that nobody took off
        if found and goes_on(found[-1], word):
            found[-1] += f" {word}"
        else:
            found.append(word)
    return found


def goes_on(setting, word):
    """Does a setting go on in the next word?"""
    key, equals, value = setting.partition("=")
    if not equals:
        return word.startswith("=") and bool(re.fullmatch(r"[\w.-]+", key))
    if "=" in word or word.startswith("--") or word.endswith(".toml"):
        return False
    opened = value.strip()[:1] in ("[", "{", "(") and not is_closed(value)
    return opened or (key.endswith(" ") and not value)


def told_apart(words):
    """(CONFIG or "", settings), which may stand in any order.  UserError: there are two CONFIGs."""
    others = [word for word in words if word and ("=" not in word or os.path.isfile(word))]
    for before, word in pairwise(["", *words, ""]):
        key, colon, value = before.partition(":")
        near = [known for known in KEYS if key in (known, end(known))]
        if near and before in others and not os.path.isfile(before):
            raise UserError(f"{shown_key(before)}: expected {near[0]}={shown_key(value or word)}")
        if before.endswith("=") and word in others and others[1:]:
            raise UserError(f"{before} {shown_key(word)}: expected no blank after =")
    if others[1:]:
        found = " and ".join(map(shown_key, others[:2]))
        raise UserError(f"{found}: expected one CONFIG, and settings such as train.epochs=3")
    return "".join(others), [word for word in words if word and word not in others]


def training(doc=None):
    """The parser of training.  doc: of the program, for its help."""
    parser = Parser("dpedf train", doc)
    parser.add_config()
    add = partial(parser.add_argument, action="store_true")
    add("--resume", help="go on from the checkpoint in the directory of the run, if there is one")
    add("--overwrite", help="replace the run that is in the directory")
    return parser


def help_of_training(doc):
    """What --help of training says: its options, and every setting."""
    parser, width = training(doc), shutil.get_terminal_size().columns
    return f"{parser.format_help()}\n{listing(width)}"


def from_command_line(words):
    """(path, Config, flags) of "CONFIG [section.key=value ...] [--resume | --overwrite]"."""
    for word in words:
        if not plain(word):
            raise UserError(f"{ascii(word)}: expected words in UTF-8")
    args = training().read(words)
    if args.resume and args.overwrite:
        raise UserError("--resume and --overwrite, expected one of them")
    flags = {f"--{name}" for name in ("resume", "overwrite") if getattr(args, name)}
    return args.config, load(args.config, args.settings), flags
