"""Kinds of columns: integer, number, truth, date, text, or what pyarrow calls any other type.

Where all is text, a column is of the first of these kinds that all its values are.
"""

from collections import Counter
from decimal import Decimal, InvalidOperation
from re import fullmatch, match

from dpedf.errors import plural

NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
# What may be meant as one: 1,5 and 1.234,56 and 1'000.
MEANT = r"[-+]?(\d+[.,]\d+([eE][-+]?\d+)?|\d{1,3}([,.' \x{a0}\x{202f}]\d{3})+([.,]\d+)?)"
KINDS = {  # of the texts of a CSV, and the types of pyarrow that hold them
    "integer": "int64",
    "number": "float64",
    "truth": "bool",
    "date": "timestamp[us]",
    "text": "string",
}
REAL = "integer", "number"


def kinds_of_texts(blocks, decimal="."):
    """({name: kind}, {name: what is no number}, {name: a remedy}, how many rows).

    blocks: {name: texts, or none} of some rows of a table each.  decimal: the point of numbers.
    A remedy is for a column of text that may have been meant as numbers.
    """
    left, numbers, others, rows = {}, Counter(), {}, 0
    for block in blocks:
        for name, its in block.items():
            plain, before = pointed(its, decimal), left.get(name, KINDS)
            left[name] = [kind for kind in before if can_be(plain if kind in REAL else its, kind)]
            if "number" in left[name]:
                numbers[name] += len(its) - its.null_count
            else:
                count_numbers(name, its, plain, numbers, others)
        rows += len(its)
    found, remedies, kinds = {}, {}, {name: kinds[0] for name, kinds in left.items()}
    for name in (name for name in others if kinds[name] == "text"):
        other, meant = others[name]
        found[name] = f"{other!r} is no number"
        if 2 * (n := numbers[name]) > rows:
            found[name] += f", as {n:,} of {plural(rows, 'row')} have"
            remedies[name] = f"--missing-text {other!r}"
        if name in remedies and meant:
            found[name] = f"{other!r} is not written as 1234{decimal}5 is"
            remedies[name] = f"--decimal {'.' if decimal == ',' else ','} or no marks of thousands"
    return kinds, found, remedies, rows


def pointed(texts, decimal):
    """Texts in which numbers with such a decimal point have the usual one, and no others."""
    from pyarrow import compute

    if decimal == ".":
        return texts
    texts = compute.replace_substring(texts, ".", "_")
    return compute.replace_substring(texts, decimal, ".")


def can_be(texts, kind):
    """Are all these texts of a kind?"""
    from pyarrow import ArrowInvalid, timestamp

    if kind == "integer" and not can_be(texts, "number"):  # such as 0x10
        return False
    zoned = [timestamp("us", "UTC")] * (kind == "date")
    for type_ in (KINDS[kind], *zoned):
        try:
            texts.cast(type_)
            return True
        except ArrowInvalid:
            continue
    return False


def count_numbers(name, texts, plain, numbers, others):
    """Add how many of these texts are numbers, or meant so, to numbers[name].

    plain: the texts with the usual decimal point.
    others[name]: one that is no number, and whether it is meant so.
    """
    from pyarrow import compute

    are = compute.match_substring_regex(plain, f"^{NUMBER}$")
    rest = texts.filter(compute.invert(are))
    meant = compute.match_substring_regex(rest, f"^{MEANT}$")
    numbers[name] += sum(compute.sum(its).as_py() or 0 for its in (are, meant))
    if name not in others and len(rest):
        others[name] = rest[0].as_py(), meant[0].as_py()


def number_of(text):
    """The number that a text is, or None."""
    try:
        return Decimal(text) if fullmatch(NUMBER, text) else None
    except InvalidOperation:  # its exponent has 19 digits
        return None


def by_value(text):
    """What sorts numbers by value, those of one value by how they are written, and texts last."""
    number = number_of(text)
    return number is None, number or 0, text


def value_of(text):
    """The number that a text is, 1 and 0 of truth values; None of a name, such as 007."""
    truth = {"true": Decimal(1), "false": Decimal(0)}.get(text.lower())
    return number_of(text) if truth is None and not match(r"[-+]?0\d", text) else truth


def kind_of(type_):
    """The kind of a type of pyarrow."""
    from pyarrow import types

    if types.is_dictionary(type_):
        return "text"
    if types.is_uint64(type_) or types.is_floating(type_) or types.is_decimal(type_):
        return "number"
    if types.is_string(type_) or types.is_large_string(type_):
        return "text"
    kinds = {"integer": types.is_integer, "truth": types.is_boolean, "date": types.is_temporal}
    return next((kind for kind, its in kinds.items() if its(type_)), str(type_))
