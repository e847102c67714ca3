"""Checks for debugging: gradients by finite differences, and every value for nan."""

from contextlib import contextmanager
from functools import partial

import numpy as np

from dpedf.device import host
from dpedf.edf import Backward, CompNode, CompNodes, Forward, Input, Parameters
from dpedf.errors import UserError
from dpedf.program import connect, context, inputs_of, program


class Weighed(CompNode):
    """ell[b] = sum_... w[b,...] z[b,...], of a z without b too

    z.grad[b,...] += ell.grad[b] w[b,...]
    """

    def __init__(self, z, w):
        self.z, self.w = z, w

    def forward(self):
        products = self.w.value * self.z.value
        self.value = products.sum(axis=tuple(range(1, products.ndim)))

    def backward(self):
        self.z.addgrad((self.w.value.T * self.grad).T)


def check(node, tolerance=1e-6, seed=0):
    """Compare the backward of a node with central differences, in two lines of a test:

        x = Input((3, 4))
        check(MyNode(x))

    The sum of the node's values times random weights is differentiated with respect to every number
    of each Parameter and each Input of float64 that the node depends on, as gradients does it.  An
    Input without rows gets three random ones.  UserError says where the two do not agree.
    """
    random, inputs, w = np.random.default_rng(seed), program(node).inputs, Input()
    for x in inputs:
        if x.value is None:
            raise UserError("an Input without a value, expected one, or a shape")
        if not len(x.value):
            shape = 3, *x.value.shape[1:]
            labels = x.value.dtype.kind in "iu"
            x.value = (
                random.integers(x.classes or 2, size=shape) if labels else random.normal(size=shape)
            )
    Forward(node)
    w.value = random.normal(size=node.value.shape if node.batched else (3, *node.value.shape))
    with gradients_collected(node) as grads:
        ell = Weighed(node, w)
        Forward(ell, train=True)
        Backward(ell)
        leaves = [("an Input", x, grad) for x, grad in grads.items()]
        compare(ell, leaves + of_parameters(ell), None, tolerance, seed)


@contextmanager
def gradients_collected(node):
    """In the with block, a node's Inputs of floats get gradients, too: {Input: its gradient}."""
    inputs = [x for x in program(node).inputs if x.value.dtype.kind == "f"]
    grads = {x: np.zeros_like(x.value) for x in inputs}
    for x, grad in grads.items():
        x.varies, x.own_grad = True, lambda grad=grad: grad
        x.addgrad = partial(np.add, grad, out=grad)
    try:
        yield grads
    finally:
        for x in inputs:
            del x.varies, x.own_grad, x.addgrad
        for n in CompNodes(node):
            connect(n)


def gradients(ell, samples=10, tolerance=1e-6, seed=0):
    """Compare p.grad of Backward(ell) with central differences, in each p of float64.

    For some numbers of each parameter (samples of them, or all), with L = 1/B sum_b ell[b],

        (L(p + h) - L(p - h)) / 2h,  h = 1e-6 max(1, |p|)

    has to agree to tolerance times the largest of |p.grad| and 0.01.  UserError says where it
    does not.
    """
    Forward(ell, train=True)
    Backward(ell)
    compare(ell, of_parameters(ell), samples, tolerance, seed)


def of_parameters(ell):
    """(name, parameter, its gradient) of each parameter of a loss."""
    return [(p.name, p, p.grad) for p in Parameters(ell)]


def compare(ell, leaves, samples, tolerance, seed):
    """UserError, unless these gradients (name, leaf, gradient) agree with central differences."""
    random = np.random.default_rng(seed)
    for name, leaf, grad in leaves:
        if leaf.value.dtype != np.float64:
            found = f"{name} is {leaf.value.dtype}"
            raise UserError(f"{found}, expected float64 to check gradients")
        grad, values = host(grad).copy(), host(leaf.value).copy()
        most = tolerance * max(0.01, np.abs(grad).max(initial=0))
        for k in random.permutation(values.size)[:samples]:
            at = tuple(int(i) for i in np.unravel_index(k, values.shape))
            value = float(values[at])
            h, L = 1e-6 * max(1.0, abs(value)), []
            for shifted in value + h, value - h:
                leaf.value[at] = shifted
                Forward(ell, train=True)
                L.append(float(ell.value.mean()))
            leaf.value[at] = value
            difference = (L[0] - L[1]) / (2 * h)
            if not abs(difference - grad[at]) <= most:
                where = f"{name}[{', '.join(map(str, at))}]"
                raise UserError(
                    f"{where}: gradient {grad[at]:.10g} by Backward, "
                    f"expected {difference:.10g} by finite differences"
                )
    Forward(ell, train=True)


def nan(ell):
    """From now on, FloatingPointError names the node that makes the first nan."""
    names = program(ell).names
    for n in CompNodes(ell):

        def value(n=n):
            return [(names[n], n.value)]

        def gradients(n=n):
            found = [(i, array) for i in inputs_of(n) for array in so_far(i)]
            return [(f"{names.get(i) or i.name}.grad", array) for i, array in found]

        n.forward = watched(n.forward, f"{names[n]} = {type(n).__name__}: forward", value)
        n.backward = watched(n.backward, f"{names[n]} = {type(n).__name__}: backward", gradients)


def so_far(n):
    """What a node has as gradient so far; without b, over each slice."""
    if n.sum_over_rows is not None:
        parts = n.sum_over_rows.so_far()
        return [parts[v, ...] for v in range(len(parts))]
    return [] if n.grad is None else [n.grad]


def watched(method, who, results):
    """The method, after which no array of results() may hold a nan."""

    def call():
        method()
        for name, array in results():
            if np.isnan(array).any():
                at = np.argwhere(host(np.isnan(array)))[0].tolist()
                raise FloatingPointError(
                    f"step {context.step}: {who} made {name}{at} nan, expected a number"
                )

    return call
