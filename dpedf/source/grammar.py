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
from functools import cache
from inspect import cleandoc

from dpedf.source.expressions import (
    COMPARISONS,
    FUNCTIONS,
    LEVELS,
    Equation,
    Letter,
    Number,
    Operation,
    Reduction,
    Reference,
    negative,
)

NAME = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
LETTER = r"(?:[a-z]|\.\.\.)"
TOKEN = re.compile(
    rf"(?P<reduction>(?:sum|mean|max|softmax)_{LETTER}(?:,{LETTER})*(?!\w))|(?P<name>{NAME})"
    r"|(?P<number>\d+(?:\.\d+)?(?:e[-+]?\d+)?)|(?P<attached>(?<=\w)[\[(])"  # no blank before it
    r"|\.\.\.|\*\*|//|<-|[-+<>!]=|\S|$"
)
EQUATION = re.compile(rf"{NAME}(?:\[.*?\])? (?:=|\+=|-=|<-) ")
CONDITION = re.compile(r"where (\w+)(?: = (\w+)\(\w+\)|:$)")


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


def equations(docstring):
    """The Equations of a docstring, in their order.  SyntaxError: one of them is none."""
    lines = cleandoc(docstring or "").split("\n")
    return [Parser(line).equation() for line in lines if EQUATION.match(line)]


@cache
def cases(docstring):
    """[(condition, groups)] of a docstring, the general one last.

    condition: (attribute, class or None), or None; groups: of the Equations of the value, then of
    those of each gradient, each followed by those of what stands on the right.  What the general
    value has equations for, others share.
    """
    general = []
    found, shared = [(None, general)], []
    for line in cleandoc(docstring or "").split("\n"):
        if condition := CONDITION.match(line):
            found.append((condition.groups(), []))
            shared = general[0][1:]
        groups = found[-1][1]
        for equation in equations(line):
            if equation.what == "=" and groups:
                groups[-1].append(equation)
            else:
                groups.append([equation, *shared])
                shared = []
    return found[::-1]


def holds(condition, thing):
    """Is an attribute of this thing true, or of a class?"""
    if not condition:
        return True
    attribute, kind = getattr(thing, condition[0], None), condition[1]
    return any(cls.__name__ == kind for cls in type(attribute).__mro__) if kind else attribute
