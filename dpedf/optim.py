"""Update rules over the vector Phi, and learning-rate schedules."""

import math

import numpy as np

from dpedf.kernels.vector import momentum, norm


class Momentum:
    """SGD with momentum mu and weight decay lambda, as Sutskever et al., 2013, and PyTorch have it.

    phi: the Phi to update; its grad is used up.  v: (n,), the state that a checkpoint keeps.
    """

    def __init__(self, phi, momentum=0.0, nesterov=False, weight_decay=0.0):
        self.phi, self.mu, self.nesterov, self.decay = phi, momentum, nesterov, weight_decay
        self.v = np.zeros_like(phi.value) if momentum else phi.value[:0]

    def __call__(self, eta):
        phi = self.phi
        momentum(phi.value, phi.grad, self.v, eta, self.mu, self.nesterov, self.decay)


def clip(grad, longest):
    """Shorten a gradient to this length where it is longer; return the length it had."""
    before = norm(grad)
    grad *= (1 / np.maximum(before / longest, 1)).astype(grad.dtype)
    return before


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
