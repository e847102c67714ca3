"""The arrays of a model under PyTorch's names, in its shapes and with its signs.

A package Phi1 of an Affine is an nn.Linear of that name: Phi1.weight is w transposed, and Phi1.bias
is -b, since here a bias is subtracted.  What decides is the node that takes a parameter.
"""

from functools import reduce

import numpy as np

from dpedf.edf import Parameter
from dpedf.ops import (
    Affine,
    BatchNorm,
    Conv1D,
    Conv2D,
    Embedding,
    GRUCell,
    LayerNorm,
    LSTMCell,
    MatMul,
    RMSNorm,
    Slice,
)
from dpedf.program import inputs_of, program


def transposed(a):
    return a.T


def negated(a):
    return -a


def exchanged(a):
    """The blocks i, f, o, g of an LSTM as PyTorch has them, i, f, g, o; or back."""
    return a.reshape(4, -1, *a.shape[1:])[[0, 1, 3, 2]].reshape(a.shape)


AFFINE = {"Phi.w": ("weight", transposed), "Phi.b": ("bias", negated)}
SCALED = {"Phi.w": ("weight",), "Phi.b": ("bias", negated)}
# What a node takes: its name in PyTorch, and how it is changed.  Each change undoes itself.
LAYERS = {
    Affine: AFFINE,
    MatMul: {"y": ("weight", transposed)},
    Conv1D: SCALED,
    Conv2D: SCALED,
    Embedding: {"W": ("weight",)},
    LayerNorm: SCALED,
    RMSNorm: {"w": ("weight",)},
    BatchNorm: SCALED,
}
RUNNING = {"mean": "running_mean", "variance": "running_var"}


class Tensor:
    """An array of a model, and its name and form in PyTorch.

    name: of a parameter, Phi1.w, or of a running value, z3.mean.  array: on the device.
    layer: of PyTorch, such as Phi1; keys: the array's name there, such as Phi1.weight, and
    perhaps that of a second bias, which PyTorch adds.  changes: from our array to PyTorch's.
    own: PyTorch has no such layer, so the array keeps its name and form.
    """

    def __init__(self, name, array, layer, words=(), changes=()):
        self.name, self.array, self.layer, self.changes = name, array, layer, changes
        self.keys, self.own = [f"{layer}.{word}" for word in words] or [name], not words

    def outward(self, array):
        """PyTorch's array, of ours."""
        for change in self.changes:
            array = change(array)
        return array

    def inward(self, array):
        """Our array, of PyTorch's."""
        for change in reversed(self.changes):
            array = change(array)
        return array

    @property
    def shape(self):
        """That of PyTorch's array."""
        return self.outward(np.zeros(self.array.shape, np.int8)).shape


def tensors(ell):
    """A Tensor for each parameter, and for each running value, of a program with a Phi."""
    read, places = program(ell), {}
    for find in of_cell, of_layer:
        for n in read.nodes:
            for p, *place in find(n):
                places.setdefault(p, place)
    parameters = sorted(read.parameters + read.frozen, key=lambda p: p.number)
    made = [Tensor(p.name, p.value, *places.get(p, [layer_of(p)])) for p in parameters]
    for n, name in read.names.items():
        running = getattr(n, "state", None)
        for key, array in running.items() if isinstance(running, dict) else ():
            normalizes = type(n) is BatchNorm and isinstance(n.Phi.w, Parameter)
            place = (layer_of(n.Phi.w), [RUNNING[key]]) if normalizes else (name,)
            made.append(Tensor(f"{name}.{key}", array, *place))
    taken = {t.name for t in made}
    for k, t in enumerate(made):
        if not t.own and not taken.isdisjoint(t.keys):  # as where several BatchNorms share their w
            made[k] = Tensor(t.name, t.array, t.layer)
        taken.update(t.keys)
    return made


def layer_of(p):
    """The layer that a parameter belongs to: its package, or itself."""
    return p.name.rpartition(".")[0] if p.package else p.name


def attribute(n, path):
    """What Phi.w, say, is of a node; None: it has none, as a Conv2D without a bias."""
    return reduce(lambda thing, name: getattr(thing, name, None), path.split("."), n)


def of_layer(n):
    """(parameter, layer, words, changes) for each that a layer of PyTorch has, too."""
    for path, (word, *changes) in LAYERS.get(type(n), {}).items():
        p = attribute(n, path)  # Phi.w
        named_so = isinstance(p, Parameter) and (
            not p.package or p.name.rpartition(".")[2].lower() == word[0]
        )
        if named_so and (transposed not in changes or p.value.ndim == 2):
            yield p, layer_of(p), [word], changes


def of_cell(n):
    """The same for those of a recurrent layer."""
    if type(n) not in (LSTMCell, GRUCell):
        return
    (w, b), (u, c) = factors(n.x), factors(n.z)
    biases = [p for p in (b, c) if p is not None]
    if not all(isinstance(p, Parameter) for p in (w, u, *biases)):
        return
    if type(n) is GRUCell and len(biases) == 1:  # which are not added to one another
        return
    layer, gates = layer_of(w), [exchanged] * (type(n) is LSTMCell)
    yield w, layer, ["weight_ih_l0"], [transposed, *gates]
    yield u, layer, ["weight_hh_l0"], [transposed, *gates]
    words = ["bias_ih_l0"], ["bias_hh_l0"]
    if b is None or c is None:
        words = [[*words[0], *words[1]]] * 2
    for p, its in zip((b, c), words, strict=True):
        if p is not None:
            yield p, layer, its, [negated, *gates]


def factors(n):
    """(w, b) of a product, or of a product of which n is one position; None for what is not."""
    if type(n) is Slice and all(type(part) is int for part in n.index):  # with all of its gates
        n = n.x
    if type(n) is Affine:
        return n.Phi.w, n.Phi.b
    return (n.y if type(n) is MatMul and n.y.value.ndim == 2 else None), None


def shared(ell):
    """{parameter: the names of the types of nodes that take it}, where there are several."""
    users = {}
    for n in program(ell).nodes:
        taken = [attribute(n, path) for path in LAYERS.get(type(n), {})]  # not all of a package
        for p in taken or inputs_of(n):
            if isinstance(p, Parameter):
                users.setdefault(p, set()).add(type(n).__name__)
    return {p: sorted(users[p]) for p in sorted(users, key=lambda p: p.number) if len(users[p]) > 1}
