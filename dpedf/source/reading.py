"""The equations of a node in the names and sizes of a program.

Nodes get their names in the program, settings and sizes become numbers, and what has an equation
of its own is named after its node, z4.Z.  Each index stands for one axis.
"""

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from dpedf import shapes
from dpedf.edf import Node
from dpedf.program import inputs_of
from dpedf.source import grammar
from dpedf.source.expressions import Equation, Letter, Number, Reduction, Reference

ROW, REST = Letter("b"), Letter("...")
ALIASES = re.compile(r"([A-Za-z_][\w.]*): ([A-Za-z](?:, [A-Za-z])*)(?=[,;.\n]|$)")  # Phi.w: W


@dataclass(eq=False)
class Meaning:
    """What a name in a docstring stands for."""

    name: str  # in the program
    batched: bool  # has it the index b?
    value: object = None  # an array or a number
    node: object = None  # whose value it is
    defined: list = ()  # the Equations of the docstring that define it,
    equations: list | None = None  # which are read when it is first used

    @property
    def shape(self):
        """The sizes of its axes as far as they are known, or None."""
        if self.equations:
            return [self.equations[0].sizes.get(a.what) for a in self.equations[0].left.parts]
        return getattr(self.value, "shape", None)


class Reading:
    """The equations of a node n, in a program with these names, of rows in so many slices.

    value: the Equations of its value, then of the steps that they use; [] if there are none.
    gradients: (node, Equations) for each addition to the gradient of a node that varies, then of
    the steps that only this uses.  arrays: {name in the program: array}.
    """

    def __init__(self, n, names, slices=1):
        self.n, self.names, self.slices, self.elementwise = n, names, slices, False
        self.meanings, self.arrays, self.steps = {}, {}, []
        self.known = all(node.value is not None for node in (n, *inputs_of(n)))
        own = self.known and hasattr(type(n), "equations")  # and no attribute of a user's node
        text = n.equations() if own else n.__doc__
        self.value, self.gradients = [], [(i, []) for i in dict.fromkeys(inputs_of(n)) if i.varies]
        with suppress(SyntaxError, ValueError):  # prose, or equations for values with other indices
            self.read_all(text)

    def read_all(self, text):
        defined, added, owner = grammar.holding(text, self.n)
        if not defined:
            return
        values, *steps = defined.values()
        if owner:
            self.meanings |= Reading(owner, self.names).meanings
        self.elementwise = not values[0].left.parts
        self.learn_names(defined)
        self.learn_rest([part for e in chain(values, *steps, added) for part in e.walk()])
        values, gradients = self.with_steps(values), []
        for e in added:
            target = self.meaning(e.left) and self.meaning(e.left).node
            if target and target.varies and e.right != Number(0.0):  # which nobody adds
                gradients.append((target, self.with_steps([e])))
        self.value, self.gradients = values, gradients if added else self.gradients

    def with_steps(self, equations):
        """These Equations in the program, then those of steps that they are the first to use."""
        start = len(self.steps)
        found = [self.read(e) for e in equations]
        return found + [e for meaning in self.steps[start:] for e in meaning.equations]

    def meaning(self, e):
        name = e.what.removesuffix(".grad") if isinstance(e, Reference) else None
        return self.meanings.get(name)

    def learn_names(self, defined):
        """Find out what the names in a docstring stand for; defined: {name: Equations}."""
        n, own, sizes, (made, *steps) = self.n, self.names[self.n], {}, defined
        things = {k: 1 if a is None else a for k, a in vars(n).items() if not k.isupper()}
        for name in [k for k, a in things.items() if isinstance(a, dict)]:
            things |= {f"{name}.{key}": array for key, array in things[name].items()}
        things |= {**dict(shapes.named(n)), made: n}
        for name, others in ALIASES.findall(type(n).__doc__ or ""):
            thing = things.get(name, getattr(n, name, None))  # it may be the class's, a default
            things |= {other: thing for other in others.split(", ") if thing is not None}
        for name, axes in shapes.expected(type(n)):
            array = getattr(things.get(name), "value", None)
            if hasattr(array, "shape"):
                shapes.fits(array.shape, axes, sizes)
        for name, thing in (sizes | things).items():
            node = thing if isinstance(thing, Node) else None
            value = node.value if node else thing
            known = value if self.known or not hasattr(value, "shape") else None
            called = self.names[node] if node else f"{own}.{name}"
            self.meanings[name] = Meaning(called, getattr(node, "batched", n.batched), known, node)
        for name in steps:
            self.meanings[name] = Meaning(f"{own}.{name}", n.batched, defined=defined[name])

    def learn_rest(self, parts):
        """Choose a letter for each axis that "..." stands for, somewhere in these parts."""
        self.rest = {}
        taken = {*(str(e.what) for e in parts), *map(str.lower, self.meanings)}
        free = [letter for letter in "ijkmnpqrstuv" if letter not in taken]
        arrays = [e for e in parts if getattr(self.meaning(e), "shape", None) is not None]
        axes = [zip(self.index(e), self.meaning(e).shape, strict=True) for e in arrays]
        sizes = np.broadcast_shapes(*(tuple(n for a, n in pairs if a == REST) for pairs in axes))
        self.rest = dict(zip(free[: len(sizes)], sizes, strict=True))
        if not self.known:
            self.rest = {"...": None}

    def index(self, e):
        """The index of a Reference, with b only where there are rows, and "..." for each axis."""
        meaning = self.meaning(e)
        index = e.parts or (ROW, REST) * self.elementwise
        index = [a for a in index if a != ROW or meaning.batched]
        rest = len(self.rest) if meaning.shape is None else len(meaning.shape) - len(index) + 1
        return [a for part in index for a in [part] * (rest if part == REST else 1)]

    def read(self, e):
        """An Equation of the docstring as one of the program, which names all its sums."""
        sizes = {}
        e = self.translated(e, sizes)
        used = {part.what for part in e.walk() if isinstance(part, Letter)}
        given = {a: getattr(self.meanings.get(a.upper()), "value", None) for a in used}
        sizes |= self.rest | {a: size for a, size in given.items() if isinstance(size, int)}
        if self.known and not used <= sizes.keys():
            raise ValueError("a letter of which nothing says how many values it has")
        summed = [
            Letter(a) for a in e.right.letters() if a not in e.left.letters() and e.what != "="
        ]
        forms = [Reduction("sum", (form, *summed)) for form in e.parts[1:]]
        e = Equation(e.what, (e.left, *forms), sizes).simplified(sizes)
        return replace(e, slices=self.slices) if self.by_slices(e) else e

    def by_slices(self, e):
        """Is an Equation of the program computed for each slice of the rows by itself?

        A sum over rows is.  So is x[b,i] W[i,j], summed over what both have, since BLAS rounds a
        row by how many there are.  W[j,i] x[b,i] is not: there the matrix meets one at a time.
        """
        if ROW not in e.left.parts:
            return e.what in ("+=", "-=") or ROW in e.right.walk()
        products = [part.parts for part in e.right.walk() if part.what == "*"]
        letters = [(x.letters().keys(), W.letters().keys()) for x, W in products]
        shared = [x & W for x, W in letters if "b" in x - W]
        return not self.elementwise and any(s and not s & e.left.letters().keys() for s in shared)

    def translated(self, e, sizes):
        """An expression in the names of the program; notes the sizes of letters that index axes."""
        rest = [Letter(a) for a in self.rest]
        if isinstance(e, Reduction):
            body, *over = e.parts
            over = [a for a in over if a != ROW or self.n.batched]
            over = [letter for a in over for letter in (rest if a == REST else [a])]
            return Reduction(e.what, (self.translated(body, sizes), *over))
        if not (meaning := self.meaning(e)):
            return e.changed(lambda part: self.translated(part, sizes))
        self.define(meaning)
        if isinstance(meaning.value, int | float) and not hasattr(meaning.value, "shape"):
            return Number(float(meaning.value))
        index = self.index(e)
        free = iter(rest[len(rest) - index.count(REST) :])
        index = [next(free) if a == REST else self.translated(a, sizes) for a in index]
        shape = [None] * len(index) if meaning.shape is None else meaning.shape
        for k, (a, size) in enumerate(zip(index, shape, strict=True)):
            if size == 1 and self.rest.get(a.what, 1) != 1:
                index[k] = Number(0.0)  # it is the same for each
            elif size is not None and isinstance(a, Letter):
                sizes.setdefault(a.what, size)
        name = meaning.name + ".grad" * e.what.endswith(".grad")
        if hasattr(meaning.value, "shape"):
            self.arrays[name] = meaning.value
        return Reference(name, tuple(index))

    def define(self, meaning):
        """Read the equations of what is used for the first time."""
        if meaning.defined and meaning.equations is None:
            self.steps.append(meaning)
            meaning.equations = []  # while they are read
            found = [self.read(e) for e in meaning.defined]
            value = found[0].right.what
            if len(found) == 1 and isinstance(found[0].right, Number):  # is written in its place
                meaning.value = int(value) if value.is_integer() else value
            else:
                meaning.equations = found

    @property
    def one_shape(self):
        """Are all arrays of one shape, and each number computed by itself?"""
        return self.elementwise and len({array.shape for array in self.arrays.values()}) <= 1
