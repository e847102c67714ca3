"""The equations of a node or an update rule as those of a program: in its names and sizes.

Nodes get the names that they have in the program, settings and sizes become numbers, and what has
an equation of its own is called after its node, z4.Z.  Indices are those that the values have.
"""

import re
from dataclasses import replace

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


class Reading:
    """The equations of a node, in a program with these names.

    groups: lists of Equations, first those of the value, then those that add to a gradient, each
    followed by those of what it uses.  things: {name in the docstring: node, array or number}.
    steps: {name in the docstring: (name in the program, Equations)}.
    operands: {name in the program: array}.  sizes: {Equation: {letter: how many values}}.
    """

    def __init__(self, n, names):
        self.n, self.names, self.operands, self.sizes = n, names, {}, {}
        self.known = all(node.value is not None for node in (n, *inputs_of(n)))
        text = n.equations() if self.known and hasattr(n, "equations") else n.__doc__
        try:
            cases = grammar.cases(text)
            condition, self.groups = next(case for case in cases if grammar.holds(case[0], n))
            if self.groups:
                self.name(condition)
                self.complete()
                self.fit()
        except (SyntaxError, ValueError):  # prose, or equations for values with other indices
            self.groups = []

    def equations(self):
        return [e for group in self.groups for e in group]

    def thing(self, e):
        return self.things.get(str(e.what).removesuffix(".grad"))

    def array(self, e):
        """What a Reference refers to, if it is an array."""
        return array_of(self.thing(e)) if isinstance(e, Reference) else None

    # what names and letters stand for

    def name(self, condition):
        """Learn what each name of the docstring is."""
        self.things, self.steps, sizes = things_of(self.n), {}, {}
        if condition and condition[1]:
            owner = Reading(getattr(self.n, condition[0]), self.names)
            self.things, self.steps = owner.things | self.things, owner.steps
        value = self.groups[0][0].left
        self.value, self.elementwise, self.things[value.what] = value.what, not value.parts, self.n
        for name, expected in shapes.expected(type(self.n)):
            if (array := array_of(self.things.get(name))) is not None:
                shapes.fits(array.shape, expected, sizes)
        self.things = {name: n for name, n in sizes.items() if name != "..."} | self.things
        for e in self.equations():
            if e.what == "=" and e.left.what != self.value:
                self.things.pop(e.left.what, None)
                self.steps[e.left.what] = (f"{self.names[self.n]}.{e.left.what}", [])

    def complete(self):
        """Give each Reference an index for each axis, letters of their own instead of "..."."""
        parts = [part for e in self.equations() for part in walk(e)]
        arrays = [(e, self.array(e)) for e in parts if self.array(e) is not None]
        self.alike = self.elementwise and len({array.shape for _, array in arrays}) <= 1
        self.rest = {REST: None}  # letter -> how many values
        if self.known:
            taken = {str(e.what) for e in parts} | {name.lower() for name in self.things}
            free = [Letter(a) for a in "ijkmnpqrstuv" if a not in taken]
            shape = np.broadcast_shapes(*(self.rest_of(e, array.shape) for e, array in arrays))
            self.rest = dict(zip(free, shape, strict=False))
        self.groups = [[self.completed(e) for e in group] for group in self.groups]
        for e in self.equations():
            if e.what == "=" and e.left.what in self.steps:
                self.steps[e.left.what][1].append(e)

    def index(self, e):
        """The index of a Reference, with b only where there are rows."""
        batched = getattr(self.thing(e), "batched", self.n.batched)
        named = self.thing(e) is not None or e.what in self.steps
        everything = (ROW, REST) if self.elementwise and named else ()
        return [part for part in e.parts or everything if part != ROW or batched]

    def rest_of(self, e, shape):
        """The sizes of the axes that "..." in a Reference to an array of this shape stands for."""
        index = self.index(e)
        at = index.index(REST) if REST in index else len(index)
        return shape[at : len(shape) - len(index[at + 1 :])]

    def completed(self, e):
        if isinstance(e, Reduction):
            over = [a for a in e.parts[1:] if a != ROW or self.n.batched]
            over = [letter for a in over for letter in (self.rest if a == REST else [a])]
            return Reduction(e.what, (self.completed(e.parts[0]), *over))
        if not isinstance(e, Reference):
            return changed(e, self.completed)
        rest = [*self.rest]
        if self.known and self.array(e) is not None:
            sizes = self.rest_of(e, self.array(e).shape)
            pairs = zip(rest[len(rest) - len(sizes) :], sizes, strict=True)
            rest = [a if size == self.rest[a] else Number(0.0) for a, size in pairs]
        index = [a for part in self.index(e) for a in (rest if part == REST else [part])]
        return Reference(e.what, tuple(map(self.completed, index)))

    def fit(self):
        """Learn the sizes of letters: from the docstring, and from the axes that they index."""
        self.inline_constants()
        if not self.known:
            return
        for e in self.equations():
            given = {a.what: self.things.get(str(a.what).upper()) for a in walk(e)}
            sizes = {letter: size for letter, size in given.items() if isinstance(size, int)}
            self.sizes[e] = sizes | {letter.what: size for letter, size in self.rest.items()}
        for e in self.equations() * 2:  # then those of steps are known
            for part in walk(e):
                for letter, size in zip(part.parts, self.shape(part), strict=True):
                    if isinstance(letter, Letter) and size is not None:
                        self.sizes[e].setdefault(letter.what, size)
        for e, sizes in self.sizes.items():
            if not all(part.what in sizes for part in walk(e) if isinstance(part, Letter)):
                raise ValueError("a letter of which nothing says how many values it has")
        self.inline_constants()

    def shape(self, e):
        """That of an array, or of what has an equation, as far as it is known."""
        if isinstance(e, Reference) and e.what in self.steps:
            made = self.steps[e.what][1][0]
            return [self.sizes.get(made, {}).get(part.what) for part in made.left.parts]
        return [None] * len(e.parts) if self.array(e) is None else self.array(e).shape

    def inline_constants(self):
        """What has an equation, and is a number, is written as this number."""
        for name, (_, equations) in reversed([*self.steps.items()]):
            value = self.bound(equations[0]).right
            if len(equations) == 1 and isinstance(value, Number):
                self.things[name] = int(value.what) if value.what.is_integer() else value.what
                del self.steps[name]

    # in the program

    def bound(self, e):
        """An Equation of the docstring as one of the program, which names all sums."""
        sizes = self.sizes.get(e, {})
        e = simplified(self.in_program(e), sizes)
        over = [a for a in letters(e.right) if a not in letters(e.left)]
        if e.what == "=" or not over or not self.known:
            return e
        return replace(e, parts=(e.left, *(summed(form, over) for form in e.parts[1:])))

    def in_program(self, e):
        if not isinstance(e, Reference):
            return changed(e, self.in_program)
        name, thing = e.what, self.thing(e)
        number = getattr(thing, "value", thing)
        if isinstance(number, int | float):
            return Number(float(number))
        if name in self.steps:
            name = self.steps[name][0]
        elif isinstance(thing, Node):
            name = self.names[thing] + ".grad" * name.endswith(".grad")
        elif thing is not None:
            name = f"{self.names[self.n]}.{name}"
        if self.array(e) is not None:
            self.operands[name] = self.array(e)
        return Reference(name, tuple(map(self.in_program, e.parts)))

    def in_use(self, group):
        """[(Equation of the program, sizes)] of a group, but for those of constants."""
        used = {self.value, *self.steps}
        kept = [e for e in group if e.what != "=" or e.left.what in used]
        return [(self.bound(e), self.sizes.get(e, {})) for e in kept]


def things_of(n):
    """{name in the docstring: node, array or number}; what is None counts as 1."""
    found = {name: 1 if a is None else a for name, a in vars(n).items() if not name.isupper()}
    found = {k: a for k, a in found.items() if isinstance(a, int | float) or hasattr(a, "shape")}
    found |= {f"state.{name}": array for name, array in getattr(n, "state", {}).items()}
    found |= dict(shapes.named(n))
    for name, others in ALIASES.findall(type(n).__doc__ or ""):
        found |= {other: found[name] for other in others.split(", ") if name in found}
    return found


def array_of(thing):
    """A node's value, or an array; None of a number, and of what is not known."""
    found = getattr(thing, "value", thing)
    return found if hasattr(found, "shape") else None


def summed(e, over):
    """The sum of an expression over letters, before those that it is over already."""
    if isinstance(e, Reduction) and e.what == "sum":
        e, *others = e.parts
        over = [*over, *(other.what for other in others)]
    return Reduction("sum", (e, *map(Letter, over)))


def rule(cls, train):
    """The Equations of an update rule, which stand in its docstring, for these settings."""
    numbers = {"mu": train.momentum, "lambda": train.weight_decay, "alpha": train.smoothing}
    numbers |= {"epsilon": train.epsilon, "beta1": train.betas[0], "beta2": train.betas[1]}

    def with_numbers(e):
        if e.what in numbers:
            return Number(float(numbers[e.what]))
        return changed(e, with_numbers)

    found = {}
    for base in reversed(cls.__mro__[:-1]):
        for condition, groups in reversed(grammar.cases(base.__doc__)):
            if grammar.holds(condition, train):
                found |= {e.left.what: e for group in groups for e in group}
    return [simplified(with_numbers(e), {}) for e in found.values()]
