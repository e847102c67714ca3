"""The Educational Framework (EDF), on any number of ranks.

A model is Python source that binds variables to nodes:

    L1  = Sigmoid(Affine(Phi1, x))
    Q   = Softmax(Affine(Phi2, L1))
    ell = LogLoss(Q, y)

There are three kinds of node: inputs, parameters and computed nodes.  The values of
inputs and computed nodes have a batch index b, always the first; parameters have none.
From D. McAllester, TTIC 31230, "The Educational Framework (EDF)", 2024.

Arrays are NumPy's or CuPy's.  A NumPy function called on a CuPy array runs on the GPU
(NEP 13, NEP 18), so a graph computes wherever its parameters and inputs live.
"""

import itertools
from types import SimpleNamespace

import numpy as np

from dpedf import shapes
from dpedf.kernels.gemm import add_products, product

made = itertools.count()
JOINED = 8  # products that are added as one: not so many that what they read leaves the cache

# What a node may need to know of the pass: is it training?  Random draws are functions of
# seed, step and the row in the global minibatch of B rows; row is the first one at hand.
# add(array) is the sum of an array over ranks, for a node that mixes the rows of all of them.
context = SimpleNamespace(train=False, seed=0, step=0, row=0, B=None, add=lambda array: array)


class Counted(type):
    """The class of classes whose objects are numbered as they are made: the source's order."""

    def __call__(cls, *args, **keywords):
        thing = super().__call__(*args, **keywords)  # so that no __init__ needs super()
        thing.number = next(made)
        if isinstance(thing, CompNode):
            context.train = False
            shapes.infer(thing, connect(thing))
        return thing


class Node(metaclass=Counted):
    """Something with a value."""

    value = grad = None
    varies = True  # does it depend on a parameter?  If not, no gradient is sent to it.
    batched = True  # is the first index of its value the batch index b?

    def addgrad(self, *delta):
        """Nothing, where nothing varies."""

    addpart = addproduct = addgrad


class Input(Node):
    """A value set from outside, (B, *shape); classes: how many, where it holds labels."""

    varies = False

    def __init__(self, shape=None, dtype=None, classes=None):
        self.shape, self.dtype, self.classes = shape, dtype, classes
        if shape is not None:
            self.value = np.zeros((0, *shape), dtype or (int if classes else float))  # no rows, yet


class Parameter(Node):
    """A value that SGD changes.  value, grad: of one shape, without b"""

    name, package = "a parameter", None
    batched = False
    fresh = True  # nothing was added yet in this pass, so grad need not be zeroed

    def __init__(self, value):
        self.value = value
        self.grad = np.zeros_like(value)
        self.products = []  # to be added to grad

    def addgrad(self, delta):
        """grad += delta, of the shape of value or with b before it, which is summed."""
        if delta.shape != self.value.shape:
            if delta.shape[1:] != self.value.shape:
                what = f"{self.value.shape}, or the same after one batch index"
                raise ValueError(f"{self.name}: addgrad of shape {delta.shape}, expected {what}")
            delta = delta.sum(axis=0)  # delta[b, ...], as on the slides
        if self.fresh:
            self.grad[...] = delta
        else:
            self.grad += delta
        self.fresh = False

    def addpart(self, index, delta):
        """grad[index] += delta"""
        if self.fresh:
            self.grad[...] = 0
        self.fresh = False
        part = self.grad[index]
        part += delta

    def addproduct(self, a, b):
        """grad += a @ b; all but the first, as those of time steps, wait for others to join."""
        if self.fresh:
            product(a, b, self.grad)
            self.fresh = False
        else:
            self.products.append((a, b))
            if len(self.products) == JOINED:
                self.complete()

    def complete(self):
        """Let grad hold all that was added up to now."""
        if self.fresh:
            self.grad[...] = 0
        if self.products:
            add_products(self.products, self.grad)
        self.fresh, self.products = False, []


class CompNode(Node):
    """A value computed from other nodes.  Subclasses define forward and backward."""

    ours = False  # is grad an array of this node alone?

    def addgrad(self, delta):
        if not self.varies:
            return
        if self.ours:
            self.grad += delta
        elif self.grad is None:
            self.grad = delta  # which may be another node's grad
        else:
            self.grad, self.ours = self.grad + delta, True

    def addpart(self, index, delta):
        """grad[index] += delta"""
        if not self.varies:
            return
        if not self.ours:
            self.grad = np.zeros_like(self.value) if self.grad is None else self.grad.copy()
        self.ours = True
        part = self.grad[index]
        part += delta

    def addproduct(self, a, b):
        self.addgrad(product(a, b))


class Package(metaclass=Counted):
    """Parameters under one name: Phi.w, Phi.b."""

    name = None

    def __init__(self, name=None, /, **parameters):
        self.name = name
        for key, p in parameters.items():
            setattr(self, key, p)

    def __setattr__(self, key, thing):
        vars(self)[key] = thing
        if isinstance(thing, Parameter):
            thing.package = self


def held(thing):
    """The nodes that thing is or holds, in the order in which they were bound."""
    if isinstance(thing, Node):
        yield thing
    elif isinstance(thing, (list, tuple)):
        for t in thing:
            yield from held(t)
    elif isinstance(thing, Package):
        yield from inputs_of(thing)


def inputs_of(n):
    """The nodes that a node, or a package, holds in its attributes."""
    return list(held(list(vars(n).values())))


def connect(n):
    """Note of a computed node what its inputs make of it; return them."""
    inputs = inputs_of(n)
    n.varies = any(i.varies for i in inputs)
    n.batched = any(i.batched for i in inputs)
    return inputs


class Program:
    """What a loss depends on, read once, in the order of the source."""

    def __init__(self, loss):
        self.loss, reached, todo = loss, set(), [loss]
        while todo:
            n = todo.pop()
            if n not in reached:
                reached.add(n)
                todo += inputs_of(n)
        ordered = sorted(reached, key=lambda n: n.number)
        self.inputs = [n for n in ordered if isinstance(n, Input)]
        self.nodes = [n for n in ordered if isinstance(n, CompNode)]
        first = {}  # parameter -> its first user; backward, the last to add to its gradient
        for n in self.nodes:
            for i in connect(n):
                if isinstance(i, Parameter):
                    first.setdefault(i, n)
        self.name()
        together = (q for p in first for q in held(p.package or p) if q in first)
        self.parameters = list(dict.fromkeys(together))  # a package where its first one is used
        self.completes = {n: [p for p in reversed(first) if first[p] is n] for n in self.nodes}

    def name(self):
        """Name its nodes, which another program that shares some may have done since."""
        for number, n in enumerate(self.nodes, 1):
            n.name, n.place = f"z{number}", number
        self.loss.name, Program.named = "ell", self

    def forward(self):
        if Program.named is not self:
            self.name()
        for n in self.nodes:
            n.value = n.grad = None  # so that their memory can be used again
            n.forward()

    def backward(self, B, ready, keep):
        for n in self.nodes:
            n.grad, n.ours = None, False
        for p in self.parameters:
            p.fresh, p.products = True, []
        each = np.empty_like(self.loss.value)
        each.fill(1 / B)
        self.loss.addgrad(each)
        for n in reversed(self.nodes):
            if n.grad is not None:
                n.backward()
            if not keep:
                n.value = n.grad = None
            for p in self.completes[n]:
                p.complete()
                if ready:
                    ready(p)


def program(loss):
    if "program" not in vars(loss):
        loss.program = Program(loss)
    return loss.program


def CompNodes(loss):
    return program(loss).nodes


def Parameters(loss):
    return program(loss).parameters


def Inputs(loss):
    return program(loss).inputs


def Forward(loss, train=False):
    """Compute the value of every node that loss depends on; train: is it to be learned from?"""
    context.train = train
    program(loss).forward()


def Backward(loss, B=None, ready=None, keep=True):
    """Leave in each p.grad the gradient of 1/B sum_b loss[b].

    loss.value: (b,), the examples at hand; B: the size of the whole minibatch, of which
    they may be a shard.  ready(p) is called as soon as p.grad is complete.  keep: are the values
    and gradients of computed nodes to be looked at?  If not, each goes when it was used.
    """
    program(loss).backward(B or len(loss.value) or 1, ready, keep)


def SGD(parameters, eta):
    for p in parameters:
        p.value -= eta * p.grad
