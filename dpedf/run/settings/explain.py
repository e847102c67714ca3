"""The types of settings in words, and what is wrong with a value."""

import re
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from dpedf.errors import UserError, plural
from dpedf.run.settings.spelling import meant, nearest
from dpedf.run.settings.tree import shown, shown_key

KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
SIGNS = {">=": "at least", ">": "more than", "<=": "at most", "<": "less than"}
BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}  # of Meta


def explained(error, tree, types, typed, defaults):
    """The key, what was found there in a tree, what was expected.

    error: what msgspec says.  types, defaults: {key: its type}, {key: its default}.  typed: {key:
    the text of its value on the command line}.
    """
    form = r"(.*?)(?: - at `\$\.?([^[]*)(?:\[(\d+)])?.*`)?"
    what, at, index = re.fullmatch(form, error).groups()
    if missing := re.search(r"missing required field `(.*)`", what):
        return f"no {at}.{missing[1]}, expected one" if at else f"no {missing[1]}, expected one"
    found, kind = tree, types[at]
    for name in at.split("."):
        found = found[name]
    if isinstance(found, dict) and get_origin(bare(kind)[0]) is dict and "[...]" in error:
        kind = get_args(bare(kind)[0])[1]
        name = next(name for name, its in found.items() if not fits(its, kind))
        at, found = f"{at}.{shown_key(name)}", found[name]
    if index:
        of_list = [item for item in get_args(bare(kind)[0]) if item is not ...]
        item = of_list[int(index) if len(of_list) > int(index) else 0]
        at, found, kind = f"{at}[{index}]", found[int(index)], item
    number = isinstance(found, int | float) and not isinstance(found, bool)
    text = typed[at] if at in typed and number else shown(found)
    right = [v for v in meant(found, choices_of(kind), defaults.get(at)) if fits(v, kind)]
    perhaps = f", perhaps {shown_key(in_toml(right[0]))}" if right else ""
    return f"{at} = {text}, expected {expected(what, kind)}{perhaps}"


def expect_known(tree, typed, types):
    """UserError: in a tree is a key that nobody reads; [model] has any.

    typed, types: as above.
    """
    tables = [("", tree)]
    tables += [(f"{k}.", v) for k, v in tree.items() if isinstance(v, dict) and k != "model"]
    for dot, table in tables:
        own = [key for key in types if key.rpartition(".")[0] == dot.removesuffix(".")]
        for name, value in table.items() if own else ():
            if (key := f"{dot}{name}") in own:
                continue
            near = [*nearest(name, own), *nearest(name, types)]
            if isinstance(value, dict):
                near = [k for k in near if "." not in k or get_origin(bare(types[k])[0]) is dict]
            right = [k for k in near if k.endswith(f".{name}") or fits(value, types[k])]
            if not dot and not right and not isinstance(value, dict):
                right = [f"a section before it, such as model.{shown_key(name)}"]
            names = ", ".join(key.removeprefix(dot) for key in own)
            rest = "".join(
                shown_key(f"{k.removeprefix(key)}={text}")
                for k, text in typed.items()
                if near + right and f"{k}.".startswith(f"{key}.")
            )
            raise UserError(
                f"{shown_key(key)} is unknown, expected {[*right, *near, names][0]}{rest}"
            )


def expected(what, kind):
    """The bound of a type that a value of the right kind is beyond; of another kind, all of it."""
    sign = re.match(r"Expected `\w+` ([<>]=?) |", what)[1]
    known = bounds(kind)
    return f"{SIGNS[sign]} {known[sign]}" if sign in known else in_words(kind)


def fits(value, kind):
    """Is a value of a type?"""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def bare(kind):
    """(a type without its notes, its Meta, its texts)"""
    if get_origin(kind) is not Annotated:
        return kind, Meta(), []
    kind, *notes = get_args(kind)
    meta = next((note for note in notes if isinstance(note, Meta)), Meta())
    return kind, meta, [note for note in notes if isinstance(note, str)]


def choices_of(kind):
    """The words of which a setting is one; () of other settings."""
    of, notes = bare(kind)[0], getattr(kind, "__metadata__", ())
    if get_origin(of) is Literal:
        return get_args(of)
    return next((note for note in notes if isinstance(note, tuple)), ())


def bounds(kind):
    """{sign: bound} of numbers."""
    meta = bare(kind)[1]
    found = {sign: getattr(meta, name) for name, sign in BOUNDS.items()}
    return {
        sign: shortened(f"{bound:g}") if isinstance(bound, float) else f"{bound}"
        for sign, bound in found.items()
        if bound is not None
    }


def in_words(kind):
    """a whole number, at least 1; one of sgd, adam; a list of 2, each a number

    Beside a pattern of text stands what it means.
    """
    if choices := choices_of(kind):
        own = [f"or {word}" for word in choices if ":" in word]  # a file of the user's
        return f"one of {', '.join([word for word in choices if ':' not in word] + own)}"
    of, meta, texts = bare(kind)
    if meta.pattern:
        return texts[0]
    if get_origin(of) in (Union, UnionType):
        return ", or ".join(map(in_words, get_args(of)))
    if get_origin(of) in (tuple, list):
        items = [item for item in get_args(of) if item is not ...]
        size = f" of {len(items)}" if items == [*get_args(of)] and get_origin(of) is tuple else ""
        return f"a list{size}, each {in_words(items[0])}"
    if get_origin(of) is dict:
        return f"a table of names, each with {in_words(get_args(of)[1])}"
    if meta.min_length:
        return f"text of at least {plural(meta.min_length, 'character')}"
    if of not in KINDS:
        return "a section"
    known = bounds(kind)
    found = " and ".join(f"{SIGNS[sign]} {bound}" for sign, bound in known.items())
    if known.keys() == {">=", "<="}:
        found = f"from {known['>=']} to {known['<=']}"
    return f"{KINDS[of]}, {found}" if found else KINDS[of]


def in_toml(value):
    """A value as it is written in a config."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(in_toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{in_toml(key)} = {in_toml(its)}' for key, its in value.items())}}}"
    text = msgspec.toml.encode({"x": value}).decode().removeprefix("x = ").strip()
    return shortened(text) if isinstance(value, float) else text


def shortened(number):
    """1e9 for 1e+09, 1e-8 for 1e-08"""
    return re.sub(r"e\+?(-?)0*", r"e\1", number)
