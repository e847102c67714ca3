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
from dpedf.run.spans import spans

# Steps of a trial: at least, and until a rule has changed all it has and read all it was given.
FEW, STEPS = 8, 64
OF_ALL = "weight_decay", "decay", "rates"  # settings of all optimizers
HIGHEST = 1e9  # learning rate, as in settings/sections.py


class OwnRule:
    """An update rule of the user's own, of the type of those in dpedf.optim.

    rule(phi, eta, step, train, m, ...) changes phi.value by phi.grad.  Its further parameters are
    vectors like phi.value, zeros at first, which it remembers: they belong to checkpoints.
    note(line) tells what a trial cannot know.
    UserError: it leaves phi unchanged, or does not read a setting that was given for it.
    """

    def __init__(self, phi, train, note):
        self.phi, self.train, self.name = phi, train, train.optimizer
        parameters = "phi", "eta", "step", "train", "..."
        self.rule = procedure("train.optimizer", self.name, parameters, anew=False)
        self.vectors = {name: zeros(phi) for name in remembered(self.name, self.rule)}
        self.state = {f"rule.{name}": vector for name, vector in self.vectors.items()}
        self.try_out(note)

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

    def try_out(self, note):
        """Make a few steps twice, by gradients drawn at random, and take them back."""
        all_of_it = {"phi.value": self.phi.value, **self.vectors}
        before = {name: vector.copy() for name, vector in all_of_it.items()}
        (left, unread, first), (_, _, second) = (self.tried(all_of_it, before) for _ in range(2))
        expect_read(self.name, self.rule, self.train, unread, note)
        for its in left if len(self.phi.value) else ():
            how = "phi.value -= ..." if its == "phi.value" else f"{its}[...] = ..."
            what = f"{self.name} does not change {its} in {STEPS} steps, expected {how}"
            if its == "phi.value":
                raise UserError(f"{what}, which writes to its numbers")
            note(f"{what}, if it is to do so before")
        if first != second:
            expected = "numbers that follow from its arguments alone"
            raise UserError(f"{self.name} does something else when it is called again: {expected}")

    def tried(self, vectors, before):
        """What is left after a few steps, and after no more than it takes to leave nothing.

        (names of vectors that are never changed, names of settings that were given and never read,
        the bytes of all vectors after the last step)
        """
        given, self.train = self.train, Read(self.train)
        left, unread, grad = [*vectors], [], self.phi.grad
        with np.errstate(all="ignore"):
            for step in range(STEPS):
                random = np.random.default_rng(step).standard_normal(len(grad), grad.dtype)
                overwrite(grad, random)
                self(grad.dtype.type(1), step)
                left = [n for n in left if host((vectors[n] == before[n]).all())]
                unread = self.train.unread((*OPTIMIZERS_WITH, *OF_ALL))
                if step + 1 >= FEW and not left and not unread:
                    break
        made = [host(vector).tobytes() for vector in vectors.values()]
        for name, vector in vectors.items():
            vector[...] = before[name]
        grad.fill(0)
        self.train = given
        return left, unread, made


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

    def unread(self, names):
        """Those of these settings that were given, but not read."""
        others = [name for name in names if name not in self.names]
        return [n for n in others if getattr(self.train, n) != getattr(defaults(self.train), n)]


def defaults(train):
    """The [train] section with what is neither given nor read."""
    return type(train)(batch_size=train.batch_size, learning_rate=train.learning_rate)


def expect_read(what, own, train, unread, note):
    """UserError: one of these settings was not read, nor does the code of the procedure name it.

    Where it does, the setting may be read in a later step: then note(line) says so.
    """
    words = inspect.unwrap(own).__code__.co_names
    for name in unread:
        found = f"train.{name} = {in_toml(getattr(train, name))} is not read by {what}"
        if name not in words:
            off = f"none (train.{name} = {in_toml(getattr(defaults(train), name))})"
            raise UserError(f"{found}, expected {off}")
        note(f"{found} in the steps that were tried")


def ignored(line):
    """Nobody is told."""


def update_rule(phi, train, note=ignored):
    """The rule that a [train] section names, which updates phi.  note(line) tells of it."""
    if own_file(train.optimizer):
        return OwnRule(phi, train, note)
    return optim.update_rule(phi, train, spans(phi, train))


def schedule(train, steps, note=ignored):
    """eta(step) for a [train] section and the steps of the whole run; the first step is 0.

    One of the user's own begins after the warm-up, which rises to its first number.
    note(line) tells of it.
    UserError: it does not give the same number from 0 on each time that it is called.
    """
    if not own_file(train.schedule):
        return optim.schedule(train, steps)
    name, warmup, left = train.schedule, train.warmup_steps, max(1, steps - train.warmup_steps)
    own = procedure("train.schedule", name, ("step", "steps", "train"), anew=False)
    read = Read(train)

    def after_warmup(step, train=train):
        eta = own(step, left, train)
        eta = eta.item() if isinstance(eta, np.generic | np.ndarray) and not eta.ndim else eta
        if not (isinstance(eta, Real) and 0 <= eta <= HIGHEST):
            found = shown(eta) if isinstance(eta, Real) else type(eta).__name__
            where = f"{name} returns {found} for step {step} of {left}"
            raise UserError(f"{where}, expected a number of 0 to {HIGHEST:g}")
        return float(eta)

    for step in some_of(left):
        if after_warmup(step, read) != after_warmup(step):
            found = f"{name} returns another number for step {step} when it is called again"
            raise UserError(f"{found}, expected one that follows from its arguments alone")
    expect_read(name, own, train, read.unread(("min_learning_rate", *OF_SCHEDULE)), note)
    first = after_warmup(0)
    return lambda s: first * (s + 1) / warmup if s < warmup else after_warmup(s - warmup)


def some_of(steps):
    """At most STEPS of so many steps, the first and the last among them."""
    return sorted({round(k * (steps - 1) / (STEPS - 1)) for k in range(STEPS)})


def described(eta, steps):
    """Learning rates of a schedule, a line each, which ranks compare."""
    return "\n".join(f"learning rate {eta(step)!r} in step {step + 1}" for step in some_of(steps))
