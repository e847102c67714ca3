"""The statements of a program: what its nodes assign, in forward and backward, at what cost."""

from collections import Counter
from dataclasses import dataclass
from math import prod

from dpedf import shapes
from dpedf.edf import Node
from dpedf.program import inputs_of, program
from dpedf.source import grammar
from dpedf.source.expressions import Letter, Number, Reference
from dpedf.source.reading import Reading


@dataclass(eq=False)
class Statement:
    """An assignment: forward of a node makes it, or backward, which adds to the grad of a target.

    steps: further equations that it takes.  bytes: of what is read and written, each once.
    operations: of floating point.  Both are None if values or the equation are not known.
    """

    node: Node | None
    target: Node | None
    text: str
    steps: tuple = ()
    bytes: int | None = None
    operations: int | None = None

    @property
    def shape(self):
        """That of the value or gradient that it makes, with B for the rows: (B, 512)."""
        made = self.target or self.node
        return "" if made is None or made.value is None else shapes.described(made)


def statements(loss, names):
    """The Statements of Forward(loss), then those of Backward(loss), which have a target."""
    readings = {n: Reading(n, names) for n in program(loss).nodes}
    for n, reading in readings.items():
        inputs = ", ".join(names[i] for i in inputs_of(n))
        yield statement(reading, reading.value, f"{names[n]} = {type(n).__name__}({inputs})")
    reached = {loss} if loss.varies else set()  # to whose gradient something was added
    for n in [*reached]:
        nbytes = None if n.value is None else n.value.nbytes
        yield Statement(n, n, f"{names[n]}.grad = 1/B", (), nbytes, 0)
    for n, reading in reversed(readings.items()):
        for target, equations in reading.gradients if n in reached else ():
            text = f"{names[target]}.grad += {type(n).__name__}'s"
            yield statement(reading, equations, text, target, target in reached)
            reached.add(target)


def statement(reading, equations, text, target=None, accumulates=False):
    """The Statement of these Equations, or of this text if there are none.

    accumulates: something was added to this gradient before, so that it is read as well.
    """
    n, found = reading.n, Statement(reading.n, target, text)
    if not equations:
        values = [node.value for node in ([n, target] if target else [n, *inputs_of(n)])]
        if not any(value is None for value in values):
            found.bytes = sum(getattr(value, "nbytes", 0) for value in values)
        return found
    shown = map(without_indices, equations) if reading.one_shape else equations
    found.text, *found.steps = map(str, shown)
    if reading.known and n.value.size:
        used = {part: e.sizes for e in equations for part in e.walk()}
        added = accumulates * moved(reading.arrays, {equations[0].left: equations[0].sizes})
        found.bytes = moved(reading.arrays, used) + added
        found.operations = sum(e.right.operations(e.sizes) for e in equations)
        found.operations += added // n.value.itemsize
    return found


def moved(arrays, used):
    """The bytes of arrays, as far as the indices reach of the References in used, {it: sizes}."""
    reach = Counter()
    for e, sizes in used.items():
        if isinstance(e, Reference) and e.what in arrays:
            reach[e.what] += prod(sizes[letter] for letter in e.letters())
    return sum(min(n * arrays[name].itemsize, arrays[name].nbytes) for name, n in reach.items())


def without_indices(e):
    return Reference(e.what) if isinstance(e, Reference) else e.changed(without_indices)


def update(rule, train):
    """The Statement of an update rule of dpedf.optim, from its docstring, for these settings."""
    numbers = {"mu": train.momentum, "lambda": train.weight_decay, "alpha": train.smoothing}
    numbers |= {"epsilon": train.epsilon, "beta1": train.betas[0], "beta2": train.betas[1]}

    def of_each_number(e):
        """The same about the numbers k of its vectors, with settings as numbers."""
        if e.what in numbers:
            return Number(float(numbers[e.what]))
        if isinstance(e, Reference) and e.what not in ("eta", "step", "t"):
            return Reference(e.what, (Letter("k"),))
        return e.changed(of_each_number)

    defined, phi = {}, rule.phi.value
    for base in reversed(type(rule).__mro__[:-1]):
        defined |= grammar.holding(base.__doc__, train)[0]
    equations = [of_each_number(e).simplified({}) for (e,) in defined.values()]
    *steps, text = map(str, map(without_indices, equations))
    nbytes = 3 * phi.nbytes + 2 * sum(vector.nbytes for vector in rule.state.values())
    flop = sum(e.right.operations({"k": len(phi)}) for e in equations)
    return Statement(None, None, text, steps, nbytes, flop)
