"""Update rules over the vector Phi, and learning-rate schedules."""

import math

import numpy as np

from dpedf.sums import CACHED


class Momentum:
    """SGD with momentum mu and weight decay lambda, as Sutskever et al., 2013, and PyTorch have it.

    g <- Phi.grad + lambda Phi
    v <- mu v + g
    Phi <- Phi - eta v,  or with Nesterov's momentum  Phi - eta (g + mu v)

    phi: the Phi to update; its grad is used up.  v: (n,), the state that a checkpoint keeps.
    """

    def __init__(self, phi, momentum=0.0, nesterov=False, weight_decay=0.0):
        self.phi, self.mu, self.nesterov, self.decay = phi, momentum, nesterov, weight_decay
        self.v = np.zeros_like(phi.value) if momentum else phi.value[:0]

    def __call__(self, eta):
        for low in range(0, len(self.phi.value), CACHED):
            part = slice(low, low + CACHED)
            Phi, g = self.phi.value[part], self.phi.grad[part]
            if self.decay:
                g += self.decay * Phi
            direction = g
            if self.mu:
                v = self.v[part]
                v *= self.mu
                v += g
                direction = g + self.mu * v if self.nesterov else v
            Phi -= np.multiply(direction, eta, out=g)


def norm(vector):
    """The Euclidean length, added in float64 and in an order that depends on n alone."""
    parts = (vector[low : low + CACHED] for low in range(0, len(vector), CACHED))
    return math.sqrt(sum(float(np.sum(np.square(p, dtype=np.float64))) for p in parts))


def clip(grad, longest):
    """Shorten a gradient to this length where it is longer; return the length it had."""
    length = norm(grad)
    if length > longest:
        grad *= longest / length
    return length


def schedule(train, steps):
    """eta(step) for a [train] section and the steps of the whole run; the first step is 0.

    constant: eta = learning_rate
    step:     eta = learning_rate decay_rate**(step // decay_steps)
    cosine:   eta = learning_rate (1 + cos(pi step / steps)) / 2: Loshchilov and Hutter, 2017

    During the first warmup_steps eta rises linearly, learning_rate (step + 1) / warmup_steps;
    the schedule begins after them.
    """
    eta, warmup = train.learning_rate, train.warmup_steps

    def after_warmup(step):
        if train.schedule == "step":
            return eta * train.decay_rate ** (step // train.decay_steps)
        if train.schedule == "cosine":
            return eta * (1 + math.cos(math.pi * step / max(1, steps - warmup))) / 2
        return eta

    return lambda s: eta * (s + 1) / warmup if s < warmup else after_warmup(s - warmup)
