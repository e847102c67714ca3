"""Update rules over the vector Phi, and learning-rate schedules.

A rule is called as update(eta, step), the first step being 0, and overwrites the gradient of its
Phi.  On a GPU both numbers may be arrays there, which a replayed step reads again.  From the step
on whose loss was not finite, Phi.failed is nan, and a rule only counts in Phi.skipped.
state: name -> vector, what a rule remembers from step to step; checkpoints keep it.
spans: of Phi, each with a learning rate and a weight decay of its own; by default one, all of it.
Rules and schedules of the user's own are in run/rules.py.
"""

import math
from typing import NamedTuple

import numpy as np

from dpedf.kernels.vector import adam, momentum, norm, rmsprop, shorten


class Span(NamedTuple):
    """Neighbours in Phi: where, what multiplies their learning rate, and have they weight decay?

    skipped: where a rule counts its skipped steps; None: in Phi.skipped, which counts each once.
    """

    where: slice = slice(None)
    factor: float = 1.0
    decays: bool = True
    skipped: np.ndarray | None = None


WHOLE = (Span(),)


class Momentum:
    """SGD with momentum mu and weight decay lambda, as Sutskever et al., 2013, and PyTorch have it.

    g = grad + lambda Phi
    Phi <- Phi - eta g

    where momentum:

    v <- mu v + g
    Phi <- Phi - eta v

    where nesterov:

    Phi <- Phi - eta (g + mu v)

    v: (n,), empty without momentum.
    """

    spans = WHOLE

    def __init__(self, phi, momentum=0.0, nesterov=False, weight_decay=0.0):
        self.phi, self.mu, self.nesterov, self.decay = phi, momentum, nesterov, weight_decay
        self.state = {"v": zeros(phi, momentum)}

    def __call__(self, eta, step):
        for vectors, rate, decay in in_spans(self, eta):
            momentum(*vectors, rate, self.mu, self.nesterov, decay)


class Adam:
    """Adam, Kingma and Ba, 2015, with weight decay lambda as PyTorch has it: in the gradient.

    g = grad + lambda Phi
    m <- beta1 m + (1 - beta1) g
    v <- beta2 v + (1 - beta2) g**2
    t = step + 1
    d = m / (1 - beta1**t) / (sqrt(v / (1 - beta2**t)) + epsilon)
    Phi <- Phi - eta d

    m, v: (n,)
    """

    spans = WHOLE
    decoupled = False

    def __init__(self, phi, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.0):
        self.phi, self.constants, self.decay = phi, (*betas, epsilon), weight_decay
        self.state = {"m": zeros(phi), "v": zeros(phi)}

    def __call__(self, eta, step):
        for vectors, rate, decay in in_spans(self, eta):
            adam(*vectors, rate, step, *self.constants, decay, self.decoupled)


class AdamW(Adam):
    """Adam with its weight decay decoupled from the gradient: Loshchilov and Hutter, 2019.

    g = grad
    Phi <- Phi - eta (d + lambda Phi)
    """

    decoupled = True


class RMSProp:
    """RMSProp, Tieleman and Hinton, 2012, with momentum and weight decay as PyTorch has them.

    g = grad + lambda Phi
    s <- alpha s + (1 - alpha) g**2
    Phi <- Phi - eta g / (sqrt(s) + epsilon)

    where momentum:

    v <- mu v + g / (sqrt(s) + epsilon)
    Phi <- Phi - eta v

    smoothing: alpha.  s, v: (n,), v empty without momentum.
    """

    spans = WHOLE

    def __init__(self, phi, smoothing=0.99, epsilon=1e-8, momentum=0.0, weight_decay=0.0):
        self.phi, self.constants, self.decay = phi, (smoothing, epsilon, momentum), weight_decay
        self.state = {"s": zeros(phi), "v": zeros(phi, momentum)}

    def __call__(self, eta, step):
        for vectors, rate, decay in in_spans(self, eta):
            rmsprop(*vectors, rate, *self.constants, decay)


def in_spans(rule, eta):
    """For each span of Phi, (the vectors of it that a kernel takes, its eta, its weight decay)."""
    Phi, grad, (failed, skipped) = vectors_of(rule.phi)
    for where, factor, decays, apart in rule.spans:
        failure = failed, skipped if apart is None else apart
        state = (vector[where] for vector in rule.state.values())
        rate = eta if factor == 1 else eta * factor
        yield (Phi[where], grad[where], failure, *state), rate, rule.decay if decays else 0.0


def vectors_of(phi):
    """What a rule reads and writes.  ValueError: a parameter is no part of this Phi any more."""
    for p, part in zip(phi.parameters, phi.parts, strict=True):
        if p.value is not part:
            found = f"{p.name}.value is no part of this Phi any more"
            raise ValueError(f"{found}, expected one Phi of a loss, and {p.name}.value[...] = ...")
    return phi.value, phi.grad, phi.failure


def zeros(phi, used=True):
    """A vector of zeros like Phi; an empty one if it is not used."""
    return np.zeros_like(phi.value) if used else phi.value[:0]


def update_rule(phi, train, spans=WHOLE):
    """The rule that a [train] section names, which updates these spans of phi."""
    decay = train.weight_decay
    if train.optimizer == "sgd":
        rule = Momentum(phi, train.momentum, train.nesterov, decay)
    elif train.optimizer == "rmsprop":
        rule = RMSProp(phi, train.smoothing, train.epsilon, train.momentum, decay)
    else:
        kind = {"adam": Adam, "adamw": AdamW}[train.optimizer]
        rule = kind(phi, train.betas, train.epsilon, decay)
    rule.spans = spans
    return rule


def clip(grad, max_norm):
    """Shorten a gradient whose norm is larger than max_norm; return the norm that it had."""
    before = norm(grad)
    shorten(grad, before, max_norm)
    return before


def last_step(train, rows):
    """The steps of a whole run, for a [train] section and the rows that it learns from."""
    steps_per_epoch = -(-rows // train.batch_size)
    return min(train.epochs * steps_per_epoch or math.inf, train.steps or math.inf)


def schedule(train, steps):
    """eta(step) for a [train] section and the steps of the whole run; the first step is 0.

    constant: eta = learning_rate
    step:     eta = learning_rate decay_rate**(step // decay_steps)
    linear:   eta = learning_rate + (low - learning_rate) step / steps, low being min_learning_rate
    cosine:   eta = low + (learning_rate - low) (1 + cos(pi step / steps)) / 2, with the same low:
              Loshchilov and Hutter, 2017
    onecycle: as of one_cycle

    During the first warmup_steps eta rises linearly, learning_rate (step + 1) / warmup_steps;
    the schedule begins after them.
    """
    eta, low, warmup = train.learning_rate, train.min_learning_rate, train.warmup_steps

    def after_warmup(step):
        if train.schedule == "step":
            return eta * train.decay_rate ** (step // train.decay_steps)
        if train.schedule == "linear":
            return eta + (low - eta) * step / max(1, steps - warmup)
        if train.schedule == "cosine":
            angle = math.pi * step / max(1, steps - warmup)
            return low + (eta - low) * (1 + math.cos(angle)) / 2
        if train.schedule == "onecycle":
            return one_cycle(step, steps, eta)
        return eta

    return lambda s: eta * (s + 1) / warmup if s < warmup else after_warmup(s - warmup)


def one_cycle(step, steps, highest):
    """The rate of a step of one cycle, Smith and Topin, 2018, as PyTorch has it by default.

    In 0.3 steps it rises from highest / 25, in the others it falls to highest / 250,000, along half
    a cosine each time.  The momentum stays.
    """
    top, last = 0.3 * steps - 1, steps - 1
    if step <= top:
        start, end, share = highest / 25, highest, step / top
    else:
        start, end, share = highest, highest / 25 / 1e4, (step - top) / (last - top)
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
