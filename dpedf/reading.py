"""A node's equations, as a statement of the program that it stands in.

The docstring (equations.py) speaks of attributes and of letters; the program knows what these are
called there, which indices they have, and of what sizes.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from math import prod
from operator import attrgetter

from dpedf.edf import Node
from dpedf.equations import LETTER, NUMBER, TOKEN, Count, letters, read
from dpedf.ops.arithmetic import Number
from dpedf.program import held, inputs_of

POSITION = re.compile(r"(?:[^,\[\]]|\[[^\]]*\])+")  # between the commas of an index
FACTORS = re.compile(rf"([A-Za-z_][^ (]*(?: [A-Za-z_][^ (]*)*) (-?{NUMBER})(?![^ ])")  # "z1 2"


@dataclass(eq=False)
class Statement:
    """One assignment, made by forward of a node, or by backward, which adds to a target's grad.

    steps: further equations that it takes.  bytes: operands read and results written, once each;
    operations: of floating point.  Both are None where values or the equation are not known.
    """

    node: Node | None
    target: Node | None
    text: str
    steps: tuple = ()
    bytes: int | None = None
    operations: int | None = None

    @property
    def shape(self):
        """That of the value or gradient which it is about, B being the rows: (B, 512)."""
        made = self.target or self.node
        if made is None or made.value is None:
            return ""
        sizes = [*map(str, made.value.shape)]
        sizes[: made.batched] = "B" * made.batched
        return f"({', '.join(sizes)}{',' * (len(sizes) == 1)})"


class Reading:
    """The equations of a node, read in a program: with its names, and the sizes of its values."""

    def __init__(self, n, names):
        self.n, self.names, self.equations = n, names, read(n.__doc__)
        if self.equations:
            self.case = next(case for case in self.equations.cases if case.holds(n))
            self.owners = [n, *([getattr(n, self.case.name)] if self.case.name else [])]
            self.sizes, self.absent, self.shown, self.broadcast = {"": 1}, set(), None, {}
            self.bare = {}  # written name -> the letters that it has without an index
            self.letters = letters(self.case.forward.index) or [""]
            if n.value is not None:
                self.fit()

    def forward(self):
        """The Statement of the node's forward."""
        if self.equations:
            return self.statement(self.case.forward, self.n)
        inputs = inputs_of(self.n)
        shown = ", ".join(self.names[i] for i in inputs)
        text = f"{self.names[self.n]} = {type(self.n).__name__}({shown})"
        return Statement(self.n, None, text, bytes=moved([*inputs, self.n]))

    def backward(self, added):
        """The Statements of its backward; added: what was added to before, and this adds to."""
        for equation, target in self.gradients():
            if target.varies:
                if equation:
                    yield self.statement(equation, target, ".grad", target in added)
                else:
                    text = f"{self.names[target]}.grad += {type(self.n).__name__}'s"
                    yield Statement(self.n, target, text, bytes=moved([self.n, target]))
                added.add(target)

    def gradients(self):
        """(equation, what it adds to); where there is none, (None, every input)."""
        if not self.equations or not self.case.gradients:
            yield from ((None, i) for i in dict.fromkeys(inputs_of(self.n)))
            return
        for equation in self.case.gradients:
            for target in held(self.thing(equation.left.removesuffix(".grad"))):
                if equation.right != "0":  # which nobody adds
                    yield equation, target

    def thing(self, name):
        """What a name in the docstring is: a node, a list of nodes, or the text to write for it."""
        if name == self.case.forward.left:
            return self.n
        for owner in self.owners:
            equations = read(owner.__doc__)
            if any(name == step.left for case in equations.cases for step in case.steps()):
                return f"{self.names[owner]}.{name}"
            try:
                found = attrgetter(equations.aliases.get(name, name))(owner)
            except AttributeError:
                continue
            if isinstance(found, int | float):
                return f"{found:g}"
            if [*held(found)]:
                return found
        return name

    # what letters stand for

    def fit(self):
        """Learn the sizes of the letters from the shapes of what they are indices of."""
        equations = [self.case.forward, *self.case.gradients, *self.case.steps()]
        text = " ".join(f"{e.left}{e.index} = {e.right}" for e in equations)
        uses = {}
        for m in references(text):
            name = m["name"].removesuffix(".grad")
            for node in held(self.thing(name)):
                if node.value is not None and not isinstance(node, Number):
                    uses[name, m["index"], node] = None
        if not self.case.forward.index:
            return self.align({name: node for name, _, node in uses})
        for name, index, node in uses:  # first what operands lack, which the value cannot tell
            if node is not self.n:
                found = self.fitted(name, index, node)
                self.absent |= {letter for letter, size in found.items() if size is None}
        bounds = self.equations.bounds.items()
        self.sizes |= {letter: getattr(self.n, size) for letter, size in bounds}
        self.shown = {letter for letter, _ in bounds}
        for name, index, node in uses:
            for letter, size in self.fitted(name, index, node).items():
                # Values may lack some of ...; one of gates, [b,4J], is used as [b,j] and [b,J+j].
                choose = max if letter == "..." else min
                self.sizes[letter] = choose(size, self.sizes.get(letter, size))
            self.shown.update(*(letters(p) for p in self.positions(index, node) if "[" not in p))
        self.letters = [a for a in self.letters if not self.is_absent(a)]

    def fitted(self, name, index, node):
        optional = self.equations.optional.get(name)
        return fitted(self.positions(index, node), node.value.shape, optional)

    def align(self, nodes):
        """Give letters to an equation without, where its operands broadcast."""
        shape, batched = self.n.value.shape, self.n.batched
        if all(node.value.shape == shape for node in nodes.values()):
            self.sizes[""] = prod(shape)
            return
        own = "ijklmnpq"[: len(shape) - batched]
        self.sizes |= dict(zip("b" * batched + own, shape, strict=True))
        for name, node in nodes.items():
            sizes = node.value.shape[node.batched :]
            last = own[len(own) - len(sizes) :]
            index = [a if self.sizes[a] == n else "0" for a, n in zip(last, sizes, strict=True)]
            index = ",".join("b" * node.batched + "".join(index))
            self.broadcast[name] = f"[{index}]" if index else ""

    def positions(self, index, node):
        """What stands between the commas of an index, but for what its node, if any, lacks."""
        found = [p for p in POSITION.findall((index or "")[1:-1]) if p not in self.absent]
        if not node:
            return [p for p in found if not self.is_absent(p)]
        if found[:1] == ["b"] and not node.batched:
            found = found[1:]
        if node.value is not None and found.count("...") == 1 == len(found) - node.value.ndim:
            found.remove("...")  # which stands for nothing here
        return found

    def is_absent(self, letter):
        """Does nothing have this index here?"""
        never_met = self.shown is not None and letter not in self.shown
        return letter in self.absent or letter in ("b", "...") and never_met

    # writing

    def statement(self, equation, made, grad="", again=False):
        """The Statement of an equation, about the value of the node made, or about its grad.

        again: is it added to what is there?  Otherwise += is the first, and overwrites.
        """
        self.nbytes = {}  # of each operand and result, as far as the indices reach
        name = equation.left.removesuffix(".grad")
        left = self.named(made, grad, name, equation.index)
        texts = [self.assigned(equation, left)]
        for step in equation.steps:
            texts.append(self.assigned(step, self.written(f"{step.left}{step.index}")))
        (text, *steps), counts = zip(*texts, strict=True)
        copy = bool(equation.prose) and not Count(equation.right, defaultdict(int), {}).symbols
        found = Statement(self.n, made if grad else None, text + equation.prose * copy, steps)
        if self.n.value is not None and self.n.value.size:
            sizes, size = self.nbytes.values(), self.nbytes[left]
            if copy:  # of a part of an operand, or to a part of the gradient
                size = min(sizes) if grad else size
                sizes = [min(size, other) for other in sizes]
            found.bytes = sum(sizes) + again * size
            if None not in counts:
                found.operations = sum(counts) + again * size // made.value.itemsize
        return found

    def assigned(self, equation, left):
        """(text, operations) of an equation whose left side is written already."""
        right = FACTORS.sub(r"\2 \1", self.written(equation.right))
        count = Count(right, defaultdict(int), self.bare)
        lacking = [a for a in count.open if a not in ("", *letters(left))]
        if lacking and equation.sign != "=" and "..." not in left:
            right = summed(right, lacking)
        try:
            operations = Count(right, self.sizes, self.bare).operations
        except KeyError:
            operations = None
        return f"{left} {equation.sign} {right}", operations

    def written(self, text):
        """A text of the docstring, in the names of the program."""
        return re.sub("^- ", "-", " ".join(TOKEN.sub(self.token, text).split()))

    def token(self, m):
        if m["reduction"]:
            over = [a for a in letters(m[0]) if not self.is_absent(a)]
            return f"{m[0].split('_')[0]}_{','.join(over)}" if over else ""
        if not m["name"]:
            return m[0]
        name = m["name"].removesuffix(".grad")
        grad, thing = m["name"][len(name) :], self.thing(name)
        if isinstance(thing, str):
            written = thing + grad + self.index(m["index"], None)
            if "." in thing and not m["index"]:
                self.bare[written] = self.letters
            return written
        return ", ".join(self.named(node, grad, name, m["index"]) for node in held(thing))

    def named(self, node, grad, name, index):
        """A node, or its grad, that the docstring calls by this name and index."""
        written = self.names[node] + grad
        if isinstance(node, Number):
            return written
        written += self.broadcast.get(name) or self.index(index, node)
        if not index:
            self.bare[written] = self.letters
        if node.value is not None:
            most = self.reach(written) * node.value.itemsize
            self.nbytes[written] = min(most, node.value.nbytes)
        return written

    def index(self, index, node):
        """An index as it is written; node: whose, None of what has no known shape."""

        def inner(m):
            return m[0] if LETTER.fullmatch(m[0]) else self.token(m)

        found = ",".join(TOKEN.sub(inner, p) for p in self.positions(index, node))
        found = re.sub(r"\b1 | [-+] 0\b", "", found)
        return f"[{found}]" if found else ""

    def reach(self, written):
        """How many numbers a name with its index means."""
        index = written.partition("[")[2]
        found = letters(index) if index else self.bare.get(written, [])
        return prod(self.sizes.get(a, 1) for a in found)


def references(text):
    """The names in a text, and those in their indices."""
    for m in TOKEN.finditer(text):
        if m["name"]:
            yield m
            yield from references((m["index"] or "")[1:-1])


def summed(text, over):
    """The sum of an expression over these letters."""
    if " + " in text or " - " in text:
        text = f"({text})"
    return f"sum_{','.join(over)} {text}".replace(" sum_", ",")


def fitted(positions, shape, optional=None):
    """{what stands at a position of an index: its size} in a value of this shape.

    ... is any number of indices; without it, the last letter is what is left, all indices or none.
    None is the size of a letter that the shape has no index for: the optional one, or the last.
    """
    if positions.count("...") > 1:  # where each of them begins, the node alone knows
        batch = dict(zip(positions[:1], shape, strict=False)) if positions[0] == "b" else {}
        return dict.fromkeys(positions, 1) | {"...": prod(shape[len(batch) :])} | batch
    fixed = [p for p in positions if p != "..."]
    if len(fixed) == len(shape) + 1:
        absent = optional or fixed[-1]
        return {absent: None} | fitted([p for p in positions if p != absent], shape)
    if len(fixed) > len(shape) or not positions:
        return {}
    at = positions.index("...") if "..." in positions else len(positions) - 1
    end = len(shape) - (len(positions) - 1 - at)
    return dict(zip(positions, [*shape[:at], prod(shape[at:end]), *shape[end:]], strict=True))


def moved(nodes):
    """The bytes of these nodes' values, read or written once each; None: not all are known."""
    values = [node.value for node in nodes if not isinstance(node, Number)]
    return None if any(v is None for v in values) else sum(v.nbytes for v in values)
