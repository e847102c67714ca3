"""What the equations in the docstrings of a program say, computed by the grammar of dpedf.source.

An expression is an array with an axis for each letter of its equation, of length 1 where it does
not depend on the letter.
"""

import numpy as np

from dpedf.edf import CompNodes
from dpedf.source.expressions import OPERATIONS, Letter, Number, Operation, Reduction
from dpedf.source.listing import naming
from dpedf.source.reading import Reading


class Evaluator:
    """The equations of a program that has run forward."""

    def __init__(self, ell):
        names = naming(ell)
        self.nodes = {name: node for node, name in names.items()}
        self.values, self.gradients, self.steps = {}, {}, {}  # Equations of a node, and of a name
        self.constants = {"pi": np.array(np.pi)}
        for n in CompNodes(ell):
            reading = Reading(n, names)
            self.constants |= reading.arrays
            self.gradients[n] = reading.gradients
            for e in reading.value + [e for _, added in self.gradients[n] for e in added]:
                if e.left.what == names[n]:
                    self.values.setdefault(n, []).append(e)
                elif e.what == "=":
                    self.steps.setdefault(e.left.what, []).append(e)

    def forward(self, n):
        """The value of a node, once for each form of its equations."""
        self.start()
        for k in range(1, len(self.values[n][0].parts)):
            value = np.full(n.value.shape, np.nan)
            for e in self.values[n]:
                place, _, right = self.sides(e, e.parts[k])
                value[place] = right
            yield value

    def backward(self, n):
        """{node: what a node adds to its gradient}."""
        self.start()
        sums = {}
        for node, (e, *_) in self.gradients[n]:
            total = sums.setdefault(node, np.zeros(node.value.shape))
            place, inside, right = self.sides(e, e.right, total.shape)
            sign = {"+=": 1, "-=": -1}[e.what]
            np.add.at(total, place, np.where(inside, sign * right, 0))
        return sums

    def start(self):
        """Forget what was computed of other values and gradients."""
        self.found = {**self.constants}
        for name, node in self.nodes.items():
            self.found |= {name: node.value, f"{name}.grad": node.grad}

    def array(self, name):
        if name not in self.found:
            sides = [self.sides(e, e.right) for e in self.steps[name]]
            ends = [[i.max(initial=-1) + 1 for i in place] for place, _, _ in sides]
            self.found[name] = np.full(np.max(ends, axis=0).astype(int), np.nan)
            for place, _, right in sides:
                self.found[name][place] = right
        return self.found[name]

    def sides(self, e, right, shape=None):
        """(place, inside, right): what an equation puts where, as far as inside of a shape."""
        place = [self.evaluate(part, e.sizes) for part in e.left.parts]
        *place, right = np.broadcast_arrays(*place, self.evaluate(right, e.sizes))
        if not place:
            return (), True, right.reshape(())
        return *within(place, shape), right

    def evaluate(self, e, sizes):
        parts = [self.evaluate(part, sizes) for part in e.parts]
        match e:
            case Number(value):
                return np.full([1] * len(sizes), value)
            case Letter(letter):
                shape = [size if a == letter else 1 for a, size in sizes.items()]
                return np.arange(sizes[letter]).reshape(shape)
            case Operation(symbol):
                with np.errstate(divide="ignore"):  # log 0 where attention does not look
                    return OPERATIONS[symbol](*parts) * 1
            case Reduction(kind, (_, *over)):
                shape = [size if Letter(a) in over else 1 for a, size in sizes.items()]
                body = np.broadcast_to(parts[0], np.broadcast_shapes(parts[0].shape, shape))
                return REDUCTIONS[kind](body, tuple([*sizes].index(a.what) for a in over))
        array = self.array(e.what)
        if not parts:
            return np.reshape(array, [1] * len(sizes))
        place, inside = within(np.broadcast_arrays(*parts), array.shape)
        return np.where(inside, array[place], 0)


def within(place, shape):
    """(place, inside): indices that stay inside of a shape, and where they were there before."""
    if shape is None:
        return tuple(i.astype(int) for i in place), True
    inside = [(0 <= i) & (i < n) for i, n in zip(place, shape, strict=True)]
    place = [np.clip(i, 0, max(n - 1, 0)).astype(int) for i, n in zip(place, shape, strict=True)]
    return tuple(place), np.all(inside, axis=0)


def softmax(x, axes):
    """0 where all x are -inf."""
    powers = np.exp(x - np.maximum(x.max(axes, keepdims=True), -1e300))
    return powers / np.maximum(powers.sum(axes, keepdims=True), 1e-300)


REDUCTIONS = {
    "sum": lambda x, axes: x.sum(axes, keepdims=True),
    "mean": lambda x, axes: x.mean(axes, keepdims=True),
    "max": lambda x, axes: x.max(axes, keepdims=True),
    "softmax": softmax,
}
