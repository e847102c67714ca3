"""Checks: of gradients by finite differences, of every value for nan; and what ranks compare."""

import numpy as np

from dpedf.device import host
from dpedf.edf import (
    Backward,
    CompNode,
    CompNodes,
    Forward,
    Input,
    Inputs,
    Parameter,
    Parameters,
    context,
    inputs_of,
)
from dpedf.errors import UserError
from dpedf.evaluate import classifies


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
        delta = (self.w.value.T * self.grad).T
        self.z.addgrad(delta if self.z.batched else delta.sum(axis=0))


def check(node, tolerance=1e-6, seed=0):
    """Compare the backward of a node with central differences, in two lines of a test:

        x = Input((3, 4))
        check(MyNode(x))

    In every Input of float64 and Parameter that it depends on, each number is moved, as gradients
    does, and the sum of the node's values times random numbers is compared.  An Input without
    rows gets three random ones.  UserError says where they do not agree.
    """
    random, w = np.random.default_rng(seed), Input()
    for x in Inputs(node):
        if x.value is None:
            raise UserError("an Input without a value, expected one, or a shape")
        if not len(x.value):
            shape = 3, *x.value.shape[1:]
            labels = x.value.dtype.kind in "iu"
            x.value = (
                random.integers(x.classes or 2, size=shape) if labels else random.normal(size=shape)
            )
    moved = [x for x in Inputs(node) if x.value.dtype.kind == "f"]
    Forward(node)
    shape = node.value.shape if node.batched else (3, *node.value.shape)
    w.value = random.normal(size=shape)
    try:
        for x in moved:  # a parameter, for a while, but with b
            x.__class__, x.batched, x.name = Parameter, True, "an Input"
            x.grad, x.products = x.value.copy(), []
        gradients(Weighed(node, w), samples=None, tolerance=tolerance)
    finally:
        for x in moved:
            x.__class__, x.grad = Input, None
            del x.batched, x.name, x.products


def gradients(ell, samples=10, tolerance=1e-6, seed=0):
    """Compare p.grad of Backward(ell) with central differences, in each p of float64.

    For some numbers of each parameter (samples of them, or all), with L = 1/B sum_b ell[b],

        (L(p + h) - L(p - h)) / 2h,  h = 1e-6 max(1, |p|)

    has to agree to tolerance times the largest of |p.grad| and 0.01.  UserError says where it
    does not.
    """
    random = np.random.default_rng(seed)
    Forward(ell, train=True)
    Backward(ell)
    for p in Parameters(ell):
        if p.value.dtype != np.float64:
            raise UserError(f"{p.name} is {p.value.dtype}, expected float64 to check gradients")
        grad, values = host(p.grad).copy(), host(p.value).copy()
        most = tolerance * max(0.01, np.abs(grad).max(initial=0))
        for k in random.permutation(p.value.size)[:samples]:
            at = tuple(int(i) for i in np.unravel_index(k, p.value.shape))
            value = float(values[at])
            h, L = 1e-6 * max(1.0, abs(value)), []
            for shifted in value + h, value - h:
                p.value[at] = shifted
                Forward(ell, train=True)
                L.append(float(ell.value.mean()))
            p.value[at] = value
            difference = (L[0] - L[1]) / (2 * h)
            if not abs(difference - grad[at]) <= most:
                where = f"{p.name}[{', '.join(map(str, at))}]"
                raise UserError(
                    f"{where}: gradient {grad[at]:.10g} by Backward, "
                    f"expected {difference:.10g} by finite differences"
                )
    Forward(ell, train=True)


def nan(ell):
    """From now on, FloatingPointError says which node made the first nan, forward or backward."""
    for n in CompNodes(ell):
        n.forward = watched(n, "forward", lambda n: [(n.name, n.value)])
        n.backward = watched(n, "backward", lambda n: [(f"{h.name}.grad", h.grad) for h in fed(n)])


def fed(n):
    """The nodes to which n sends gradients."""
    inputs = [h for h in inputs_of(n) if h.grad is not None]
    for p in inputs:
        if isinstance(p, Parameter):
            p.complete()  # what waits is to be looked at, too
    return inputs


def watched(n, name, results):
    method = getattr(n, name)

    def call():
        method()
        for result, array in results(n):
            if np.isnan(array).any():
                at = np.argwhere(host(np.isnan(array)))[0].tolist()
                raise FloatingPointError(
                    f"step {context.step}: {n.name} = {type(n).__name__}: {name} made "
                    f"{result}{at} nan, expected a number"
                )

    return call


def fits(Q, ell, data):
    """Run the program on no rows: UserError where the model and the data do not fit."""
    data.put(*data.train.take(data.train.rows[:0]))
    try:
        Forward(ell)
    except (ValueError, IndexError) as error:
        raise UserError(f"model.build: {error}, expected a model that fits the data") from None
    if Q not in CompNodes(ell):
        raise UserError("model.build: ell does not depend on the output, expected that it does")
    found = [("ell", ell, [(0,)], "(B,), the loss of each example")]
    if classifies(ell, data.y):
        labels, classes = data.y.value.shape, data.y.classes
        shapes, expected = [(*labels, classes)], f"(B, ..., {classes}), a number for each class"
        if classes == 2:
            shapes, expected = [*shapes, labels], f"{expected}, or (B, ...), the score of class 1"
        found.append(("output", Q, shapes, expected))
    for name, node, shapes, expected in found:
        if node.value.shape not in shapes:
            what = f"({', '.join(['B', *map(str, node.value.shape[1:])])})"
            raise UserError(f"model.build: the {name} is {what}, expected {expected}")


def listing(loss):
    """The program of a loss, a line a node: z1 = Affine(Phi1.w (784, 10), Phi1.b (10,), x)."""

    def shown(node):
        shape = f" {node.value.shape}" if isinstance(node, Parameter) else ""
        return f"{getattr(node, 'name', type(node).__name__)}{shape}"

    return "\n".join(
        f"{n.name} = {type(n).__name__}({', '.join(map(shown, inputs_of(n)))})"
        for n in CompNodes(loss)
    )
