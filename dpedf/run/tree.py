"""A configuration as a tree of tables: from a TOML file, and from the command line."""

import stat
import tomllib
from codecs import BOM_UTF8
from pathlib import Path

from dpedf.errors import UserError, one_line

MOST_BYTES, DEEPEST = 100_000, 20  # of a file, and of tables and lists in each other
MOST_SHOWN = 80  # characters of a value or key in a message


def read(path):
    """The tree of a TOML file.  UserError: there is none, or it is no TOML."""
    try:
        kind = Path(path).stat().st_mode  # first, because a pipe would be waited for
        if not stat.S_ISREG(kind):
            found = "a directory" if stat.S_ISDIR(kind) else "no regular file"
            raise UserError(f"{path}: {found}, expected a configuration in TOML")
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UserError(f"{path}: more than {MOST_BYTES:,} bytes, expected a configuration")
        return tomllib.loads(content.removeprefix(BOM_UTF8).decode())
    except OSError as error:
        raise UserError(f"{path}: {one_line(error)}, expected a configuration in TOML") from None
    except RecursionError:
        raise UserError(f"{path}: too many brackets in each other, expected TOML") from None
    except UserError:
        raise
    except ValueError as error:  # bytes that are no text, or text that is no TOML
        raise UserError(f"{path}: {one_line(error)}, expected TOML") from None


def override(tree, word):
    """Set section.key=value, value in TOML or a bare string, in a tree."""
    key, equals, value = word.removeprefix("--").partition("=")
    *sections, name = key.split(".")
    if not equals or not name:
        raise UserError(f"{shown_key(word)}: expected section.key=value")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            what = f"{shown_key(section)} is no section, expected section.key=value"
            raise UserError(f"{shown_key(word)}: {what}")
    try:
        found = tomllib.loads(f"value = {value}")
    except ValueError:
        found = {}
    except RecursionError:
        raise UserError(f"{shown_key(word)}: too many brackets in each other") from None
    tree[name] = found["value"] if len(found) == 1 else value


def expect_plain(tree):
    """UserError: in a tree is what nobody means, and what not everything here can cope with.

    That is too many tables and lists in each other, a number of more than 64 bits, or text with
    NUL or what is not Unicode, as words of a command line may be.
    """
    todo = [("", tree, 0)]
    while todo:
        key, value, depth = todo.pop()
        if depth > DEEPEST:
            raise UserError(f"{key}: more than {DEEPEST} tables and lists in each other")
        if type(value) is int and not -(2**63) <= value < 2**64:
            raise UserError(f"{key} = {shown(value)}, expected a number of at most 64 bits")
        if isinstance(value, str) and not plain(value):
            raise UserError(f"{key} = {shown(value)}, expected text in UTF-8 without NUL")
        if isinstance(value, dict):
            for name, item in value.items():
                below = f"{key}.{shown_key(name)}" if key else shown_key(name)
                todo += [(below, item, depth + 1), (below, name, depth + 1)]
        elif isinstance(value, list):
            todo += [(key, item, depth + 1) for item in value]


def plain(text):
    """Can it be written in UTF-8, and be the name of a file?"""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def shown(value):
    """A value as it stands in Python, or its beginning."""
    try:
        text = repr(value)
    except ValueError:  # Python prints no longer numbers
        return f"a number of {value.bit_length():,} bits"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def shown_key(name):
    """A key as it was written, if that can be printed, or its beginning."""
    text = name if name.isprintable() else ascii(name)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
