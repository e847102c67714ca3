"""The equations in the docstring of a node, and how many operations they are.

    y[b,j] = sum_i x[b,i] W[i,j] - C[j]

    x.grad[b,i] += sum_j y.grad[b,j] W[i,j]
    W.grad[i,j] += sum_b x[b,i] y.grad[b,j]
    C.grad[j]   -= sum_b y.grad[b,j]

    Phi.w: W, (I, J); Phi.b: C, (J,); x: (B, I); y: (B, J)

The first paragraph is what forward computes, the next what backward adds, in its order.  The
first name of all is the value; other names are attributes of the node, or what a line such as the
last one calls them, or steps on the way, which have an equation of their own.  Lower-case letters
in [] beside a name are its indices, ... any number of them; without any, an equation holds for
each number by itself.  A sum ends where its term does; f(x) is a function, and [x > 0] is 1 or 0.
A line that is no equation goes on with the one before.  After a comma stands a further equation,
or prose; after a second =, the form that is computed.  What follows a line "where Q = Softmax(s)"
holds instead where Q is such a node, s being its attribute.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from inspect import cleandoc
from math import prod

NAME = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
INDEX = r"\[(?:[^\[\]]|\[[^\[\]]*\])*\]"
REDUCTION = r"\b(?:sum|mean|max)_\{?(?:[a-z]|\.\.\.)(?:,(?:[a-z]|\.\.\.))*\}?(?= )"
NUMBER = r"\d+(?:\.\d+)?(?:e[-+]?\d+)?"
TOKEN = re.compile(
    rf"(?P<reduction>{REDUCTION})|(?P<function>{NAME}'*)(?=\()|(?P<name>{NAME})(?P<index>{INDEX})?"
    rf"|(?P<number>{NUMBER})|\*\*|[<>]=|[-+*/=<>,()\[\]]"
)
LETTER = re.compile(r"(?<![\w.])(?:[a-z]|\.\.\.)(?![\w.\[])")
EQUATION = re.compile(rf"({NAME})({INDEX})? +([-+]?=) +(.+)")
CONDITION = re.compile(r"where (\w+) = (\w+)\(")


@dataclass
class Equation:
    """left[index] = right, or += or -= of a gradient.

    prose: what it says after a comma; steps: the Equations of what else stands on the right.
    """

    left: str
    index: str
    sign: str
    right: str
    prose: str = ""
    steps: list = field(default_factory=list)


@dataclass
class Case:
    """What a node computes where its attribute name is a node of this kind; None: any node."""

    name: str = None
    kind: str = None
    forward: Equation = None
    gradients: list = field(default_factory=list)

    def steps(self):
        return [step for equation in [self.forward, *self.gradients] for step in equation.steps]

    def holds(self, node):
        kinds = type(getattr(node, self.name)).__mro__ if self.name else ()
        return not self.name or any(cls.__name__ == self.kind for cls in kinds)


@dataclass
class Equations:
    """Of a docstring: its cases, the general one last.

    aliases: {"W": "Phi.w"}, of a legend; optional: {"x": "i"}, where "x may lack i"; bounds:
    {"u": "size"}, where "u, v < size".
    """

    cases: list
    aliases: dict
    optional: dict
    bounds: dict


@cache
def read(docstring):
    """The Equations of a docstring; None of one that does not begin with some."""
    cases = [Case()]
    for paragraph in cleandoc(docstring or "").split("\n\n"):
        if found := CONDITION.match(paragraph):
            cases.append(Case(*found.groups()))
        case = cases[-1]
        for equation in equations(paragraph):
            if not case.forward:
                case.forward = equation
            elif equation.sign == "=":
                case.forward.steps += [equation, *equation.steps]
            else:
                case.gradients.append(equation)
        if not cases[0].forward:
            return None
    if not all(counts(equation) for case in cases for equation in [case.forward, *case.gradients]):
        return None
    aliases = {alias: name for name, alias in re.findall(rf"({NAME}): (\w+)[,;]", docstring)}
    optional = dict(re.findall(r"(\w+) may lack ([a-z])\b", docstring))
    below = re.findall(r"\b([a-z](?:, [a-z])*) < (\w+)[,;.\n]", docstring)
    bounds = {letter: size for letters, size in below for letter in letters.split(", ")}
    return Equations(cases[::-1], aliases, optional, bounds)


def counts(equation):
    """Are its right side, and those of its steps, expressions?"""
    try:
        Count(equation.right, defaultdict(int), {})
    except SyntaxError:
        return False
    return all(map(counts, equation.steps))


def equations(paragraph):
    """Those of a paragraph, if it begins with one."""
    lines, found = [], []
    for line in paragraph.split("\n"):
        if EQUATION.match(line):
            lines.append(line)
        elif lines:
            lines[-1] += " " + line.strip()
    for part in (part for line in lines for part in parts(line, ", ")):
        if match := EQUATION.fullmatch(part):
            left, index, sign, right = match.groups(default="")
            equation = Equation(left, index, sign, parts(right, " = ")[-1])
            (found[-1].steps if found and sign == "=" else found).append(equation)
        else:
            found[-1].prose += f", {part}"
    return found


def parts(text, mark):
    """The parts of a text between marks that are in no bracket."""
    found = [""]
    for part in text.split(mark):
        inside = any(found[-1].count(a) > found[-1].count(b) for a, b in ("()", "[]"))
        if inside or not found[-1]:
            found[-1] += mark * inside + part
        else:
            found.append(part)
    return [part.strip() for part in found]


def letters(index):
    """The letters of [b,y[b]], which is b, or of sum_i,j in their order."""
    return [*dict.fromkeys(LETTER.findall(index.replace("_", " ")))]


class Count:
    """How many operations an expression is, found as it is read by recursive descent.

    An operator and a function are one operation for each value of the letters in their operands;
    a sum is one for each of its terms.  sizes: {letter: how many values}; bare: {name: its letters}
    of names without an index, by default none.  SyntaxError: this is no expression; KeyError: a
    letter without a size.

    operations: how many; symbols: as written; open: the letters that are not summed over.
    """

    def __init__(self, text, sizes, bare):
        self.text, self.sizes, self.bare = text, sizes, bare
        self.operations = self.symbols = 0
        self.tokens = [*TOKEN.finditer(text)][::-1]
        self.open = self.expressions()
        if self.tokens or TOKEN.sub("", text).strip():
            raise SyntaxError(text)

    def at(self, *symbols):
        return bool(self.tokens) and self.tokens[-1][0] in symbols

    def take(self, *symbols):
        """The next token; one of these, if any are given."""
        if not self.tokens or symbols and not self.at(*symbols):
            raise SyntaxError(self.text)
        return self.tokens.pop()

    def operation(self, *operands):
        """The letters of an operation on operands of such letters, once it is counted."""
        found = dict.fromkeys(letter for operand in operands for letter in operand)
        self.symbols += 1
        self.operations += prod(self.sizes[letter] for letter in found)
        return [*found]

    def expressions(self):
        """The letters of expressions between commas."""
        found = self.expression()
        while self.at(","):
            self.take()
            found = [*dict.fromkeys([*found, *self.expression()])]
        return found

    def expression(self):
        if self.at("-"):
            self.take()
        found = self.term()
        while self.at("+", "-", "=", "<", ">", "<=", ">="):
            self.take()
            found = self.operation(found, self.term())
        return found

    def term(self):
        found = self.factor()
        while self.tokens and not self.at("+", "-", "=", "<", ">", "<=", ">=", ",", ")", "]"):
            if self.at("*", "/"):
                self.take()
            found = self.operation(found, self.factor())
        return found

    def factor(self):
        token = self.take()
        if token["reduction"]:
            body = self.operation(self.term())
            return [letter for letter in body if letter not in letters(token[0])]
        if token["function"]:
            found = self.operation(self.group("(", ")"))
        elif token["name"]:
            index = token["index"]
            found = letters(index) if index else self.bare.get(token["name"], [])
        elif token["number"]:
            found = []
        elif token[0] == "-":
            found = self.factor()
        elif token[0] in "([":
            self.tokens.append(token)
            found = self.group(token[0], ")" if token[0] == "(" else "]")
        else:
            raise SyntaxError(self.text)
        while self.at("**"):
            self.take()
            found = self.operation(found, self.factor())
        return found

    def group(self, opening, closing):
        """The letters of the arguments between brackets."""
        self.take(opening)
        found = self.expressions()
        self.take(closing)
        return found
