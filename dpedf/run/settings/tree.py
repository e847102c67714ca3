"""A configuration as a tree of tables, and what the command line sets there."""

from datetime import date, time
from functools import partial

from dpedf.errors import UserError
from dpedf.run.settings.sections import TABLES
from dpedf.run.settings.spelling import is_closed, taken

DEEPEST = 20  # of tables and lists in each other
MOST_SHOWN = 80  # characters of a value or key in a message


def override(tree, word, fits):
    """Set section.key=value in a tree, to the first reading of value that fits(key, reading).

    Return the key, and the value as it was typed.
    """
    key, equals, text = (part.strip() for part in word.removeprefix("--").partition("="))
    table = next((its for its in TABLES if key.startswith(f"{its}.")), "")
    *sections, name = key.split(".", table.count(".") + 1 if table else -1)  # Phi1.w is one name
    if not (equals and name and all(sections)):
        raise UserError(f"{shown_key(word)}: expected section.key=value")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            what = f"{shown_key(section)} is no section, expected section.key=value"
            raise UserError(f"{shown_key(word)}: {what}")
    if text[:1] in [*"[{("] and not is_closed(text):
        closing = "]})"["[{(".index(text[0])]
        expected = f"a {closing} for each {text[0]}, and quotes around it if it has blanks"
        raise UserError(f"{shown_key(word)}: expected {expected}")
    try:
        tree[name] = taken(text, partial(fits, key))
    except RecursionError:
        raise UserError(f"{shown_key(word)}: too many brackets in each other") from None
    return key, text


def with_whole_names(tree):
    """The same tree, in which Phi1.w is one name in a table of numbers by name."""
    for key in TABLES:
        section, _, name = key.partition(".")
        if isinstance(its := tree.get(section), dict) and isinstance(its.get(name), dict):
            tree = tree | {section: its | {name: dict(leaves(its[name]))}}
    return tree


def leaves(table):
    """(name, value) of all in a table, where names begin with those of the tables that they are in.

    An empty table is a value, which nothing takes.
    """
    for name, its in table.items():
        if its and isinstance(its, dict):
            yield from ((f"{name}.{inner}", value) for inner, value in leaves(its))
        else:
            yield name, its


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
        if type(value) is int and not -(2**63) <= value < 2**63:
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
