"""The Educational Framework (EDF), on any number of ranks.

A model is Python source that binds variables to nodes:

    L1  = Sigmoid(Affine(Phi1, x))
    Q   = Softmax(Affine(Phi2, L1))
    ell = LogLoss(Q, y)

There are three kinds of node: inputs, parameters and computed nodes.  The values of inputs and
computed nodes have a batch index b, always the first; parameters have none.
From D. McAllester, TTIC 31230, "The Educational Framework (EDF)", 2024.
"""

import numpy as np

from dpedf.kernels.gemm import JOINED, add_products, product
from dpedf.program import Numbered, context, program  # noqa: F401, nodes import context from here


class Node(metaclass=Numbered):
    """Something with a value."""

    node_kind, value, grad = "constant", None, None
    varies = True  # does it depend on a parameter?  If not, no gradient is sent to it.
    batched = True  # is the first index of its value the batch index b?

    def addgrad(self, delta):
        """Ignored, as by an Input: it depends on no parameter."""

    def addproduct(self, a, b):
        self.addgrad(product(a, b))


class Input(Node):
    """A value set from outside, (B, *shape); classes: how many, where it holds labels."""

    node_kind, varies = "input", False

    def __init__(self, shape=None, dtype=None, classes=None):
        self.shape, self.dtype, self.classes = shape, dtype, classes
        if shape is not None:
            self.value = np.zeros((0, *shape), dtype or (int if classes else float))  # no rows, yet


class Parameter(Node):
    """A value that SGD changes.  value, grad: of one shape, without b"""

    node_kind, batched = "parameter", False
    name, package = "a parameter", None

    def __init__(self, value):
        self.value, self.grad = value, np.zeros_like(value)
        self.untouched, self.products = True, []  # nothing was added yet in this pass

    def addgrad(self, delta):
        """grad += delta, of the shape of value or with b before it, which is summed over."""
        if delta.shape != self.value.shape:
            if delta.shape[1:] != self.value.shape:
                found = f"{self.name}: addgrad of shape {delta.shape}"
                raise ValueError(f"{found}, expected {self.value.shape}, or b before it")
            delta = delta.sum(axis=0)  # delta[b, ...], as on the slides
        if self.untouched:
            self.grad[...], self.untouched = delta, False
        else:
            self.grad += delta

    def addproduct(self, a, b):
        """grad += a @ b: the first at once; later ones, as of time steps, in groups of JOINED."""
        if self.untouched:
            product(a, b, self.grad)
            self.untouched = False
        else:
            self.products.append((a, b))
            if len(self.products) == JOINED:
                self.complete()

    def complete(self):
        """Add the products that wait; Backward calls it when the gradient is final."""
        add_products(self.products, self.own_grad())
        self.products = []

    def own_grad(self):
        """Return grad, which the caller may add to in place."""
        if self.untouched:
            self.grad[...], self.untouched = 0, False
        return self.grad


class CompNode(Node):
    """A value computed from other nodes.  Subclasses define forward and backward."""

    node_kind, owns_grad = "computed", False  # owns_grad: no other node has the same array

    def addgrad(self, delta):
        if self.owns_grad:
            self.grad += delta
        elif self.grad is not None:
            self.grad, self.owns_grad = self.grad + delta, True
        elif self.varies:
            self.grad = delta  # which may be another node's grad

    def own_grad(self):
        """Return grad as an array of this node alone, which the caller may add to in place."""
        if not self.owns_grad:
            self.grad = np.zeros_like(self.value) if self.grad is None else self.grad.copy()
        self.owns_grad = True
        return self.grad


class Package(metaclass=Numbered):
    """Parameters under one name: Phi.w, Phi.b."""

    node_kind, name = "package", None

    def __init__(self, name=None, /, **parameters):
        self.name = name
        for key, p in parameters.items():
            setattr(self, key, p)

    def __setattr__(self, key, thing):
        vars(self)[key] = thing
        if isinstance(thing, Parameter):
            thing.package = self


def CompNodes(loss):
    return program(loss).nodes


def Parameters(loss):
    return program(loss).parameters


def Forward(loss, train=False):
    """Compute the value of every node that loss depends on; train: is this a pass of training?"""
    program(loss).forward(train)


def Backward(loss, B=None, ready=None, keep=True):
    """Leave in each p.grad the gradient of 1/B sum_b loss[b].

    loss.value: (b,), the examples at hand, perhaps a shard of the minibatch of B.  ready(p) is
    called as soon as p.grad is complete.  With keep=False each computed node drops what it used.
    """
    program(loss).backward(B or len(loss.value) or 1, ready, keep)


def SGD(parameters, eta):
    for p in parameters:
        p.value -= eta * p.grad
