"""What msgspec finds wrong with a setting, in our words."""

import re
from typing import Annotated, Literal, get_args, get_origin

from dpedf.errors import plural
from dpedf.run.tree import shown

KINDS = {
    **{"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"},
    **{"array": "a list", "object": "a section"},
}
SIGNS = {">=": "at least", ">": "more than", "<=": "at most", "<": "less than"}


def explained(error, tree, types):
    """The key, what was found there in a tree, what was expected.  types: {key: its type}."""
    form = r"(.*?)(?: - at `\$\.?([^[]*)(?:\[(\d+)])?.*`)?"
    what, at, index = re.fullmatch(form, error).groups()
    if missing := re.search(r"missing required field `(.*)`", what):
        return f"no {at}.{missing[1]}, expected one" if at else f"no {missing[1]}, expected one"
    found, kind = tree, types[at]
    for name in at.split("."):
        found = found[name]
    if choices := choices_of(kind):
        expected = f"one of {', '.join(choices)}"
    elif "regex" in what or "int | str" in what:
        expected = 'a number of steps, or a time such as "10m"'
    else:
        expected = in_words(what)
    if index:
        at, found = f"{at}[{index}]", found[int(index)]
    return f"{at} = {shown(found)}, expected {expected}"


def choices_of(kind):
    """The words of which a setting is one; () of other settings."""
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return get_args(bare) if get_origin(bare) is Literal else ()


def in_words(what):
    """a whole number, at least 1, a list of 2, text of at least 1 character"""
    kind, sign, bound = re.match(r"Expected `(.*?)`(?: (\D+?) ([\d.]+))?", what).groups()
    if sign in SIGNS:
        return f"{SIGNS[sign]} {bound.removesuffix('.0')}"
    if kind == "str" and bound:
        return f"text of at least {plural(int(bound), 'character')}"
    return f"a list of {bound}" if kind == "array" and bound else KINDS[kind]
