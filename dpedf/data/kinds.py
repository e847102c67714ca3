"""Kinds of columns: integer, number, truth, date, text, or what pyarrow calls any other type.

Where all is text, a column is of the first of these kinds that all its values are.
"""

from dpedf.errors import plural

NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
KINDS = {  # of the texts of a CSV, and the types of pyarrow that hold them
    "integer": "int64",
    "number": "float64",
    "truth": "bool",
    "date": "timestamp[us]",
    "text": "string",
}


def kinds_of_texts(blocks):
    """({name: kind}, {name: a doubt}, how many rows) of blocks {name: texts, or none} of a table.

    A doubt says why a column of text may have been meant as numbers.
    """
    left, numbers, others, rows = {}, {}, {}, 0
    for block in blocks:
        for name, its in block.items():
            before = left.get(name, KINDS)
            left[name] = [kind for kind in before if can_be(its, kind)]
            if left[name][0] == "text":
                numbers[name] = numbers.get(name, rows * ("number" in before))
                count_numbers(name, its, numbers, others)
        rows += len(its)
    doubts = {}
    for name, n in numbers.items():
        if 2 * n > rows and name in others:
            found = f"{others[name]!r} is no number, as {n:,} of {plural(rows, 'row')} have"
            what = f"--missing-text {others[name]!r}, or --categories or --drop {name}"
            doubts[name] = f"{found}, expected {what}"
    return {name: kinds[0] for name, kinds in left.items()}, doubts, rows


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


def count_numbers(name, texts, numbers, others):
    """Add how many of these texts are numbers to numbers[name]; others[name]: one that is not."""
    from pyarrow import compute

    are = compute.match_substring_regex(texts, f"^{NUMBER}$")
    numbers[name] += compute.sum(are).as_py() or 0
    rest = texts.filter(compute.invert(are))
    if name not in others and len(rest):
        others[name] = rest[0].as_py()


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
