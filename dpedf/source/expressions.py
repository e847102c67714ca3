"""Expressions and equations as trees, and what can be read off them."""

import re
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

FUNCTIONS = {"exp": np.exp, "log": np.log, "sqrt": np.sqrt, "tanh": np.tanh, "max": np.maximum}
FUNCTIONS["sigmoid"] = lambda x: 1 / (1 + np.exp(-x))
COMPARISONS = {"=": np.equal, "!=": np.not_equal, "<": np.less, ">": np.greater}
COMPARISONS |= {"<=": np.less_equal, ">=": np.greater_equal}
OPERATIONS = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "**": np.power}
OPERATIONS |= {"negative": np.negative, **COMPARISONS, **FUNCTIONS}
LEVELS = {"negative": 1, "+": 1, "-": 1, "*": 3, "/": 3, "**": 4}  # a reduction has 2


@dataclass(frozen=True)
class Expression:
    what: object  # it is
    parts: tuple = ()  # Expressions

    def __str__(self):
        return written(self)


class Number(Expression):
    """what: its value."""


class Letter(Expression):
    """An index.  what: b, or ..."""


class Reference(Expression):
    """what: a name; parts: its index."""


class Reduction(Expression):
    """what: sum, mean, max or softmax; parts: its body, then the Letters that it runs over."""


class Operation(Expression):
    """what: one of OPERATIONS; parts: its arguments."""


@dataclass(frozen=True)
class Equation(Expression):
    """what: its sign; parts: the left side, then one or more right sides that are all equal."""

    sizes: dict = field(default_factory=dict, compare=False)  # {letter: how many values it has}
    left = property(lambda e: e.parts[0])
    right = property(lambda e: e.parts[-1])


def changed(e, change):
    """The same expression with change(part) for each part."""
    return replace(e, parts=tuple(change(part) for part in e.parts))


def walk(e):
    """An expression, and all expressions inside it."""
    yield e
    for part in e.parts:
        yield from walk(part)


def letters(e):
    """{letter: None} for each letter that its value depends on, in order."""
    if isinstance(e, Letter):
        return {e.what: None}
    found = {letter: None for part in e.parts for letter in letters(part)}
    if isinstance(e, Reduction) and e.what != "softmax":
        return {letter: None for letter in letters(e.parts[0]) if Letter(letter) not in e.parts}
    return found


def operations(e, sizes):
    """How many operations it takes, where sizes[letter] is how many values a letter has.

    A symbol or a function is one operation for each value of the letters it depends on, and a
    reduction one for each of its terms.  A sign and an index take none.
    """
    if isinstance(e, Reference):
        return 0
    found = sum(operations(part, sizes) for part in e.parts)
    if isinstance(e, Letter | Number) or e.what == "negative":
        return found
    counted = e.parts[0] if isinstance(e, Reduction) else e
    return found + prod(sizes[letter] for letter in letters(counted))


def simplified(e, sizes):
    """The same with whole numbers computed, and without terms of 0 and factors of 1."""
    e = changed(e, lambda part: simplified(part, sizes))
    match e:
        case Reduction(_, (body,)):
            return body
        case Reduction("sum", (Reduction("sum", (body, *inner)), *outer)):
            return Reduction("sum", (body, *outer, *inner))
        case Reduction("sum", (Number(n), *over)) if all(a.what in sizes for a in over):
            return Number(n * prod(sizes[a.what] for a in over))
        case Operation("*", (Number(0), _) | (_, Number(0))):
            return Number(0.0)
        case Operation("*", (Number(1), x)) | Operation("*" | "/" | "**", (x, Number(1))):
            return x
        case Operation("+", (Number(0), x)) | Operation("+" | "-", (x, Number(0))):
            return x
        case Operation(what, parts) if all(isinstance(part, Number) for part in parts):
            with np.errstate(all="ignore"):
                value = float(OPERATIONS[what](*(part.what for part in parts)))
            return Number(value) if value.is_integer() else e
        case Operation("*", (x, Number() as number)):
            return Operation("*", (number, x))
    return e


def written(e, least=0):
    """The text of an expression, in brackets if its level is less."""
    match e:
        case _ if level(e) < least:
            return f"({e})"
        case Equation(sign, (left, *_, right)):
            return f"{left} {sign} {right}"
        case Number(value):
            return f"{value:g}"
        case Reference(name, (_, *_) as index):
            inside = re.sub(r" ([-+/]) ", r"\1", ",".join(map(str, index)))
            return f"{name}[{inside}]"
        case Reduction(kind, (body, *over)):
            return f"{kind}_{','.join(map(str, over))} {written(body, 2)}"
        case Operation("negative", (x,)):
            return f"-{written(x, 2)}"
        case Operation(symbol, (x, y)) if symbol in COMPARISONS:
            return f"[{x} {symbol} {y}]"
        case Operation(symbol, (x, y)) if symbol in LEVELS:
            between = {"*": " ", "**": "**"}.get(symbol, f" {symbol} ")
            right = written(y, 2 if symbol == "*" else level(e) + 1)
            return f"{written(x, LEVELS[symbol])}{between}{right}"
        case Operation(function, arguments):
            return f"{function}({', '.join(map(str, arguments))})"
    return e.what


def level(e):
    """How tightly it holds together: from 1, a sum, to 5, a name."""
    match e:
        case Reduction():
            return 2
        case Operation("*", (_, y)) if level(y) == 2:  # which would take in what follows
            return 2
        case Operation(symbol) if symbol in LEVELS:
            return LEVELS[symbol]
    return 5
