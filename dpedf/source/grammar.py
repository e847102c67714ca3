"""The grammar of the equations in a docstring: what they mean is decided here.

    y[b,j] = sum_i x[b,i] W[i,j] - C[j]

    x.grad[b,i] += sum_j y.grad[b,j] W[i,j]

A line is an equation if it begins with a reference and a sign.  Whatever else stands in a
docstring is prose, and so is what follows an equation after a comma.

    equation   = reference sign expression {"=" expression}      the last form is the computed one
    sign       = "=" | "+=" | "-=" | "<-"
    expression = ["-"] term {("+" | "-") term}
    term       = factor {["*" | "/" | "//" | "%"] factor}        side by side: a product
    factor     = "-" factor | primary ["**" factor]
    primary    = number | letter | reference | function "(" expression {"," expression} ")"
               | reduction term | "(" expression ")" | "[" expression comparison expression "]"
    reduction  = ("sum" | "mean" | "max" | "softmax") "_" letter {"," letter}
    reference  = name ["[" expression {"," expression} "]"]      no blank before [ or (
    comparison = "=" | "!=" | "<" | ">" | "<=" | ">="            1 where it holds, else 0

A letter is lower-case and stands in an index or under a reduction; "..." is any number of letters,
which broadcast.  i begins at 0 and ends before I, if the docstring says what that is, or else with
the axis that it stands for.  An equation holds for each value of its letters, and += adds for each.
Outside of its axes an array is 0.  Without any index, an equation is about each number by itself.

The first reference is the value.  What stands on the right is an attribute of the node, which
counts as 1 where it is None, or a size, or it has an equation of its own.  After a line "where Q =
Softmax(s)" stand the equations that hold instead if Q is such a node, and after "where nesterov:"
those if that attribute is true.  Where a node's arguments decide its indices, it has a method
equations() whose text is read instead.
"""

import re
from dataclasses import dataclass, replace
from functools import cache
from inspect import cleandoc
from math import prod

import numpy as np

FUNCTIONS = {"exp": np.exp, "log": np.log, "sqrt": np.sqrt, "tanh": np.tanh, "max": np.maximum}
FUNCTIONS["sigmoid"] = lambda x: 1 / (1 + np.exp(-x))
COMPARISONS = {"=": np.equal, "!=": np.not_equal, "<": np.less, ">": np.greater}
COMPARISONS |= {"<=": np.less_equal, ">=": np.greater_equal}
OPERATIONS = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "**": np.power}
OPERATIONS |= {"//": np.floor_divide, "%": np.remainder, **COMPARISONS, **FUNCTIONS}
LEVELS = {"+": 1, "-": 1, "*": 3, "/": 3, "//": 3, "%": 3, "**": 4}  # a reduction has 2

NAME = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
LETTER = r"(?:[a-z]|\.\.\.)"
TOKEN = re.compile(
    rf"(?P<reduction>(?:sum|mean|max|softmax)_{LETTER}(?:,{LETTER})*(?!\w))|(?P<name>{NAME})"
    r"|(?P<number>\d+(?:\.\d+)?(?:e[-+]?\d+)?)|(?P<attached>(?<=\w)[\[(])"  # no blank before it
    r"|\.\.\.|\*\*|//|<-|[-+<>!]=|\S|$"
)
EQUATION = re.compile(rf"{NAME}(?:\[.*?\])? (?:=|\+=|-=|<-) ")
CONDITION = re.compile(r"where (\w+)(?: = (\w+)\(\w+\)|:$)")


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


class Parser:
    """Recursive descent, a method for each rule.  SyntaxError: this is no equation."""

    def __init__(self, text):
        self.text, self.tokens = text, [*TOKEN.finditer(text)][::-1]  # the last one is empty
        self.letters, self.depth = set(), 0  # depth: of indices

    def take(self, *symbols):
        """The next token, if it is one of these, which then is behind us."""
        return self.tokens.pop()[0] if self.tokens[-1][0] in symbols else None

    def expect(self, *symbols):
        here = self.tokens[-1]
        if here[0] not in symbols:
            expected = f"expected {' or '.join(symbols)}"
            raise SyntaxError(f"{self.text}: {expected} instead of {self.text[here.start() :]!r}")
        return self.tokens.pop()[0]

    def equation(self):
        left, sign = self.primary(), self.expect("=", "+=", "-=", "<-")
        forms = [self.expression()]
        while self.take("="):
            forms.append(self.expression())
        self.expect(",", "")
        return Equation(sign, (left, *forms))

    def expression(self, level=1):
        """Operations that hold together at least this tightly, from left to right."""
        left = negative(self.expression(max(level, 3))) if self.take("-") else self.primary()
        while LEVELS.get(symbol := "*" if self.at_primary() else self.tokens[-1][0], 0) >= level:
            self.take(symbol)
            left = Operation(symbol, (left, self.expression(LEVELS[symbol] + 1)))
        return left

    def at_primary(self):
        return re.match(r"\w|\(|\[|\.\.\.", self.tokens[-1][0])

    def primary(self):
        if self.take("("):
            found = self.expression()
            self.expect(")")
            return found
        if self.take("["):
            left, symbol = self.expression(), self.expect(*COMPARISONS)
            return Operation(symbol, (left, *self.until("]")))
        if not self.at_primary():
            self.expect("a number", "a name")
        token = self.tokens.pop()
        symbol = token[0]
        if token["number"]:
            return Number(float(symbol))
        if token["reduction"]:
            kind, _, over = symbol.partition("_")
            self.letters.update(over.split(","))
            return Reduction(kind, (self.expression(3), *map(Letter, over.split(","))))
        if symbol in FUNCTIONS:
            self.expect("(")
            return Operation(symbol, self.until(")"))
        if self.tokens[-1]["attached"]:
            self.expect("[")  # and no ( of another function
            self.depth += 1
            index = self.until("]")
            self.depth -= 1
            return Reference(symbol, index)
        if self.depth and re.fullmatch(LETTER, symbol):
            self.letters.add(symbol)
        return (Letter if symbol in self.letters else Reference)(symbol)

    def until(self, end):
        """The expressions between commas before the bracket that ends them."""
        found = [self.expression()]
        while self.take(","):
            found.append(self.expression())
        self.expect(end)
        return tuple(found)


def negative(e):
    return Number(-e.what) if isinstance(e, Number) else Operation("-", (e,))


def equations(docstring):
    """The Equations of a docstring, in their order.  SyntaxError: one of them is none."""
    lines = cleandoc(docstring or "").split("\n")
    return [Parser(line).equation() for line in lines if EQUATION.match(line)]


@cache
def cases(docstring):
    """[(condition, groups)] of a docstring, the general one last.

    condition: (attribute, class or None), or None; groups: of the Equations of the value, then of
    those of each gradient, each followed by those of what stands on the right.
    """
    found = [(None, [])]
    for line in cleandoc(docstring or "").split("\n"):
        if condition := CONDITION.match(line):
            found.append((condition.groups(), []))
        groups = found[-1][1]
        for equation in equations(line):
            if equation.what == "=" and groups:
                groups[-1].append(equation)
            else:
                groups.append([equation])
    return found[::-1]


def holds(condition, thing):
    """Is an attribute of this thing true, or of a class?"""
    if not condition:
        return True
    attribute, kind = getattr(thing, condition[0], None), condition[1]
    return any(cls.__name__ == kind for cls in type(attribute).__mro__) if kind else attribute


# what is done with an expression


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
