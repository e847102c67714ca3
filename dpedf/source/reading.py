"""The equations of a node or an update rule, in the names and sizes of a program.

Nodes get their names in the program, settings and sizes become numbers, and what has an equation
of its own is named after its node, z4.Z.  Each index stands for one axis.
"""

import re
from dataclasses import dataclass

import numpy as np

from dpedf import shapes
from dpedf.edf import Node
from dpedf.program import inputs_of
from dpedf.source import grammar
from dpedf.source.expressions import (
    Equation,
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
    thing: object = None  # a node, an array or a number, or nothing but
    defined: list = ()  # the Equations of the docstring that define it,
    equations: list | None = None  # which are read when it is first used

    @property
    def value(self):
        return getattr(self.thing, "value", self.thing)

    @property
    def shape(self):
        """The sizes of its axes as far as they are known, or None."""
        if self.equations:
            return [self.equations[0].sizes.get(a.what) for a in self.equations[0].left.parts]
        return getattr(self.value, "shape", None)


class Reading:
    """The equations of a node n, in a program with these names.

    value: the Equations of its value, then those of what they use.  gradients: (node, Equations)
    for what is added to the gradient of a node that varies, then for what only this uses; None if
    the docstring does not say.  arrays: {name in the program: array}.
    """

    def __init__(self, n, names):
        self.n, self.names, self.value, self.gradients = n, names, [], None
        self.meanings, self.arrays, self.used, self.elementwise = {}, {}, [], False
        self.known = all(node.value is not None for node in (n, *inputs_of(n)))
        text = n.equations() if self.known and hasattr(n, "equations") else n.__doc__
        try:
            self.read_all(text)
        except (SyntaxError, ValueError):  # prose, or equations for values with other indices
            self.value, self.gradients = [], None

    def read_all(self, text):
        (_, said), *others = grammar.sections(text)
        if not said:
            return
        value = said[0].left
        for condition, instead in others:
            if grammar.holds(condition, self.n):
                said = instead + [e for e in said if e.what == "=" and e.left.what != value.what]
                if condition[1]:
                    owner = Reading(getattr(self.n, condition[0]), self.names)
                    self.meanings |= owner.meanings
        self.elementwise = not value.parts
        self.learn_names(said, value.what)
        self.learn_rest([part for e in said for part in walk(e)])
        self.value = self.together(e for e in said if e.left.what == value.what)
        for e in said:
            if e.what in ("+=", "-="):
                self.gradients = self.gradients or []
                target = getattr(self.meaning(e.left), "thing", None)
                if getattr(target, "varies", False) and e.right != Number(0.0):  # nobody adds 0
                    self.gradients.append((target, self.together([e])))

    def together(self, said):
        """These Equations in the program, then those that define what they are the first to use."""
        start = len(self.used)
        found = [self.read(e) for e in said]
        return found + [e for meaning in self.used[start:] for e in meaning.equations]

    # what names and "..." stand for

    def learn_names(self, said, value):
        n, own, sizes, steps = self.n, self.names[self.n], {}, {}
        things = {k: 1 if a is None else a for k, a in vars(n).items() if not k.isupper()}
        for name in [k for k, a in things.items() if isinstance(a, dict)]:
            things |= {f"{name}.{key}": array for key, array in things[name].items()}
        things |= {**dict(shapes.named(n)), value: n}
        for name, others in ALIASES.findall(type(n).__doc__ or ""):
            things |= {other: things[name] for other in others.split(", ") if name in things}
        for name, axes in shapes.expected(type(n)):
            array = getattr(things.get(name), "value", None)
            if hasattr(array, "shape"):
                shapes.fits(array.shape, axes, sizes)
        for name, thing in (sizes | things).items():
            called = self.names[thing] if isinstance(thing, Node) else f"{own}.{name}"
            self.meanings[name] = Meaning(called, thing)
        for e in said:
            if e.what == "=" and e.left.what != value:
                steps.setdefault(e.left.what, []).append(e)
        self.meanings |= {
            name: Meaning(f"{own}.{name}", None, found) for name, found in steps.items()
        }

    def learn_rest(self, parts):
        """Choose a letter for each axis that "..." stands for, somewhere in these parts."""
        taken = {*(str(e.what) for e in parts), *map(str.lower, self.meanings)}
        free = [letter for letter in "ijkmnpqrstuv" if letter not in taken]
        shape = np.broadcast_shapes(*(self.rest_of(e) for e in parts if isinstance(e, Reference)))
        self.rest = dict(zip(free, shape, strict=False)) if self.known else {"...": None}

    def meaning(self, e):
        return self.meanings.get(str(e.what).removesuffix(".grad"))

    def shape(self, e):
        return getattr(self.meaning(e), "shape", None) if self.known else None

    def index(self, e):
        """The index of a Reference, with b only where there are rows."""
        everything = (ROW, REST) if self.elementwise and self.meaning(e) else ()
        batched = getattr(getattr(self.meaning(e), "thing", None), "batched", self.n.batched)
        return [a for a in e.parts or everything if a != ROW or batched]

    def rest_of(self, e):
        """The sizes of the axes that "..." stands for in a Reference to an array."""
        shape, index = self.shape(e), self.index(e)
        if shape is None or REST not in index:
            return ()
        start = index.index(REST)
        return shape[start : len(shape) - len(index) + start + 1]

    # in the program

    def read(self, e):
        """An Equation of the docstring as one of the program, which names all its sums."""
        sizes = {}
        e = self.translated(e, sizes)
        used = {part.what for part in walk(e) if isinstance(part, Letter)}
        given = {a: getattr(self.meanings.get(a.upper()), "value", None) for a in used}
        sizes |= self.rest | {a: size for a, size in given.items() if isinstance(size, int)}
        if self.known and not used <= sizes.keys():
            raise ValueError("a letter of which nothing says how many values it has")
        summed = [Letter(a) for a in letters(e.right) if a not in letters(e.left) and e.what != "="]
        forms = [Reduction("sum", (form, *summed)) for form in e.parts[1:]]
        sizes = {a: size for a, size in sizes.items() if a in used}
        return simplified(Equation(e.what, (e.left, *forms), sizes), sizes)

    def translated(self, e, sizes):
        """An expression in the names of the program; notes the sizes of letters that index axes."""
        if isinstance(e, Reduction):
            body, *over = e.parts
            over = [a for a in over if a != ROW or self.n.batched]
            return Reduction(e.what, (self.translated(body, sizes), *self.with_rest(over)))
        meaning = self.meaning(e)
        if not isinstance(e, Reference) or not meaning:
            return changed(e, lambda part: self.translated(part, sizes))
        self.define(meaning)
        if isinstance(meaning.value, int | float):
            return Number(float(meaning.value))
        index = self.with_rest(self.index(e), self.shape(e) and self.rest_of(e))
        index = tuple(self.translated(a, sizes) for a in index)
        for a, size in zip(index, self.shape(e) or [None] * len(index), strict=True):
            if isinstance(a, Letter) and size is not None:
                sizes.setdefault(a.what, size)
        name = meaning.name + ".grad" * e.what.endswith(".grad")
        if self.known and hasattr(meaning.value, "shape"):
            self.arrays[name] = meaning.value
        return Reference(name, index)

    def with_rest(self, index, axes=None):
        """An index with letters for "...", for axes of these sizes, where one of size 1 repeats."""
        rest = [*self.rest.items()]
        rest = rest if axes is None else rest[len(rest) - len(axes) :]
        letters = [
            Letter(a) if size == n else Number(0.0)
            for (a, n), size in zip(rest, axes or [n for _, n in rest], strict=True)
        ]
        return [a for part in index for a in (letters if part == REST else [part])]

    def define(self, meaning):
        """Read the equations of what is used for the first time."""
        if meaning.defined and meaning.equations is None:
            self.used.append(meaning)
            meaning.equations = []  # while they are read
            found = [self.read(e) for e in meaning.defined]
            value = found[0].right.what
            if len(found) == 1 and isinstance(found[0].right, Number):  # is written in its place
                meaning.thing = int(value) if value.is_integer() else value
            else:
                meaning.equations = found

    @property
    def alike(self):
        """Are all arrays of one shape, and each number computed by itself?"""
        return self.elementwise and len({array.shape for array in self.arrays.values()}) <= 1


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
