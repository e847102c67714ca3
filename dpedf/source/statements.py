"""The statements of a program: what its nodes assign, in forward and backward, at what cost."""

from collections import defaultdict
from dataclasses import dataclass, replace
from math import prod

from dpedf import shapes
from dpedf.edf import Node
from dpedf.program import inputs_of, program
from dpedf.source.expressions import Number, Reference, changed, letters, operations, walk
from dpedf.source.reading import Reading


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
        return "" if made is None or made.value is None else shapes.described(made)


def forward(loss, names):
    """The Statements of Forward(loss)."""
    for n in program(loss).nodes:
        reading = Reading(n, names)
        if reading.groups:
            yield statement(reading, reading.groups[0])
        else:
            shown = ", ".join(names[i] for i in inputs_of(n))
            text = f"{names[n]} = {type(n).__name__}({shown})"
            yield Statement(n, None, text, bytes=bytes_of([*inputs_of(n), n]))


def backward(loss, names):
    """The Statements of Backward(loss): what adds to the gradient of something that varies."""
    added = {loss} if loss.varies else set()
    if added:
        nbytes = None if loss.value is None else loss.value.nbytes
        yield Statement(loss, loss, f"{names[loss]}.grad = 1/B", (), nbytes, 0)
    for n in reversed(program(loss).nodes):
        if n in added:
            yield from gradients(n, names, added)


def gradients(n, names, added):
    """The Statements of a node's backward; added: what was added to before, and this adds to."""
    reading = Reading(n, names)
    pending = []  # what a gradient that is not computed has in common with others
    for group in reading.groups[1:]:
        target = reading.thing(group[0].left)
        varies = isinstance(target, Node) and target.varies
        if varies and group[0].right != Number(0.0):  # which nobody adds
            yield statement(reading, group + pending, target, target in added)
            pending = []
            added.add(target)
        else:
            pending += group[1:]
    if not reading.groups[1:]:
        for target in dict.fromkeys(i for i in inputs_of(n) if i.varies):
            text = f"{names[target]}.grad += {type(n).__name__}'s"
            yield Statement(n, target, text, bytes=bytes_of([n, target]))
            added.add(target)


def statement(reading, group, target=None, again=False):
    """The Statement of a group; again: is it added to what is there, or does it overwrite?"""
    equations, n = reading.in_use(group), reading.n
    text, *steps = (str(bare(e) if reading.alike else e) for e, _ in equations)
    found = Statement(n, target, text, steps)
    if reading.known and n.value.size:
        again *= moved(reading, [(equations[0][0].left, equations[0][1])])
        sides = [(side, sizes) for e, sizes in equations for side in (e.left, e.right)]
        found.bytes = moved(reading, sides) + again
        each = [operations(e.right, sizes) for e, sizes in equations]
        found.operations = sum(each) + again // n.value.itemsize
    return found


def moved(reading, sides):
    """The bytes of all operands in these expressions, as far as their indices reach."""
    reach, operands = defaultdict(int), reading.operands
    used = {e: sizes for side, sizes in sides for e in walk(side) if e.what in operands}
    for e, sizes in used.items():
        reach[e.what] += prod(sizes[letter] for letter in letters(e))
    arrays = [(n, operands[name]) for name, n in reach.items()]
    return sum(min(n * array.itemsize, array.nbytes) for n, array in arrays)


def bare(e):
    """The same without indices."""
    return replace(e, parts=()) if isinstance(e, Reference) else changed(e, bare)


def bytes_of(nodes):
    """The bytes of these nodes' values, read or written once each; None: not all are known."""
    values = [node.value for node in nodes if not isinstance(node.value, float)]
    return None if any(v is None for v in values) else sum(v.nbytes for v in values)
