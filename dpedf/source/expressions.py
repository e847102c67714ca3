"""Expressions and equations as trees, and what is done by walking them."""

from dataclasses import dataclass, replace
from math import prod

import numpy as np

FUNCTIONS = {"exp": np.exp, "log": np.log, "sqrt": np.sqrt, "tanh": np.tanh, "max": np.maximum}
FUNCTIONS["sigmoid"] = lambda x: 1 / (1 + np.exp(-x))
COMPARISONS = {"=": np.equal, "!=": np.not_equal, "<": np.less, ">": np.greater}
COMPARISONS |= {"<=": np.less_equal, ">=": np.greater_equal}
OPERATIONS = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "**": np.power}
OPERATIONS |= {"//": np.floor_divide, "%": np.remainder, **COMPARISONS, **FUNCTIONS}
LEVELS = {"+": 1, "-": 1, "*": 3, "/": 3, "//": 3, "%": 3, "**": 4}  # a reduction has 2


@dataclass(frozen=True)
class Expression:
    what: object  # it is
    parts: tuple = ()  # Expressions

    def __str__(self):
        return written(self)


class Number(Expression):
    """what: its value."""


class Letter(Expression):
    """what: b, or ..."""


class Reference(Expression):
    """what: a name; parts: its index."""


class Reduction(Expression):
    """what: sum, mean, max or softmax; parts: of what, and over which Letters."""


class Operation(Expression):
    """what: a symbol or a function; parts: left and right, its arguments, or what is negative."""


class Equation(Expression):
    """what: its sign; parts: its left side, and right sides of which each says the same."""

    left = property(lambda e: e.parts[0])
    right = property(lambda e: e.parts[-1])


def changed(e, change):
    """The same of changed parts."""
    return replace(e, parts=tuple(change(part) for part in e.parts))


def walk(e):
    """An expression, and all that are in it."""
    yield e
    for part in e.parts:
        yield from walk(part)


def letters(e):
    """{letter: None} of those that it is not reduced over, in their order."""
    if isinstance(e, Letter):
        return {e.what: None}
    found = {letter: None for part in e.parts for letter in letters(part)}
    if isinstance(e, Reduction) and e.what != "softmax":
        return {letter: None for letter in letters(e.parts[0]) if Letter(letter) not in e.parts}
    return found


def operations(e, sizes):
    """How many operations it is; sizes: {letter: how many values}.  KeyError: of none.

    A function and a symbol are one for each value of the letters that they depend on, a reduction
    is one for each of its terms, and finding an index is none.
    """
    if isinstance(e, Reference):
        return 0
    each = [operations(part, sizes) for part in e.parts]
    if not e.parts or e.what == "-" and len(e.parts) == 1:
        return sum(each)
    counted = e.parts[0] if isinstance(e, Reduction) else e
    return sum(each) + prod(sizes[letter] for letter in letters(counted))


def simplified(e, sizes):
    """The same with whole numbers computed, and without terms of 0 and factors of 1."""
    e = changed(e, lambda part: simplified(part, sizes))
    numbers = [part.what for part in e.parts if isinstance(part, Number)]
    match e:
        case Reduction(_, (body,)):
            return body
        case Reduction("sum", (Number(n), *over)) if all(a.what in sizes for a in over):
            return Number(n * prod(sizes[a.what] for a in over))
        case Operation("-", (x,)):
            return negative(x)
        case Operation("*", (Number(0), _) | (_, Number(0))):
            return Number(0.0)
        case Operation("*", (Number(1), x)) | Operation("*" | "/" | "//" | "**", (x, Number(1))):
            return x
        case Operation("+", (Number(0), x)) | Operation("+" | "-", (x, Number(0))):
            return x
        case Operation(what) if len(numbers) == len(e.parts):
            with np.errstate(all="ignore"):
                value = float(OPERATIONS[what](*numbers))
            return Number(value) if value.is_integer() else e
        case Operation("*", (x, Number() as number)):
            return in_front(number, x)
    return e


def in_front(number, x):
    """number x, where x may be a product."""
    if isinstance(x, Operation) and x.what in ("*", "/"):
        return replace(x, parts=(in_front(number, x.parts[0]), x.parts[1]))
    return Operation("*", (number, x))


def written(e, least=0, blank=" "):
    """Its text, in brackets if its level is less; blank: around + and -, but not in an index."""

    def text(part, least=0):
        return written(part, least, blank)

    if level(e) < least:
        return f"({text(e)})"
    match e:
        case Equation(sign, (left, *_, right)):
            return f"{text(left)} {sign} {text(right)}"
        case Number(value):
            return f"{value:g}"
        case Reference(name, (_, *_) as index):
            return f"{name}[{','.join(written(part, 0, '') for part in index)}]"
        case Reduction(kind, (body, *over)):
            return f"{kind}_{','.join(a.what for a in over)} {text(body, 2)}"
        case Operation("-", (x,)):
            return f"-{text(x, 2)}"
        case Operation(function, arguments) if function in FUNCTIONS:
            return f"{function}({', '.join(map(text, arguments))})"
        case Operation(symbol, (x, y)):
            between = {"*": " ", "**": "**"}.get(symbol, f"{blank}{symbol}{blank}")
            here = LEVELS.get(symbol, 0)
            tighter = 0 if isinstance(y, Reduction) else here + 1
            found = f"{text(x, here)}{between}{text(y, tighter)}"
            return f"[{found}]" if symbol in COMPARISONS else found
    return e.what


def level(e):
    match e:
        case Reduction() | Operation("*" | "/", (_, Reduction())):
            return 2
        case Operation(symbol) if symbol in LEVELS:
            return LEVELS[symbol]
    return 5


def negative(e):
    return Number(-e.what) if isinstance(e, Number) else Operation("-", (e,))
