"""Checks for debugging: gradients by finite differences, and every value for nan."""

from contextlib import contextmanager
from functools import partial, wraps
from math import inf

import numpy as np

from dpedf.device import host
from dpedf.edf import Backward, CompNode, CompNodes, Forward, Input, Parameters
from dpedf.errors import RunError, UserError
from dpedf.program import connect, context, during, inputs_of, program


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
    with gradients_collected(node) as grads, during(step=context.step):
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


def gradients(ell, samples=10, tolerance=1e-6, seed=0, alive=lambda: None):
    """Compare p.grad of Backward(ell) with central differences, in each p of float64.

    For some numbers of each parameter (samples of them, or all), with L = 1/B sum_b ell[b],

        (L(p + h) - L(p - h)) / 2h,  h = 1e-6 max(1, |p|)

    has to agree to tolerance times the largest of |p.grad| and 0.01.  UserError says where it
    does not.  alive() is called after each pass.
    """
    with during(step=context.step):  # one step, whose random draws are the same in each pass
        Forward(ell, train=True)
        Backward(ell)
        compare(ell, of_parameters(ell), samples, tolerance, seed, alive)


def of_parameters(ell):
    """(name, parameter, its gradient) of each parameter of a loss."""
    return [(p.name, p, p.grad) for p in Parameters(ell)]


def compare(ell, leaves, samples, tolerance, seed, alive=lambda: None):
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
                alive()
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
    """From now on, a RunError names the node that makes the first nan."""

    def tell(place, what):
        raise RunError(f"step {context.step + 1}: {what}, expected a number")

    watch(ell, np.isnan, tell)


def first_not_finite(ell, compute):
    """(place, "z1 = Exp: forward made z1[0, 3] inf") of what a pass first makes that is not finite.

    compute(): runs Forward and Backward, once or several times.  Places are in the order of the
    program, forward before backward, so that those of several ranks can be compared.
    """
    found = [(inf, "no node makes such a number when the step is repeated")]
    for what in parameters_not_finite(ell):
        found.append((-1, f"{what} before the step, by the gradient of an earlier one"))
    watch(ell, not_finite, lambda *place_and_what: found.append(place_and_what))
    compute()
    return min(found, key=lambda place_and_what: place_and_what[0])


def parameters_not_finite(ell):
    """Yield "Phi1.w[0, 3] nan" for each parameter that is not finite."""
    for p in Parameters(ell):
        if what := described(p, p.name, p.value, not_finite):
            yield what


def not_finite(array):
    return ~np.isfinite(array)


def watch(ell, wrong, tell):
    """From now on, tell(place, what) when a node has made a number for which wrong is true."""
    names, last = program(ell).names, 2 * len(CompNodes(ell))

    for place, n in enumerate(CompNodes(ell)):

        def value(n=n):
            return [(n, names[n], n.value)]

        def gradients(n=n):
            found = [(i, array) for i in inputs_of(n) for array in so_far(i)]
            return [(i, f"{names.get(i) or i.name}.grad", array) for i, array in found]

        def watched(method, place, results, n=n):
            def call():
                method()
                for result in results():
                    if what := described(*result, wrong):
                        direction = method.__name__
                        tell(place, f"{names[n]} = {type(n).__name__}: {direction} made {what}")

            return wraps(method)(call)

        n.forward = watched(n.forward, place, value)
        n.backward = watched(n.backward, last - place, gradients)


def so_far(n):
    """What a node has as gradient so far; without b, over each slice."""
    if n.sum_over_rows is not None:
        parts = n.sum_over_rows.so_far()
        return [parts[v, ...] for v in range(len(parts))]
    return [] if n.grad is None else [n.grad]


def described(n, name, array, wrong):
    """The first number of a node's array that is wrong, as "z1[0, 3] inf"; None where none is.

    Rows are numbered in the global minibatch.
    """
    if not (found := host(wrong(array))).any():
        return None
    at = np.argwhere(found)[0].tolist()
    number = host(array)[tuple(at)]
    if n.batched:
        at[0] += context.row
    return f"{name}{at or ''} {number}"
