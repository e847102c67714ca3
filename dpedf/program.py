"""A loss as a program: the nodes that it depends on, in the order of the source.

A loss is read once and run many times.  While it runs, its nodes read facts in `context`.
"""

import threading
from itertools import count

from dpedf.kernels.slices import WHOLE
from dpedf.kernels.sum_over_rows import sum_over_rows
from dpedf.kernels.vector import constant
from dpedf.shapes import expect_loss, expect_node, expect_value, expect_values, infer, kind

counter = count()  # of nodes and packages, in the order in which they are made


class Context(threading.local):
    """What a node may read while it runs.  Each thread has its own; only `during` writes it.

    train: is this a pass of training?
    B: rows of the global minibatch; row: which of them is the first one at hand.
    slices: how the rows at hand are cut, for sums over rows.
    seed, step, numbers: what random draws depend on, beside the row.  numbers[n] is the place of
    a node in the running program.  Where nobody sets step, it counts the passes of training.
    add(parts): the sum over all slices, of all ranks, of parts, which has those at hand.
    shares[n]: of what a node n counts, how much there is in a row of the minibatch, on average.
    """

    train, B, row, slices, seed, step, numbers, shares = False, None, 0, WHOLE, 0, 0, {}, {}
    add = staticmethod(lambda parts: parts.sum(axis=0))


context = Context()


class during:  # noqa: N801, a word of the with statement
    """with during(step=7): inside the block, nodes find these facts in context."""

    def __init__(self, **facts):
        self.facts = facts

    def __enter__(self):  # contextlib.contextmanager is too slow for small steps
        self.facts_now = vars(context)
        self.before = self.facts_now.copy()
        self.facts_now.update(self.facts)

    def __exit__(self, *error):
        self.facts_now.clear()
        self.facts_now.update(self.before)


class Numbered(type):
    """The type of Node and Package: numbers things, nodes above their inputs; checks shapes."""

    def __call__(cls, *args, **keywords):
        thing = super().__call__(*args, **keywords)  # so that no __init__ needs super()
        if type(thing) is not cls:
            return thing  # of another class, whose turn it was before
        inputs = connect(expect_node(thing)) if kind(thing) == "computed" else []
        thing.number = max([next(counter), *(1 + i.number for i in inputs)])
        if kind(thing) == "computed":
            infer(thing, inputs)
        return thing


def held(thing):
    """The nodes that a thing is or holds, in the order in which they were bound."""
    if isinstance(thing, (list, tuple)):
        for t in thing:
            yield from held(t)
    elif kind(thing) == "package":
        yield from inputs_of(thing)
    elif kind(thing):
        yield thing


def inputs_of(n):
    """The nodes that a node, or a package, holds in its attributes."""
    return list(held(list(vars(n).values())))


def connect(n):
    """Set varies and batched of a computed node from its inputs, and return these."""
    inputs = inputs_of(n)
    n.varies = any(i.varies for i in inputs)
    n.batched = any(i.batched for i in inputs)
    return inputs


class Program:
    """The nodes that a loss depends on, in the order of the source.

    inputs, nodes, parameters: of each kind; those of a package together.  frozen: do not vary.
    summed: nodes without b, whose gradients are sums over rows.
    names: z1, z2, ... and ell, of the computed nodes; numbers: 1, 2, ...
    completes: for each computed node, the parameters whose gradients its backward completes.
    """

    def __init__(self, loss):
        self.loss, self.facts, self.steps, reached, todo = loss, {}, count(), {}, [loss]
        for n in todo:  # which grows
            if n not in reached:
                reached[n] = True
                todo += inputs_of(n)
        ordered = sorted(reached, key=lambda n: n.number)
        self.nodes = [n for n in ordered if kind(n) == "computed"]
        self.inputs = [n for n in ordered if kind(n) == "input"]
        self.numbers = {n: number for number, n in enumerate(self.nodes, 1)}
        self.names = {n: f"z{number}" for n, number in self.numbers.items()} | {loss: "ell"}
        first = {}  # parameter -> its first user, whose backward is the last to add to its grad
        for n in self.nodes:
            n.known_as = self.names[n]
            for i in connect(n):
                if kind(i) == "parameter" and i.varies:
                    first.setdefault(i, n)
        together = (q for p in first for q in held(p.package or p) if q in first)
        self.parameters = [*dict.fromkeys(together)]  # w and b, where the first of them is used
        self.frozen = [n for n in ordered if kind(n) == "parameter" and not n.varies]
        self.summed = [n for n in (*self.parameters, *self.nodes) if n.varies and not n.batched]
        self.completes = {n: [p for p in reversed(first) if first[p] is n] for n in self.nodes}

    def step(self, train):
        """The number of this step, which is counted here where no `during` says it."""
        if "step" in vars(context):
            return context.step
        return next(self.steps) if train else 0

    def forward(self, train, nodes=None):
        """Compute the values of these nodes, in order: by default, of all."""
        self.facts = {"train": train, "numbers": self.numbers, "step": self.step(train)}
        with expect_values(self.inputs), during(**self.facts):
            for n in self.nodes if nodes is None else nodes:
                n.value = n.grad = None  # so that their memory can be used again
                if n.batched:
                    n.forward()
                else:
                    with during(slices=WHOLE):
                        n.forward()
                if n.value is None:
                    expect_value(n)

    def backward(self, B, ready, keep):
        for n in self.nodes:
            n.grad, n.owns_grad = None, False
        for n in self.summed:
            n.sum_over_rows = sum_over_rows(n.value, n.grads, context.slices)
        self.loss.addgrad(constant(self.loss.value, 1 / B))
        with during(**self.facts):
            for n in reversed(self.nodes):
                if n.sum_over_rows:  # without b: for each slice by itself, unless it takes them all
                    for part, slices in n.sum_over_rows.apart(getattr(n, "takes_slices", False)):
                        n.grad = part
                        with during(slices=slices):
                            n.backward()
                elif n.grad is not None:
                    n.backward()
                if not keep:
                    n.value = n.grad = n.sum_over_rows = None
                for p in self.completes[n]:
                    p.grad = p.sum_over_rows.finish()
                    if ready:
                        ready(p)


def program(loss):
    """The Program of a loss, which is read when it is first asked for."""
    if "program" not in getattr(loss, "__dict__", ()):
        loss.program = Program(expect_loss(loss))
    return loss.program
