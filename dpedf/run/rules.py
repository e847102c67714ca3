"""The update rule and the schedule that [train] names, also those in a file of the user's own.

    def rule(phi, eta, step, train, m): ...    changes phi.value, and what it remembers, m
    def schedule(step, steps, train): ...      returns the learning rate of a step

docs/recipes.md shows both.
"""

import inspect
from numbers import Real

import numpy as np

from dpedf import optim
from dpedf.device import host, overwrite
from dpedf.errors import UserError
from dpedf.kernels.vector import guarded
from dpedf.optim import vectors_of, zeros
from dpedf.run.own_code import own_file, procedure
from dpedf.run.settings.consistent import OPTIMIZERS_WITH
from dpedf.run.settings.explain import in_toml
from dpedf.run.settings.pointless import OF_SCHEDULE
from dpedf.run.settings.tree import shown

STEPS = 64  # of a rule, in which it should change all it has; of a schedule, that are looked at
HIGHEST = 1e9  # learning rate, as in config.py


class OwnRule:
    """An update rule of the user's own, of the type of those in dpedf.optim.

    rule(phi, eta, step, train, m, ...) changes phi.value by phi.grad.  Its further parameters are
    vectors like phi.value, zeros at first, which it remembers: they belong to checkpoints.
    UserError: it leaves something unchanged, or does not read a setting that was given for it.
    """

    def __init__(self, phi, train):
        self.phi, self.train, self.name = phi, train, train.optimizer
        parameters = "phi", "eta", "step", "train", "..."
        self.rule = procedure("train.optimizer", self.name, parameters, anew=False)
        self.vectors = {name: zeros(phi) for name in remembered(self.name, self.rule)}
        self.state = {f"rule.{name}": vector for name, vector in self.vectors.items()}
        self.try_out()

    def __call__(self, eta, step):
        Phi, _, failure = vectors_of(self.phi)
        guarded(Phi, failure, self.vectors.values(), self.change, eta, step)

    def change(self, eta, step):
        phi, Phi, grad = self.phi, self.phi.value, self.phi.grad
        found = self.rule(phi, eta, step, self.train, **self.vectors)
        for its, name, was in (phi.value, "value", Phi), (phi.grad, "grad", grad):
            if its is not was:
                phi.value, phi.grad = Phi, grad
                what = f"gives phi another {name}, expected phi.{name}[...] = ... or -= ..."
                raise UserError(f"{self.name} {what}")
        if found is not None:
            what = f"returns {type(found).__name__}, expected nothing, and phi.value -= ..."
            raise UserError(f"{self.name} {what}")

    def try_out(self):
        """Make a few steps twice, by gradients drawn at random, and take them back."""
        all_of_it = {"phi.value": self.phi.value, **self.vectors}
        before = {name: vector.copy() for name, vector in all_of_it.items()}
        given, self.train = self.train, Read(self.train)
        found = [self.tried(all_of_it, before) for _ in range(2)]
        expect_read(self.name, self.train, (*OPTIMIZERS_WITH, "weight_decay"))
        self.train, (left, first), (_, second) = given, *found
        if left and len(self.phi.value):
            name = "phi.value -= ..." if left[0] == "phi.value" else f"{left[0]}[...] = ..."
            what = f"does not change {left[0]} in {STEPS} steps, expected {name}"
            raise UserError(f"{self.name} {what}, which writes to its numbers")
        if first != second:
            expected = "numbers that follow from its arguments alone"
            raise UserError(f"{self.name} does something else when it is called again: {expected}")

    def tried(self, vectors, before):
        """(names of vectors that are never changed, the bytes of all after the last step)."""
        left, grad = [*vectors], self.phi.grad
        with np.errstate(all="ignore"):
            for step in range(STEPS):
                random = np.random.default_rng(step).standard_normal(len(grad), grad.dtype)
                overwrite(grad, random)
                self(grad.dtype.type(1), step)
                left = [n for n in left if host((vectors[n] == before[n]).all())]
                if not left:
                    break
        made = [host(vector).tobytes() for vector in vectors.values()]
        for name, vector in vectors.items():
            vector[...] = before[name]
        grad.fill(0)
        return left, made


def remembered(name, rule):
    """The names of the vectors that a rule remembers.  UserError: they cannot be known."""
    _, _, _, _, *rest = inspect.signature(rule).parameters.values()
    for its in rest:
        if its.default is not its.empty or its.kind in (its.VAR_POSITIONAL, its.VAR_KEYWORD):
            expected = f"expected just a name for each vector that {rule.__name__} remembers"
            raise UserError(f'train.optimizer = "{name}": a parameter {its}, {expected}')
    return [its.name for its in rest]


class Read:
    """The [train] section, and the names of the settings that were read."""

    def __init__(self, train):
        self.train, self.names = train, set()

    def __getattr__(self, name):
        self.names.add(name)
        return getattr(self.train, name)


def expect_read(what, read, names):
    """UserError: one of these settings was given, but not read."""
    train = read.train
    defaults = type(train)(batch_size=train.batch_size, learning_rate=train.learning_rate)
    for name in names:
        given, default = getattr(train, name), getattr(defaults, name)
        if name not in read.names and given != default:
            off = f"none (train.{name} = {in_toml(default)})"
            raise UserError(
                f"train.{name} = {in_toml(given)} is not read by {what}, expected {off}"
            )


def update_rule(phi, train):
    """The rule that a [train] section names, which updates phi."""
    return OwnRule(phi, train) if own_file(train.optimizer) else optim.update_rule(phi, train)


def schedule(train, steps):
    """eta(step) for a [train] section and the steps of the whole run; the first step is 0.

    One of the user's own begins after the warm-up, which rises to its first number.
    UserError: it does not give the same number from 0 on each time that it is called.
    """
    if not own_file(train.schedule):
        return optim.schedule(train, steps)
    name, warmup, left = train.schedule, train.warmup_steps, max(1, steps - train.warmup_steps)
    own = procedure("train.schedule", name, ("step", "steps", "train"), anew=False)
    read = Read(train)

    def after_warmup(step, train=train):
        eta = own(step, left, train)
        eta = eta.item() if isinstance(eta, np.generic) else eta
        if not (isinstance(eta, Real) and 0 <= eta <= HIGHEST):
            found = shown(eta) if isinstance(eta, Real) else type(eta).__name__
            where = f"{name} returns {found} for step {step} of {left}"
            raise UserError(f"{where}, expected a number of 0 to {HIGHEST:g}")
        return float(eta)

    for step in some_of(left):
        if after_warmup(step, read) != after_warmup(step):
            found = f"{name} returns another number for step {step} when it is called again"
            raise UserError(f"{found}, expected one that follows from its arguments alone")
    expect_read(name, read, ("min_learning_rate", *OF_SCHEDULE))
    first = after_warmup(0)
    return lambda s: first * (s + 1) / warmup if s < warmup else after_warmup(s - warmup)


def some_of(steps):
    """At most STEPS of so many steps, the first and the last among them."""
    return sorted({round(k * (steps - 1) / (STEPS - 1)) for k in range(STEPS)})


def described(eta, steps):
    """Learning rates of a schedule, a line each, which ranks compare."""
    return "\n".join(f"learning rate {eta(step)!r} in step {step + 1}" for step in some_of(steps))
