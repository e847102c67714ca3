"""The statements of a program: what its nodes assign, in forward and backward, at what cost."""

from collections import Counter
from dataclasses import dataclass
from math import prod

from dpedf import shapes
from dpedf.edf import Node, Parameter
from dpedf.program import inputs_of, program
from dpedf.source import grammar
from dpedf.source.expressions import Equation, Letter, Number, Reference
from dpedf.source.reading import ROW, Reading


@dataclass(eq=False)
class Statement:
    """An assignment: forward of a node makes it, or backward, which adds to the grad of a target.

    steps: further equations that it takes.  bytes: of what is read and written, each once.
    operations: of floating point.  Both are None if values or the equation are not known.
    shape: that of the value or gradient that it makes, with B for the rows: (B, 512).
    """

    node: Node | None
    target: Node | None
    text: str
    steps: tuple = ()
    bytes: int | None = None
    operations: int | None = None

    def __post_init__(self):
        made = self.target or self.node
        self.shape = "" if made is None or made.value is None else shapes.described(made)


def statements(loss, names, slices=1):
    """The Statements of Forward(loss), then those of Backward(loss), which have a target.

    slices: of the rows.  What is computed slice by slice says so, and reads and writes what has no
    b for each slice.  The last addition to a parameter's gradient then adds those of the slices.
    """
    readings = {n: Reading(n, names, slices) for n in program(loss).nodes}
    for n, reading in readings.items():
        inputs = ", ".join(names[i] for i in inputs_of(n))
        sides = Reference(names[n]), Reference(f"{type(n).__name__}({inputs})")
        yield statement(reading, reading.value or [Equation("=", sides)])
    nbytes = None if loss.value is None else loss.value.nbytes
    made = [Statement(loss, loss, f"{names[loss]}.grad = 1/B", (), nbytes, 0)] * loss.varies
    last = {s.target: s for s in made}  # that adds to the gradient of a target
    for n, reading in reversed(readings.items()):
        for target, equations in reading.gradients if n in last else ():
            sides = Reference(f"{names[target]}.grad"), Reference(f"{type(n).__name__}'s")
            unread = Equation("+=", sides, slices=1 if target.batched else slices)
            last[target] = statement(reading, equations or [unread], target, target in last)
            made.append(last[target])
    for p, s in last.items():
        if isinstance(p, Parameter) and s.bytes is not None:
            s.bytes += 3 * (slices - 1) * p.value.nbytes
            s.operations += (slices - 1) * p.value.size
    yield from made


def statement(reading, equations, target=None, accumulates=False):
    """The Statement of these Equations; accumulates: to a gradient that is there, and read too."""
    n, arrays = reading.n, reading.arrays
    text, *steps = map(str, map(without_indices, equations) if reading.one_shape else equations)
    found = Statement(n, target, text, steps)
    if reading.known and n.value.size and equations[0].sizes is not None:
        added = accumulates * moved(arrays, {equations[0].left: equations[0]})
        found.bytes = moved(arrays, {part: e for e in equations for part in e.walk()}) + added
        each = [e.right.operations(e.sizes) * (1 if n.batched else e.slices) for e in equations]
        found.operations = sum(each) + added // n.value.itemsize
    return found


def moved(arrays, used):
    """The bytes of arrays, as far as indices reach of the References in used, {it: its Equation}.

    Without b, they are moved for each of the slices for which the Equation is computed.
    """
    reach, whole = Counter(), {}
    for part, e in used.items():
        if isinstance(part, Reference) and part.what in arrays:
            letters, array = part.letters(), arrays[part.what]
            times = 1 if "b" in letters else e.slices
            reach[part.what] += prod(e.sizes[a] for a in letters) * times * array.itemsize
            whole[part.what] = array.nbytes * (1 if ROW in part.parts else e.slices)
    return sum(min(n, whole[name]) for name, n in reach.items())


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
    equations = {name: of_each_number(e).simplified({}) for name, (e,) in defined.items()}
    flop = sum(e.right.operations({"k": len(phi)}) for e in equations.values())
    nbytes = 3 * phi.nbytes + 2 * sum(vector.nbytes for vector in rule.state.values())
    text, *steps = (str(without_indices(e)) for e in (equations.pop("Phi"), *equations.values()))
    steps += [f"eta is {factor:g} eta in {name}" for name, factor in train.rates.items()]
    if train.weight_decay and train.decay == "matrices":
        steps.append(f"without {train.weight_decay:g} Phi in parameters of fewer than two indices")
    return Statement(None, None, text, steps, nbytes, flop)
