"""The grammar of the equations in a docstring, and what they mean.

    y[b,j] = sum_i x[b,i] W[i,j] - C[j]

    x.grad[b,i] += sum_j y.grad[b,j] W[i,j]

A line that begins with a reference and a sign is an equation.  Every other line is prose, and so
is what follows an equation after a comma.

    equation   = reference sign expression {"=" expression}      the last form is the computed one
    sign       = "=" | "+=" | "-=" | "<-"
    expression = ["-"] term {("+" | "-") term}
    term       = factor {["*" | "/"] factor}                     side by side: a product
    factor     = "-" factor | primary ["**" factor]
    primary    = number | letter | reference | function "(" expression {"," expression} ")"
               | reduction term | "(" expression ")" | "[" expression comparison expression "]"
    reduction  = ("sum" | "mean" | "max" | "softmax") "_" letter {"," letter}
    reference  = name ["[" expression {"," expression} "]"]      no blank before [ or (
    comparison = "=" | "!=" | "<" | ">" | "<=" | ">="            1 where it holds, else 0

A letter is lower-case and stands in an index or under a reduction; "..." is any number of letters,
which broadcast.  i runs from 0 to I - 1 if the docstring says what I is, else along the axis that
it indexes.  An equation holds for each value of its letters, and += adds for each.  Outside its
axes an array is 0.  Without an index, an equation is about each number by itself.

The first equation is that of the value.  A name on the right is an attribute of the node (None
counts as 1), a size, or has an equation of its own.  A line "where Q = Softmax(s)" begins the
equations that hold instead if Q is such a node, and "where nesterov:" those that hold if that
attribute is true.  If the indices depend on a node's arguments, its method equations() returns the
text that is read instead.
"""

import re
from functools import cache
from inspect import cleandoc

from dpedf.source import expressions
from dpedf.source.expressions import Equation, Letter, Number, Operation, Reduction, Reference

NAME = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
LETTER = r"(?:[a-z]|\.\.\.)"
TOKEN = re.compile(  # those that begin a primary have a group
    rf"(?P<reduction>(?:sum|mean|max|softmax)_{LETTER}(?:,{LETTER})*(?!\w))"
    rf"|(?P<letter>{LETTER}(?![\w.\[(]))|(?P<indexed>{NAME}\[)|(?P<function>{NAME}\()"
    rf"|(?P<name>{NAME})"
    r"|(?P<number>\d+(?:\.\d+)?(?:e[-+]?\d+)?)|(?P<bracket>[(\[])|\*\*|<-|[-+<>!]=|\S"
)
EQUATION = re.compile(rf"{NAME}(?:\[.*?\])? (?:=|\+=|-=|<-) ")
CONDITION = re.compile(r"where (\w+)(?: = (\w+)\(\w+\)|:$)")
END = "the end of the line"


class Parser:
    """Recursive descent.  SyntaxError: this line is no equation."""

    def __init__(self, line):
        tokens = [(token.lastgroup, token[0]) for token in TOKEN.finditer(line)]
        self.line, self.tokens = line, [*tokens, (None, END)][::-1]
        self.letters, self.in_index = set(), False

    def take(self, *symbols):
        """Remove and return the next token, if it is one of these."""
        return self.tokens.pop()[1] if self.tokens[-1][1] in symbols else None

    def expect(self, *symbols):
        found = self.take(*symbols)
        if not found:
            raise SyntaxError(f"{self.line}: expected {symbols}, not {self.tokens[-1][1]}")
        return found

    def equation(self):
        left, sign = self.primary(), self.expect("=", "+=", "-=", "<-")
        return Equation(sign, (left, *self.sequence("=", ",", END)))

    def sequence(self, separator, *ends):
        """Expressions with separators between them, up to one of these ends."""
        found = [self.expression()]
        while self.take(separator):
            found.append(self.expression())
        self.expect(*ends)
        return tuple(found)

    def expression(self, level=1):
        """Operations that hold together at least this tightly, from left to right."""
        if self.take("-"):
            left = Operation("negative", (self.expression(max(level, 3)),))
        else:
            left = self.primary()
        while True:
            group, symbol = self.tokens[-1]
            symbol = "*" if group else symbol  # side by side
            tighter = expressions.LEVELS.get(symbol, 0) + 1
            if tighter <= level:
                return left
            self.take(symbol)
            left = Operation(symbol, (left, self.expression(tighter)))

    def primary(self):
        group, token = self.tokens.pop()
        match group:
            case "number":
                return Number(float(token))
            case "letter" if self.in_index or token in self.letters:
                self.letters.add(token)
                return Letter(token)
            case "letter" | "name" if token not in expressions.FUNCTIONS:
                return Reference(token)
            case "indexed":
                outside, self.in_index = self.in_index, True
                index = self.sequence(",", "]")
                self.in_index = outside
                return Reference(token[:-1], index)
            case "function" if token[:-1] in expressions.FUNCTIONS:
                return Operation(token[:-1], self.sequence(",", ")"))
            case "reduction":
                kind, _, over = token.partition("_")
                self.letters.update(over.split(","))
                return Reduction(kind, (self.expression(3), *map(Letter, over.split(","))))
            case "bracket" if token == "(":
                (found,) = self.sequence(None, ")")
                return found
            case "bracket":
                left, symbol = self.expression(), self.expect(*expressions.COMPARISONS)
                return Operation(symbol, (left, *self.sequence(None, "]")))
        raise SyntaxError(f"{self.line}: expected a number or a name, not {token}")


@cache
def sections(docstring):
    """[(condition, Equations)] of a docstring, in order.  SyntaxError: one of them is none.

    condition: (the name of an attribute, the name of its class), or None for either.
    """
    found = [((None, None), [])]
    for line in cleandoc(docstring or "").split("\n"):
        if condition := CONDITION.match(line):
            found.append((condition.groups(), []))
        elif EQUATION.match(line):
            found[-1][1].append(Parser(line).equation())
    return found


def holding(docstring, thing):
    """(defined, added, owner): the Equations of a docstring that hold for a node, or for settings.

    defined: {name: those that define it}, the value first; added: those that add to a gradient;
    owner: the attribute whose class is a condition that holds.
    """
    defined, added, owner = {}, [], None
    for (name, kind), equations in sections(docstring):
        attribute = getattr(thing, name, None) if name else True
        if attribute and (not kind or kind in [cls.__name__ for cls in type(attribute).__mro__]):
            owner = attribute if kind else owner
            for name in [e.left.what for e in equations if e.what in ("=", "<-")]:
                defined[name] = [e for e in equations if e.left.what == name]
            added = [e for e in equations if e.what in ("+=", "-=")] or added
    return defined, added, owner
