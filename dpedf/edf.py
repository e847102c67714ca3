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

from dpedf.kernels import own_floats
from dpedf.kernels.sum_over_rows import SumOverRows
from dpedf.program import Numbered, context, program
from dpedf.shapes import expect_delta


class Node(metaclass=Numbered):
    """Something with a value."""

    node_kind, value, grad = "constant", None, None
    varies = True  # does it depend on a parameter?  If not, no gradient is sent to it.
    batched = True  # is the first index of its value the batch index b?
    grads = sum_over_rows = None  # of a node without b: what its users add to grad in Backward

    def addgrad(self, delta):
        """grad += delta, of the shape of value or with b before it, which is summed over."""
        shape = np.shape(delta)
        if shape[1:] == self.value.shape != shape:
            self.addrows(delta)  # delta[b, ...], as on the slides
        elif self.sum_over_rows is not None:  # else it depends on no parameter, as an Input
            expect_delta(self, delta)
            self.sum_over_rows.add(delta, context.slices)

    def addrows(self, delta, factor=1):
        """grad += factor sum_b,... delta[b,...,:], over all indices before those of grad."""
        if self.sum_over_rows is not None:
            self.sum_over_rows.add_rows(delta, context.slices, factor)

    def addproduct(self, x, g):
        """grad[i,j] += sum_n x[n,i] g[n,j], over rows, or positions in rows, n."""
        if self.sum_over_rows is not None:
            self.sum_over_rows.add_product(x, g, context.slices)

    def addslices(self, these, delta):
        """grad += delta[v], summed over the rows of each of these slices (Slices.cut)."""
        if self.sum_over_rows is not None:
            self.sum_over_rows.add_slices(these, delta)

    def own_grad(self):
        """Return grad, which the caller may add to in place."""
        return self.sum_over_rows.own(context.slices)


class Input(Node):
    """A value set from outside, (B, *shape); classes: how many, where it holds labels."""

    node_kind, varies = "input", False

    def __init__(self, shape=None, dtype=None, classes=None):
        self.shape, self.dtype, self.classes = shape, dtype, classes
        if shape is not None:
            self.value = np.zeros((0, *shape), dtype or (int if classes else float))  # no rows, yet


class Parameter(Node):
    """A value that SGD changes.  value, grad: of one shape, without b"""

    node_kind, batched, name, package = "parameter", False, "a parameter", None

    def __init__(self, value):
        self.value = value = own_floats(value)  # of its own, since SGD changes it in place
        self.differentiate_into(np.zeros_like(value, shape=(1, *value.shape)))

    def differentiate_into(self, grads):
        self.grads, self.grad = grads, grads[0, ...]
        self.sum_over_rows = SumOverRows(self.value, grads)


class CompNode(Node):
    """A value computed from other nodes.  Subclasses define forward and backward."""

    node_kind, name, owns_grad = "computed", None, False  # owns_grad: it alone has this array

    def addgrad(self, delta):
        if self.sum_over_rows is not None or not self.varies:
            return super().addgrad(delta)
        expect_delta(self, delta)
        if self.grad is None:
            self.grad = delta  # which may be another node's grad
        elif self.owns_grad:
            self.grad += delta
        else:
            self.grad, self.owns_grad = self.grad + delta, True

    def own_grad(self):
        """Return grad as an array of this node alone, which the caller may add to in place."""
        if self.sum_over_rows is not None:
            return super().own_grad()
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
    program(loss).backward(B or max([1, *loss.value.shape[:1]]), ready, keep)


def SGD(parameters, eta):
    for p in parameters:
        p.value -= eta * p.grad
