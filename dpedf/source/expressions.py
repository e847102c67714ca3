"""Expressions and equations as trees, and what can be read off them."""

import math
import re
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

FUNCTIONS = {"exp": np.exp, "log": np.log, "sqrt": np.sqrt, "tanh": np.tanh}
FUNCTIONS |= {"max": np.maximum, "min": np.minimum, "erf": np.vectorize(math.erf, [float])}
FUNCTIONS["sigmoid"] = lambda x: 1 / (1 + np.exp(-x))
COMPARISONS = {"=": np.equal, "!=": np.not_equal, "<": np.less, ">": np.greater}
COMPARISONS |= {"<=": np.less_equal, ">=": np.greater_equal}
OPERATIONS = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "**": np.power}
OPERATIONS |= {"negative": np.negative, **COMPARISONS, **FUNCTIONS}
LEVELS = {"negative": 1, "+": 1, "-": 1, "*": 3, "/": 3, "**": 4}  # a reduction has 2


@dataclass(frozen=True)
class Expression:
    """One of the kinds below; what and parts say which."""

    what: object
    parts: tuple = ()  # Expressions

    def changed(self, change):
        """The same with change(part) for each part."""
        return replace(self, parts=tuple(change(part) for part in self.parts))

    def walk(self):
        """It, and all expressions inside it."""
        yield self
        for part in self.parts:
            yield from part.walk()

    def letters(self):
        """{letter: None} for each letter that its value depends on, in order."""
        if isinstance(self, Letter):
            return {self.what: None}
        found = {letter: None for part in self.parts for letter in part.letters()}
        if isinstance(self, Reduction) and self.what != "softmax":
            return {letter: None for letter in found if Letter(letter) not in self.parts}
        return found

    def operations(self, sizes):
        """How many operations it takes, where sizes[letter] is how many values a letter has.

        A symbol or a function is one operation for each value of the letters that it depends on,
        and a reduction one for each of its terms.  A sign and an index take none.
        """
        if isinstance(self, Reference):
            return 0
        found = sum(part.operations(sizes) for part in self.parts)
        if isinstance(self, Letter | Number) or self.what == "negative":
            return found
        counted = self.parts[0] if isinstance(self, Reduction) else self
        return found + prod(sizes[letter] for letter in counted.letters())

    def simplified(self, sizes):
        """The same with whole numbers computed, and without terms of 0 and factors of 1."""
        e = self.changed(lambda part: part.simplified(sizes))
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

    def __str__(self):
        return self.written()

    def written(self, least=0):
        """Its text, in brackets if its level is less."""
        match self:
            case _ if self.level < least:
                return f"({self})"
            case Equation(sign, (left, *_, right)):
                return f"{left} {sign} {right}" + f", x {self.slices} slices" * (self.slices > 1)
            case Number(value):
                return f"{value:g}"
            case Reference(name, (_, *_) as index):
                inside = re.sub(r" ([-+/]) ", r"\1", ",".join(map(str, index)))
                return f"{name}[{inside}]"
            case Reduction(kind, (body, *over)):
                return f"{kind}_{','.join(map(str, over))} {body.written(2)}"
            case Operation("negative", (x,)):
                return f"-{x.written(2)}"
            case Operation(symbol, (x, y)) if symbol in COMPARISONS:
                return f"[{x} {symbol} {y}]"
            case Operation(symbol, (x, y)) if symbol in LEVELS:
                between = {"*": " ", "**": "**"}.get(symbol, f" {symbol} ")
                right = y.written(2 if symbol == "*" else self.level + 1)
                return f"{x.written(LEVELS[symbol])}{between}{right}"
            case Operation(function, arguments):
                return f"{function}({', '.join(map(str, arguments))})"
        return self.what

    @property
    def level(self):
        """How tightly it holds together: from 1, a sum, to 5, a name."""
        match self:
            case Reduction():
                return 2
            case Operation("*", (_, y)) if y.level == 2:  # which would take in what follows
                return 2
            case Operation(symbol) if symbol in LEVELS:
                return LEVELS[symbol]
        return 5


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

    sizes: dict | None = field(default=None, compare=False)  # {letter: how many values it has}
    slices: int = 1  # of the rows, for each of which it is computed by itself
    left = property(lambda e: e.parts[0])
    right = property(lambda e: e.parts[-1])
