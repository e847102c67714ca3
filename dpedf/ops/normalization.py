"""Normalization of the values of a layer, and dropout.

A bias is subtracted, as in Affine.
"""

from math import prod

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import floats, packed
from dpedf.kernels.normalization import (
    layer_norm,
    layer_norm_gradient,
    rms_norm,
    rms_norm_gradient,
)
from dpedf.ops.draws import uniform
from dpedf.program import context


class LayerNorm(CompNode):
    """y[b,...,j] = n[b,...,j] w[j] - c[j]

    n[b,...,j] = (x[b,...,j] - m[b,...]) / s[b,...]
    m[b,...] = mean_j x[b,...,j]
    s[b,...] = sqrt(mean_j (x[b,...,j] - m[b,...])**2 + epsilon)

    w.grad[j] += sum_b,... y.grad[b,...,j] n[b,...,j]
    c.grad[j] -= sum_b,... y.grad[b,...,j]
    x.grad[b,...,j] += (h[b,...,j] - mean_k h[b,...,k] - n[b,...,j] p[b,...]) / s[b,...]
    p[b,...] = mean_k h[b,...,k] n[b,...,k]
    h[b,...,j] = y.grad[b,...,j] w[j]

    Ba, Kiros and Hinton, 2016

    Phi.w: w, (J,); Phi.b: c, (J,); x: (B, ..., J); y: (B, ..., J)
    """

    def __init__(self, Phi, x, epsilon=1e-5):
        self.Phi, self.x, self.epsilon = Phi, x, float(epsilon)

    def forward(self):
        x, w, c = floats(self.x.value, self.Phi.w.value, self.Phi.b.value)
        self.value, self.n, self.s = layer_norm(x, w, c, self.epsilon)

    def backward(self):
        g, n, w, varies = packed(self.grad), self.n, self.Phi.w, self.x.varies
        delta, h = layer_norm_gradient(g, n, self.s, w.value) if varies else (None, g * n)
        w.addrows(h)
        self.Phi.b.addrows(g, -1)
        if varies:
            self.x.addgrad(delta)


class RMSNorm(CompNode):
    """y[b,...,j] = n[b,...,j] w[j]

    n[b,...,j] = x[b,...,j] / s[b,...]
    s[b,...] = sqrt(mean_j x[b,...,j]**2 + epsilon)

    w.grad[j] += sum_b,... y.grad[b,...,j] n[b,...,j]
    x.grad[b,...,j] += (h[b,...,j] - n[b,...,j] mean_k h[b,...,k] n[b,...,k]) / s[b,...]
    h[b,...,j] = y.grad[b,...,j] w[j]

    Zhang and Sennrich, 2019

    w: (J,); x: (B, ..., J); y: (B, ..., J)
    """

    def __init__(self, w, x, epsilon=1e-5):
        self.w, self.x, self.epsilon = w, x, float(epsilon)

    def forward(self):
        self.value, self.n, self.s = rms_norm(*floats(self.x.value, self.w.value), self.epsilon)

    def backward(self):
        g, n, w, varies = packed(self.grad), self.n, self.w, self.x.varies
        delta, h = rms_norm_gradient(g, n, self.s, w.value) if varies else (None, g * n)
        w.addrows(h)
        if varies:
            self.x.addgrad(delta)


class BatchNorm(CompNode):
    """y[b,j,...] = n[b,j,...] w[j] - c[j]

    n[b,j,...] = (x[b,j,...] - m[j]) / s[j]
    m[j] = learns mean_b,... x[b,j,...] + (1 - learns) state.mean[j]
    s[j] = sqrt(learns mean_b,... (x[b,j,...] - m[j])**2 + (1 - learns) state.variance[j] + epsilon)

    c.grad[j] -= sum_b,... y.grad[b,j,...]
    w.grad[j] += sum_b,... y.grad[b,j,...] n[b,j,...]
    x.grad[b,j,...] += w[j] / s[j] (y.grad[b,j,...] - learns p[j] - learns n[b,j,...] q[j])
    p[j] = mean_b,... y.grad[b,j,...]
    q[j] = mean_b,... y.grad[b,j,...] n[b,j,...]

    It learns in training: means are over the rows of all ranks, and each step moves the running
    values, state, a part of the way, rate, to its own mean and unbiased variance.  A minibatch that
    has one number for each j has no variance: that it would teach is a ValueError, on all ranks
    alike.  Ioffe and Szegedy, 2015

    Phi.w: w, (J,); Phi.b: c, (J,); x: (B, J, ...); y: (B, J, ...)
    """

    mixes = True  # rows of the minibatch, of which a pass therefore takes all of a rank

    def __init__(self, Phi, x, rate=0.1, epsilon=1e-5):
        if not x.batched:
            raise ValueError("BatchNorm of a value without b, expected rows of a minibatch")
        self.Phi, self.x, self.rate, self.epsilon = Phi, x, float(rate), float(epsilon)
        w = Phi.w.value
        self.state = {"mean": np.zeros_like(w), "variance": np.ones_like(w)}

    def expect_rows(self, B):
        """ValueError: from a minibatch of B rows it cannot learn."""
        if B * prod(self.x.value.shape[2:]) == 1:
            raise ValueError("BatchNorm cannot learn from 1 row with 1 number for each channel")

    def forward(self):
        x, w = floats(self.x.value, self.Phi.w.value)
        self.spread = (slice(None),) + (None,) * (x.ndim - 2)  # of a vector (J,), against x
        self.learns = context.train
        if self.learns:
            d, variance = self.of_minibatch(x)
        else:
            d, variance = x - self.state["mean"][self.spread], self.state["variance"]
        self.s = np.sqrt(variance + self.epsilon)
        self.n = d / self.s[self.spread]
        self.value = self.n * w[self.spread] - self.Phi.b.value[self.spread]

    def of_minibatch(self, x):
        """x less its mean over the rows of all ranks, and the variance; teaches the state."""
        B = context.B or len(x)
        self.expect_rows(B)
        self.count = max(1, B * prod(x.shape[2:]))
        mean = context.add(sums_of_slices(x)) / self.count
        d = x - mean[self.spread]
        # That mean is rounded: of large numbers it is off by more than they may differ.
        off, squares = np.split(context.add(sums_of_slices(d, np.square(d))) / self.count, 2)
        d -= off[self.spread]
        variance = np.maximum(squares - np.square(off), 0)
        unbiased = variance * (self.count / max(1, self.count - 1))
        rate = self.rate if B else 0.0
        for name, now in ("mean", mean + off), ("variance", unbiased):
            self.state[name] *= 1 - rate
            self.state[name] += rate * now
        return d, variance

    def backward(self):
        g, n, Phi, slices = self.grad, self.n, self.Phi, context.slices
        sums = sums_of_slices(g, g * n)
        J = len(Phi.w.value)
        Phi.b.addslices(slices.all, -sums[:, :J])
        Phi.w.addslices(slices.all, sums[:, J:])
        delta = g
        if self.learns:
            means = context.add(sums) / self.count
            delta = g - means[:J][self.spread] - n * means[J:][self.spread]
        if self.x.varies:
            self.x.addgrad(delta * (Phi.w.value / self.s)[self.spread])


def sums_of_slices(*arrays):
    """(V, J), or of several arrays side by side: x, (B, J, ...), summed over all but j."""
    J, slices = arrays[0].shape[1], context.slices
    sums = np.empty_like(arrays[0], shape=(len(slices), J * len(arrays)))
    for these, *parts in slices.cut(*arrays):
        for k, part in enumerate(parts):
            rows = packed(np.moveaxis(part, 1, -1))  # the same order, whatever it is in memory
            sums[these, k * J : (k + 1) * J] = rows.reshape(
                *rows.shape[:2], prod(rows.shape[2:])
            ).sum(axis=2)
    return sums


class Dropout(CompNode):
    """y = x keep

    x.grad += y.grad keep

    keep: in training 1 / (1 - rate) with probability 1 - rate, else 0; otherwise 1.  Drawn anew in
    each step, the same for any split of the rows; `with dpedf.program.during(seed=1):` seeds a loop
    of one's own.  Srivastava et al., 2014.  ValueError: rate is not in 0 <= rate < 1.
    """

    def __init__(self, x, rate):
        if not 0 <= rate < 1:
            raise ValueError(f"Dropout of rate {rate}, expected 0 <= rate < 1")
        self.x, self.rate = x, float(rate)

    def forward(self):
        (self.value,), self.keep = floats(self.x.value), None
        if context.train and self.rate:
            kept = uniform(self, self.value) >= self.rate
            self.keep = kept.astype(self.value.dtype) / (1 - self.rate)
            self.value = self.value * self.keep

    def backward(self):
        self.x.addgrad(self.grad if self.keep is None else self.grad * self.keep)
