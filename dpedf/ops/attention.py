"""Attention: each position of a sequence looks at others."""

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import packed
from dpedf.kernels.gemm import product


class Attention(CompNode):
    """y[b,t,J h + j] = sum_s a[b,h,s,t] v[b,s,J h + j]

    a[b,h,s,t] = softmax_s (sum_i q[b,t,I h + i] k[b,s,I h + i] / sqrt(I) + causal log([s <= t]))
    I = D / H
    J = E / H

    v.grad[b,s,J h + j] += sum_t a[b,h,s,t] y.grad[b,t,J h + j]
    q.grad[b,t,I h + i] += sum_s d[b,h,s,t] k[b,s,I h + i]
    d[b,h,s,t] = a[b,h,s,t] sum_j y.grad[b,t,J h + j] (v[b,s,J h + j] - y[b,t,J h + j]) / sqrt(I)
    k.grad[b,s,I h + i] += sum_t d[b,h,s,t] q[b,t,I h + i]

    causal: does t look at s <= t alone?  Vaswani et al., 2017

    heads: H; q: (B, T, D); k: (B, S, D); v: (B, S, E); y: (B, T, E)
    """

    def __init__(self, q, k, v, heads=1, causal=False):
        self.q, self.k, self.v, self.heads, self.causal = q, k, v, heads, causal

    def headed(self, x):
        """x by heads: (B, T, I) as (B, heads, T, I / heads)."""
        B, T, I = x.shape
        if self.heads < 1 or I % self.heads:
            raise ValueError(f"expected a multiple of {self.heads} heads, not {I}")
        return packed(x).reshape(B, T, self.heads, I // self.heads).swapaxes(1, 2)

    def forward(self):
        q, k, v = (self.headed(x.value) for x in (self.q, self.k, self.v))
        a = product(k, q.swapaxes(2, 3))  # (B, heads, S, T): sums over s add long rows
        a *= q.shape[3] ** -0.5
        if self.causal:
            S, T = a.shape[2:]
            later = np.expand_dims(np.arange(S, like=a), 1) > np.arange(T, like=a)
            a += np.where(later, -np.inf, 0.0).astype(a.dtype)
        a -= a.max(axis=2, keepdims=True)
        np.exp(a, out=a)
        a /= a.sum(axis=2, keepdims=True)
        self.a, B, T = a, *self.q.value.shape[:2]
        y = product(a.swapaxes(2, 3), v)
        self.value = y.swapaxes(1, 2).reshape(B, T, y.shape[1] * y.shape[3])

    def backward(self):
        q, k, v = (self.headed(x.value) for x in (self.q, self.k, self.v))
        a, g, y = self.a, self.headed(self.grad), self.headed(self.value)
        self.send(self.v, a, g)
        d = product(v, g.swapaxes(2, 3))
        d -= np.expand_dims((g * y).sum(axis=3), 2)
        d *= a
        d *= q.shape[3] ** -0.5
        self.send(self.q, d.swapaxes(2, 3), k)
        self.send(self.k, d, q)

    def send(self, x, left, right):
        """x.grad += the product of these, by heads."""
        if x.varies:
            delta = product(left, right)
            x.addgrad(delta.swapaxes(1, 2).reshape(x.value.shape))
