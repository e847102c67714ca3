"""Checks for debugging: gradients by finite differences, and every value for nan."""

from contextlib import contextmanager
from functools import partial, wraps

import numpy as np

from dpedf.device import host, overwrite
from dpedf.edf import Backward, CompNodes, Forward, Input, Parameters
from dpedf.errors import RunError, UserError
from dpedf.ops.tensor import Sum
from dpedf.program import context, during, inputs_of, kind, program


def check(node, tolerance=1e-6, seed=0):
    """Compare the backward of a node with central differences, in two lines of a test:

        x = Input((3, 4))
        check(MyNode(x))

    The sum of the node's values times random weights is differentiated by every number of each
    Parameter and each Input of float64 that it depends on, as gradients does it.  An Input without
    rows gets random ones for that.  UserError says where the two differ, or that there are no such
    numbers.  Afterwards all is as it was before.
    """
    if kind(node) not in (None, "computed"):
        raise UserError(f"check of {node!r}: it computes nothing, expected a CompNode")
    random, inputs, w = np.random.default_rng(seed), program(node).inputs, Input()
    if any(x.value is None for x in inputs):
        raise UserError("an Input without a value, expected one, or a shape")
    B = max((len(x.value) for x in inputs), default=0) or 3
    with restored(program(node)), during(step=context.step):
        for x in (x for x in inputs if not len(x.value)):
            draw, dtype = random.normal, x.value.dtype
            if dtype.kind in "iub":
                draw = partial(random.integers, x.classes or 2, dtype=dtype)
            x.value = draw(size=(B, *x.value.shape[1:]))
        Forward(node)
        if made := described(node, "value", node.value, lambda v: ~np.isfinite(v)):
            found = f"{type(node).__name__} makes {made}"
            raise UserError(f"{found}, expected numbers: change its inputs")
        w.value = random.normal(size=node.value.shape if node.batched else (B, *node.value.shape))
        grads = {x: collected(x, node) for x in inputs if x.value.dtype.kind == "f"}
        compared, _ = compare(Sum(w * node), grads.items(), None, tolerance, seed)
    if not compared:
        found = ", ".join(f"{x!r} of {x.value.dtype}" for x in inputs) or "no Input"
        expected = "expected an Input of floats, or a Parameter that varies"
        raise UserError(f"{type(node).__name__} of {found}: no number to compare, {expected}")


@contextmanager
def restored(these):
    """After the with block, the nodes of a Program hold what they held before it."""
    leaves = these.parameters + these.frozen
    before = [(n, dict(vars(n))) for n in these.inputs + these.nodes + leaves]
    running = [own["state"].values() for _, own in before if isinstance(own.get("state"), dict)]
    arrays = [array for p in leaves for array in (p.value, p.grads)]
    arrays += [array for state in running for array in state]
    copies = [host(array).copy() for array in arrays]
    try:
        yield
    finally:
        for n, own in before:
            vars(n).clear()
            vars(n).update(own)
        for array, copy in zip(arrays, copies, strict=True):
            overwrite(array, copy)


def collected(x, node):
    """The gradient of an Input, to which the nodes that a node depends on add from now on."""
    grad = np.zeros_like(x.value)

    def addgrad(delta):
        if np.shape(delta) != grad.shape:
            users = " or ".join({type(n).__name__ for n in CompNodes(node) if x in inputs_of(n)})
            raise UserError(f"{users}: addgrad of shape {np.shape(delta)}, expected {grad.shape}")
        np.add(grad, delta, out=grad)

    x.varies, x.own_grad, x.addgrad = True, lambda: grad, addgrad
    return grad


SHIFTS = 1e-6, 1e-5, 1e-4, 1e-8, 1e-10, 1e-12  # h as a part of max(1, |p|), in the order of trial


class Coordinate:
    """One number p of a leaf.  most: by how much gradients for it that agree may differ."""

    def __init__(self, ell, leaf, grad, at, most, alive):
        self.ell, self.leaf, self.grad, self.at, self.alive = ell, leaf, grad, at, alive
        self.p = float(leaf.value[at])
        size, rounding = max(1.0, abs(self.p)), 1e-15 * float(np.abs(ell.value).mean())
        shifts = [h * size for h in SHIFTS if rounding / (h * size) <= most]
        self.shifts = shifts or [max(SHIFTS) * size]
        self.most = max(most, rounding / self.shifts[0])

    def losses(self, by):
        """ell[b], after Forward where p is larger by so much."""
        self.leaf.value[self.at] = self.p + by
        Forward(self.ell, train=True)
        self.alive()
        return host(self.ell.value).copy()

    def gradient(self, by):
        """By Backward, where p is larger by so much."""
        self.losses(by)
        self.grad.fill(0)  # to that of an Input, Backward adds
        Backward(self.ell)
        return float(host(self.grad)[self.at])

    def slopes(self, low, high):
        """For each row, (ell[b] at p + high, less that at p + low) / (high - low)."""
        difference = self.losses(high) - self.losses(low)
        return difference / ((self.p + high) - (self.p + low))

    def around(self, values):
        """By Backward, in 24 places where each number of these (array, copy) is moved a little."""
        random = np.random.default_rng(0)
        for _ in range(24):
            for array, copy in values:
                overwrite(array, copy + 1e-5 * random.normal(size=copy.shape))
            yield self.gradient(1e-5 * random.normal())
        for array, copy in values:
            overwrite(array, copy)

    def right(self, gradient, by, h):
        """Does a gradient at p + by agree with the central difference there, up to an error?"""
        self.error = abs(self.slopes(by - h, by + h).mean() - gradient)
        return self.error <= self.most

    def wrong(self, gradient, values):
        """What is wrong with its gradient by Backward; None: nothing.  values: of all leaves."""
        if any(self.right(gradient, 0.0, h) for h in self.shifts):
            return None
        for h in self.shifts:
            beside = [(self.gradient(by), by, h / 4) for by in (h, -h)]
            off = [found for found in beside if not self.right(*found)]
            if not off:
                break
        if not off:
            left, right = self.slopes(-h, 0.0), self.slopes(0.0, h)
            sides = np.minimum(left, right).mean(), np.maximum(left, right).mean()
            possible = *sides, *self.around(values)
            low, high = min(possible), max(possible)
            if abs(gradient - (low + high) / 2) <= self.most + high - low:
                return None
            said = f"gradient {gradient:.10g} by Backward, expected {low:.10g} to {high:.10g}"
            return f"{said}, the finite differences beside a kink"
        its, by, h = off[0] if len(off) == 1 else (gradient, 0.0, self.shifts[0])
        expected = f"{self.slopes(by - h, by + h).mean():.10g} by finite differences"
        where = f" where it is {self.p + by:.10g}" if by else ""
        return f"gradient {its:.10g} by Backward{where}, expected {expected}"


def gradients(ell, samples=10, tolerance=1e-6, seed=0, alive=lambda: None):
    """Compare p.grad of Backward(ell) with finite differences, in each p of float64.

    For some numbers of each parameter (samples of them, or all), with L = 1/B sum_b ell[b], the
    difference (L(p + h) - L(p - h)) / 2h has to agree to tolerance times the largest of |p.grad|
    and 0.01, for one h of SHIFTS.  Where none does, p may be at a kink, as of relu at 0.  Then
    Backward has to agree on both sides of it, and p.grad to lie between the differences of the two
    sides, each row by itself, and gradients in places around, or beyond these by half of their
    distance: where many units kink at once, few places show all gradients that they can have.
    alive() is called after each pass.  Returns (how many were compared, largest relative error).
    """
    with during(step=context.step):  # one step, whose random draws are the same in each pass
        return compare(ell, [], samples, tolerance, seed, alive)


def compare(ell, inputs, samples, tolerance, seed, alive=lambda: None):
    """UserError, unless the gradients of these (Input, its gradient) and parameters are right."""
    Forward(ell, train=True)
    Backward(ell)
    leaves = [("an Input", *x) for x in inputs] + [(p.name, p, p.grad) for p in Parameters(ell)]
    values = [(leaf.value, host(leaf.value).copy()) for _, leaf, _ in leaves]
    grads = [(grad, host(grad).copy()) for _, _, grad in leaves]
    random, errors = np.random.default_rng(seed), []
    try:
        for (name, leaf, grad), (_, by_backward) in zip(leaves, grads, strict=True):
            if (found := leaf.value.dtype) != np.float64:
                raise UserError(f'{name} is {found}, expected float64: train.precision = "float64"')
            size = max(0.01, np.abs(by_backward).max(initial=0))
            for k in random.permutation(by_backward.size)[:samples]:
                at = tuple(int(i) for i in np.unravel_index(k, by_backward.shape))
                coordinate = Coordinate(ell, leaf, grad, at, tolerance * size, alive)
                if wrong := coordinate.wrong(float(by_backward[at]), values):
                    raise UserError(f"{name}[{', '.join(map(str, at))}]: {wrong}")
                leaf.value[at] = coordinate.p
                errors.append(coordinate.error / size)
    finally:
        for array, copy in values + grads:
            overwrite(array, copy)
    Forward(ell, train=True)
    return len(errors), max(errors, default=0.0)


def nan(ell):
    """From now on, a RunError names the node that makes the first nan."""

    def tell(place, what):
        raise RunError(f"step {context.step + 1}: {what}, expected a number")

    watch(ell, np.isnan, tell)


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
    """ "z1[0, 3] inf": the first wrong number of a node's array, in its row of the minibatch."""
    if not (found := host(wrong(array))).any():
        return None
    at = np.argwhere(found)[0].tolist()
    number = host(array)[tuple(at)]
    if n.batched:
        at[0] += context.row
    return f"{name}{at or ''} {number}"
