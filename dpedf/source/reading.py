"""The equations of a node or an update rule, in the names and sizes of a program.

Nodes get their names in the program, settings and sizes become numbers, and what has an equation
of its own is named after its node, z4.Z.  Each index stands for one axis.
"""

import re
from dataclasses import dataclass, replace

import numpy as np

from dpedf import shapes
from dpedf.edf import Node
from dpedf.program import inputs_of
from dpedf.source import grammar
from dpedf.source.expressions import (
    Letter,
    Number,
    Reduction,
    Reference,
    changed,
    letters,
    simplified,
    walk,
)

ROW, REST = Letter("b"), Letter("...")
ALIASES = re.compile(r"([A-Za-z_][\w.]*): ([A-Za-z](?:, [A-Za-z])*)(?=[,;.\n]|$)")  # Phi.w: W


@dataclass(eq=False)
class Meaning:
    """What a name in a docstring stands for."""

    name: str  # in the program
    batched: bool
    value: object = None  # an array or a number
    node: Node | None = None  # whose value it is
    defined: list = ()  # the Equations in the docstring that define it
    equations: list | None = None  # the same in the program, from its first use on

    @property
    def shape(self):
        """The sizes of its axes as far as they are known, or None."""
        if self.equations:
            first = self.equations[0]
            return [first.sizes.get(part.what) for part in first.left.parts]
        return getattr(self.value, "shape", None)


class Reading:
    """The equations of a node n, in a program with these names.

    value: the Equations of its value, then those of what they use.  gradients: (node, Equations)
    for what is added to the gradient of a node that varies, then for what only this uses; None if
    the docstring does not say.  arrays: {name in the program: array}.
    """

    def __init__(self, n, names):
        self.n, self.names, self.value, self.gradients = n, names, [], None
        self.meanings, self.sizes, self.arrays, self.used = {}, {}, {}, []
        self.known = all(node.value is not None for node in (n, *inputs_of(n)))
        text = n.equations() if self.known and hasattr(n, "equations") else n.__doc__
        try:
            if equations := self.holding(text):
                self.learn(equations)
                self.read_value(equations)
                self.read_gradients(equations)
        except (SyntaxError, ValueError):  # prose, or equations for values with other indices
            self.value, self.gradients = [], None

    def holding(self, text):
        """The Equations of a docstring that hold for this node."""
        (_, equations), *others = grammar.sections(text)
        for (attribute, kind), instead in others:
            if grammar.holds((attribute, kind), self.n):
                value = equations[0].left.what
                steps = [e for e in equations if e.what == "=" and e.left.what != value]
                equations = instead + steps
                if kind:
                    self.meanings = {**Reading(getattr(self.n, attribute), self.names).meanings}
        return equations

    def read_value(self, equations):
        value = equations[0].left.what
        self.value = self.together(e for e in equations if e.left.what == value)

    def read_gradients(self, equations):
        for e in equations:
            if e.what in ("+=", "-="):
                self.gradients = self.gradients or []
                found = self.meanings.get(e.left.what.removesuffix(".grad"))
                varies = found and found.node and found.node.varies
                if varies and e.right != Number(0.0):  # which nobody adds
                    self.gradients.append((found.node, self.together([e])))

    def together(self, equations):
        """These Equations in the program, then those that define what they are the first to use."""
        start = len(self.used)
        found = [self.read(e) for e in equations]
        return found + [e for meaning in self.used[start:] for e in meaning.equations]

    # what names and letters stand for

    def learn(self, equations):
        """Find out what each name, each letter and "..." stands for."""
        n, value, own = self.n, equations[0].left, self.names[self.n]
        self.elementwise = not value.parts
        things = {k: 1 if a is None else a for k, a in vars(n).items() if not k.isupper()}
        for name, thing in vars(n).items():
            if isinstance(thing, dict):
                things |= {f"{name}.{key}": array for key, array in thing.items()}
        things |= {**dict(shapes.named(n)), value.what: n}
        for name, others in ALIASES.findall(type(n).__doc__ or ""):
            things |= {other: things[name] for other in others.split(", ") if name in things}
        sizes = {}
        for name, axes in shapes.expected(type(n)):
            array = getattr(things.get(name), "value", None)
            if hasattr(array, "shape"):
                shapes.fits(array.shape, axes, sizes)
        for name, thing in (sizes | things).items():
            if isinstance(thing, Node):
                found = Meaning(self.names[thing], thing.batched, thing.value, thing)
            else:
                found = Meaning(f"{own}.{name}", n.batched, thing)
            self.meanings[name] = found
            self.note_size(name, found)
        steps = [e for e in equations if e.what == "=" and e.left.what != value.what]
        for e in steps:
            defined = [other for other in steps if other.left.what == e.left.what]
            name = e.left.what
            self.meanings[name] = Meaning(f"{own}.{name}", n.batched, defined=defined)
        self.learn_rest([part for e in equations for part in walk(e)])

    def note_size(self, name, meaning):
        """A size I says how many values the letter i has."""
        if len(name) == 1 and name.isupper() and isinstance(meaning.value, int):
            self.sizes[name.lower()] = meaning.value

    def learn_rest(self, parts):
        """Choose a letter for each axis that "..." stands for, somewhere in these parts."""
        self.rest = [REST]
        if self.known:
            taken = {*(str(e.what) for e in parts), *map(str.lower, self.meanings)}
            free = [Letter(letter) for letter in "ijkmnpqrstuv" if letter not in taken]
            references = [e for e in parts if isinstance(e, Reference)]
            shape = np.broadcast_shapes(*map(self.axes_of_rest, references))
            self.rest = free[: len(shape)]
            self.sizes |= {a.what: size for a, size in zip(free, shape, strict=False)}

    def meaning(self, e):
        return self.meanings.get(str(e.what).removesuffix(".grad"))

    def index(self, e):
        """The index of a Reference, with b only where there are rows."""
        meaning = self.meaning(e)
        everything = (ROW, REST) if self.elementwise else ()
        return [a for a in e.parts or everything if a != ROW or meaning.batched]

    def axes_of_rest(self, e):
        """The sizes of the axes that "..." stands for in a Reference to an array."""
        shape = getattr(self.meaning(e), "shape", None)
        if shape is None or REST not in (index := self.index(e)):
            return ()
        start = index.index(REST)
        return shape[start : len(shape) - len(index) + start + 1]

    # in the program

    def read(self, e):
        """An Equation of the docstring as one of the program, which names all its sums."""
        sizes = {}
        e = self.translated(e, sizes)
        used = {part.what for part in walk(e) if isinstance(part, Letter)}
        sizes = {a: size for a, size in (sizes | self.sizes).items() if a in used}
        if not self.known:
            return simplified(e, {})
        if sizes.keys() < used:
            raise ValueError("a letter of which nothing says how many values it has")
        e = simplified(replace(e, sizes=sizes), sizes)
        over = [a for a in letters(e.right) if a not in letters(e.left)]
        if e.what == "=" or not over:
            return e
        return replace(e, parts=(e.left, *(summed(form, over) for form in e.parts[1:])))

    def translated(self, e, sizes):
        """An expression in the names of the program.  It adds what axes say to sizes of letters."""
        if isinstance(e, Reduction):
            body, *over = e.parts
            over = [a for a in over if a != ROW or self.n.batched]
            over = [letter for a in over for letter in (self.rest if a == REST else [a])]
            return Reduction(e.what, (self.translated(body, sizes), *over))
        meaning = self.meaning(e)
        if not isinstance(e, Reference) or not meaning:
            return changed(e, lambda part: self.translated(part, sizes))
        self.define(e.what, meaning)
        if isinstance(meaning.value, int | float):
            return Number(float(meaning.value))
        rest, shape = self.rest, meaning.shape
        if self.known and hasattr(meaning.value, "shape"):
            axes = self.axes_of_rest(e)
            pairs = zip(rest[len(rest) - len(axes) :], axes, strict=True)
            rest = [a if size == self.sizes[a.what] else Number(0.0) for a, size in pairs]
        index = [a for part in self.index(e) for a in (rest if part == REST else [part])]
        index = [self.translated(a, sizes) for a in index]
        if self.known and shape is not None:
            for a, size in zip(index, shape, strict=True):
                if isinstance(a, Letter) and size is not None:
                    sizes.setdefault(a.what, size)
        name = meaning.name + ".grad" * e.what.endswith(".grad")
        if hasattr(meaning.value, "shape"):
            self.arrays[name] = meaning.value
        return Reference(name, tuple(index))

    def define(self, name, meaning):
        """Read the equations of what is used for the first time."""
        if meaning.defined and meaning.equations is None:
            self.used.append(meaning)
            meaning.equations = []  # while they are read
            found = [self.read(e) for e in meaning.defined]
            value = found[0].right
            if len(found) == 1 and isinstance(value, Number):  # which is written in its place
                meaning.value = int(value.what) if value.what.is_integer() else value.what
                self.note_size(name, meaning)
            else:
                meaning.equations = found

    @property
    def alike(self):
        """Are all arrays of one shape, in an equation of each number by itself?"""
        return self.elementwise and len({array.shape for array in self.arrays.values()}) <= 1


def summed(e, over):
    """The sum of an expression over letters, before those that it is over already."""
    if isinstance(e, Reduction) and e.what == "sum":
        e, *others = e.parts
        over = [*over, *(other.what for other in others)]
    return Reduction("sum", (e, *map(Letter, over)))


def rule_of(cls, train):
    """The Equations of an update rule, which stand in its docstring, for these settings."""
    numbers = {"mu": train.momentum, "lambda": train.weight_decay, "alpha": train.smoothing}
    numbers |= {"epsilon": train.epsilon, "beta1": train.betas[0], "beta2": train.betas[1]}

    def with_numbers(e):
        if e.what in numbers:
            return Number(float(numbers[e.what]))
        return changed(e, with_numbers)

    found = {}
    for base in reversed(cls.__mro__[:-1]):
        for condition, equations in grammar.sections(base.__doc__):
            if not condition or grammar.holds(condition, train):
                found |= {e.left.what: e for e in equations}
    return [simplified(with_numbers(e), {}) for e in found.values()]
