"""The statements of a program: what its nodes assign, in forward and backward, at what cost."""

from collections import defaultdict
from dataclasses import dataclass, replace
from math import prod

from dpedf import shapes
from dpedf.edf import Node
from dpedf.program import inputs_of, program
from dpedf.source.expressions import Letter, Reference, changed, letters, operations, walk
from dpedf.source.reading import Reading, rule_of


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
        if reading.value:
            yield statement(reading, reading.value)
        else:
            shown = ", ".join(names[i] for i in inputs_of(n))
            text = f"{names[n]} = {type(n).__name__}({shown})"
            yield Statement(n, None, text, bytes=bytes_of([*inputs_of(n), n]))


def backward(loss, names):
    """The Statements of Backward(loss): what adds to the gradient of something that varies."""
    if not loss.varies:
        return
    nbytes = None if loss.value is None else loss.value.nbytes
    yield Statement(loss, loss, f"{names[loss]}.grad = 1/B", (), nbytes, 0)
    reached = {loss}  # whose gradient something was added to
    for n in reversed(program(loss).nodes):
        if n not in reached:
            continue
        reading = Reading(n, names)
        if reading.gradients is None:
            for target in dict.fromkeys(i for i in inputs_of(n) if i.varies):
                text = f"{names[target]}.grad += {type(n).__name__}'s"
                yield Statement(n, target, text, bytes=bytes_of([n, target]))
                reached.add(target)
        for target, equations in reading.gradients or ():
            yield statement(reading, equations, target, target in reached)
            reached.add(target)


def update(rule, train):
    """The Statement of an update rule of dpedf.optim, as these settings have it."""
    *steps, last = equations = rule_of(type(rule), train)
    vectors, phi = {"Phi", "grad", "g", "d", *rule.state}, rule.phi.value

    def numbers(e):
        """The same of each number k of these vectors."""
        return Letter("k") if e.what in vectors else changed(e, numbers)

    flop = sum(operations(numbers(e.right), {"k": len(phi)}) for e in equations)
    states = sum(vector.nbytes for vector in rule.state.values())
    return Statement(None, None, str(last), [*map(str, steps)], 3 * phi.nbytes + 2 * states, flop)


def statement(reading, equations, target=None, adds=False):
    """The Statement of Equations; adds: does it read a gradient that is there, to add to it?"""
    n = reading.n
    text, *steps = (str(without_index(e) if reading.alike else e) for e in equations)
    found = Statement(n, target, text, steps)
    if reading.known and n.value.size:
        sums = moved(reading.arrays, [replace(equations[0], parts=equations[0].parts[:1])]) * adds
        found.bytes = moved(reading.arrays, equations) + sums
        each = [operations(e.right, e.sizes) for e in equations]
        found.operations = sum(each) + sums // n.value.itemsize
    return found


def moved(arrays, equations):
    """The bytes of all arrays in these Equations, as far as their indices reach."""
    used = {part: e.sizes for e in equations for part in walk(e) if isinstance(part, Reference)}
    reach = defaultdict(int)
    for e, sizes in used.items():
        if e.what in arrays:
            reach[e.what] += prod(sizes[letter] for letter in letters(e))
    return sum(min(n * arrays[a].itemsize, arrays[a].nbytes) for a, n in reach.items())


def without_index(e):
    """The same without indices."""
    if isinstance(e, Reference):
        return Reference(e.what)
    return changed(e, without_index)


def bytes_of(nodes):
    """The bytes of these nodes' values, read or written once each; None: not all are known."""
    values = [node.value for node in nodes if not isinstance(node.value, float)]
    return None if any(v is None for v in values) else sum(v.nbytes for v in values)
