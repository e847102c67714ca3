"""What people type for a setting, and what they mean by it."""

import re
import tomllib
from difflib import get_close_matches

PAIRS = "[]", "{}", "()"
NUMBER = r"[-+]?\d[\d_]*(\.\d*)?([eE][-+]?\d+)?"
YES, NO, NONE = ("yes", "on", "1"), ("no", "off", "0"), ("none", "null", "nil")
FACTORS = {"%": 1e-2, "k": 1e3, "K": 1e3, "M": 1e6}
TYPES = {"fp32": "float32", "single": "float32", "fp64": "float64", "double": "float64"}
LONGEST = 40  # characters of a text that may be meant otherwise


def is_closed(text):
    """Is every bracket of a text closed?"""
    return all(text.count(opening) <= text.count(closing) for opening, closing in PAIRS)


def taken(text, fits):
    """The value that a text on the command line is: the first of its readings that fits.

    If none does, it is the value of TOML, or the text as it was typed.
    """
    value = parsed(text)
    found = [reading for reading in readings(text) if fits(reading)]
    return [*found, text if value is None else value][0]


def readings(text):
    """What a text may mean, the likeliest first: a value of TOML, a list, the text as it is.

    A value may be spelled as in Python: .1, 1., True, (1, 2).  1e3 may be a whole number.  A list
    may lack its brackets, and the quotes of its texts, which a shell takes away, or have quotes
    around it, which no shell took away.
    """
    value = parsed(text)
    if value is not None:
        whole = [int(value)] if isinstance(value, float) and value.is_integer() else []
        quoted = parsed(value) if isinstance(value, str) and value[:1] == "[" else None
        return [*([] if quoted is None else [quoted]), value, *whole, text]
    inner = text[1:-1] if f"{text[:1]}{text[-1:]}" in PAIRS else text
    items = [item.strip() for item in inner.split(",") if item.strip()]
    if not items or re.search(r"""[][{}()"'\n]""", inner):
        return [text]
    listed = [item if parsed(item) is None else parsed(item) for item in items]
    numbers = "," in text and all(re.fullmatch(NUMBER, item) for item in items)
    return [listed, text] if numbers or inner != text else [text, listed]


def parsed(text):
    """The value of TOML that a text is, if need be spelled otherwise; None: it is none."""
    for toml in text, spelled(text):
        if is_toml(toml):
            return tomllib.loads(f"value = {toml}")["value"]
    return None


def is_toml(text):
    """Is a text one value of TOML?"""
    try:
        return tomllib.loads(f"value = {text}").keys() == {"value"}
    except ValueError:
        return False


def spelled(text):
    """A value of Python as TOML has it; what holds quotes stays."""
    if {*"\"'"} & {*text}:
        return text
    text = re.sub(r"(?<![\w.])\.(?=\d)", "0.", text)
    text = re.sub(r"(?<=\d)\.(?!\d)", ".0", text)
    text = re.sub(r"\b(true|false)\b", lambda word: word[0].lower(), text, flags=re.I)
    return re.sub(r"\((.*)\)", r"[\1]", text)


def meant(found, choices=(), default=None):
    """Yield values that people mean by a wrong one, or by a text: 10k, 5%, 60,000, yes, "3"."""
    text = str(found).strip().strip("\"'“”„‘’")
    if len(text) > LONGEST:
        return
    if isinstance(found, float) and found.is_integer():
        yield int(found)
    if (name := TYPES.get(text.lower())) in choices:
        yield name
    yield from get_close_matches(text.lower(), choices, 1)
    if number := re.fullmatch(rf"({NUMBER}) ?([%kKM])", text):
        value = float(number[1]) * FACTORS[number[4]]
        yield from (round(value, 12), *([int(value)] if value.is_integer() else []))
    if re.fullmatch(r"\d{1,3}(,\d{3})+", text):
        yield int(text.replace(",", ""))
    if re.fullmatch(r"\d+,\d+", text):
        yield float(text.replace(",", "."))
    if text.lower() in YES + NO:
        yield text.lower() in YES
    if text.lower() in NONE:
        yield default
    if isinstance(found, str | int | float):
        yield from readings(text)


def nearest(name, keys):
    """The keys that a name, with a section or without one, may stand for, the likeliest first.

    lr is learning_rate, and batch is batch_size.
    """
    name = end(name[:80]).lower().strip("-").replace("-", "_")
    ends = {end(key): key for key in keys}
    same = [word for word in ends if name in (word, initials(word))]
    within = [word for word in ends if name in word.split("_")]
    return [ends[word] for word in dict.fromkeys(same + get_close_matches(name, ends) + within)]


def initials(word):
    """lr of learning_rate; "" of a single word."""
    return "".join(part[0] for part in word.split("_")) if "_" in word else ""


def end(key):
    """A key without its section."""
    return key.rpartition(".")[2]
