"""A configuration as a tree of tables: from a TOML file, and from the command line."""

import re
import stat
import tomllib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from datetime import date, time
from difflib import get_close_matches
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
            expected = "a configuration in a file, which every rank reads, and --resume again"
            raise UserError(f"{path}: {found}, expected {expected}")
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UserError(f"{path}: more than {MOST_BYTES:,} bytes, expected a configuration")
        return tomllib.loads(decoded(content))
    except FileNotFoundError as error:
        names = [other.name for other in Path(path).parent.glob("*.toml")]
        near = get_close_matches(Path(path).name, names, 1)
        expected = Path(path).with_name(near[0]) if near else "a configuration in TOML"
        raise UserError(f"{path}: {one_line(error)}, expected {expected}") from None
    except OSError as error:
        raise UserError(f"{path}: {one_line(error)}, expected a configuration in TOML") from None
    except RecursionError:
        raise UserError(f"{path}: too many brackets in each other, expected TOML") from None
    except UserError:
        raise
    except ValueError as error:  # bytes that are no text, or text that is no TOML
        raise UserError(f"{path}: {one_line(error)}, expected TOML") from None


def decoded(content):
    """The text of a file in UTF-8, with a mark of the byte order or without."""
    if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise ValueError("text in UTF-16, not in UTF-8")
    try:
        return content.removeprefix(BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not in UTF-8") from None


def override(tree, word, fits):
    """Set section.key=value in a tree, to the first reading of value that fits(key, reading)."""
    key, equals, text = word.removeprefix("--").partition("=")
    *sections, name = key.split(".")
    if not equals or not name:
        raise UserError(f"{shown_key(word)}: expected section.key=value")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            what = f"{shown_key(section)} is no section, expected section.key=value"
            raise UserError(f"{shown_key(word)}: {what}")
    try:
        possible = readings(text)
    except RecursionError:
        raise UserError(f"{shown_key(word)}: too many brackets in each other") from None
    tree[name] = next((value for value in possible if fits(key, value)), possible[0])


def readings(text):
    """What a text on the command line may mean: a value of TOML, and the text as it was typed.

    A value may be spelled as in Python: .1, 1., True.  1e3 may be a whole number.
    """
    spelled = re.sub(r"(?<![\w.])\.(?=\d)", "0.", text)
    spelled = re.sub(r"(?<=\d)\.(?!\d)", ".0", spelled)
    spelled = re.sub(r"\b(True|False)\b", lambda word: word[0].lower(), spelled)
    for toml in text, text if {*"\"'"} & {*text} else spelled:
        try:
            found = tomllib.loads(f"value = {toml}")
        except ValueError:
            continue
        if len(found) == 1:
            value = found["value"]
            whole = [int(value)] if isinstance(value, float) and value.is_integer() else []
            return [value, *whole, text]
    return [text]


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
        text = str(value) if isinstance(value, (date, time)) else repr(value)
    except ValueError:  # Python prints no longer numbers
        return f"a number of {value.bit_length():,} bits"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def shown_key(name):
    """A key as it was written, if that can be printed, or its beginning."""
    text = name if name.isprintable() else ascii(name)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
