"""Attention: each position of a sequence looks at others."""

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import floats, packed
from dpedf.kernels.attention import attention_weights, scores_gradient, swapped
from dpedf.kernels.gemm import product
from dpedf.ops.indices import whole_one


class Attention(CompNode):
    """y[b,t,J h + j] = sum_s a[b,h,s,t] v[b,s,J h + j]

    a[b,h,s,t] = softmax_s (sum_i q[b,t,I h + i] k[b,s,I h + i] / sqrt(I) + causal log([s <= t]))
    I = D / H
    J = E / H

    v.grad[b,s,J h + j] += sum_t a[b,h,s,t] y.grad[b,t,J h + j]
    q.grad[b,t,I h + i] += sum_s d[b,h,s,t] k[b,s,I h + i]
    d[b,h,s,t] = a[b,h,s,t] sum_j y.grad[b,t,J h + j] (v[b,s,J h + j] - y[b,t,J h + j]) / sqrt(I)
    k.grad[b,s,I h + i] += sum_t d[b,h,s,t] q[b,t,I h + i]

    where mask:

    a[b,h,s,t] = softmax_s (e[b,h,s,t] + causal log([s <= t]) + log(looks[b,t,s]))
    e[b,h,s,t] = sum_i q[b,t,I h + i] k[b,s,I h + i] / sqrt(I)

    where groups:

    y[b,t,J (N g + n) + j] = sum_s a[b,g,n,s,t] v[b,s,J g + j]
    a[b,g,n,s,t] = softmax_s (e[b,g,n,s,t] + causal log([s <= t]) + log(looks[b,t,s]))
    e[b,g,n,s,t] = sum_i q[b,t,I (N g + n) + i] k[b,s,I g + i] / sqrt(I)
    J = E / G
    N = H / G

    v.grad[b,s,J g + j] += sum_n,t a[b,g,n,s,t] y.grad[b,t,J (N g + n) + j]
    q.grad[b,t,I (N g + n) + i] += sum_s d[b,g,n,s,t] k[b,s,I g + i]
    d[b,g,n,s,t] = a[b,g,n,s,t] (c[b,g,n,s,t] - f[b,g,n,t]) / sqrt(I)
    c[b,g,n,s,t] = sum_j y.grad[b,t,J (N g + n) + j] v[b,s,J g + j]
    f[b,g,n,t] = sum_j y.grad[b,t,J (N g + n) + j] y[b,t,J (N g + n) + j]
    k.grad[b,s,I g + i] += sum_n,t d[b,g,n,s,t] q[b,t,I (N g + n) + i]

    causal: does t look at s <= t alone?  Vaswani et al., 2017

    mask: of keys, as those that are no padding, (B, S), or of pairs, (B, T, S).  t looks at s where
    it is not 0, as where PyTorch's bool mask is true.  A t that looks at no s has y = 0, and its
    gradients are 0.

    groups: k and v have so many heads, each for H / G heads of q that stand side by side.  Ainslie
    et al., 2023; PyTorch's enable_gqa

    heads: H; groups: G; q: (B, T, D); k: (B, S, F); v: (B, S, E); y: (B, T, O)
    """

    def __init__(self, q, k, v, heads=1, causal=False, mask=None, groups=None):
        self.q, self.k, self.v, self.heads = q, k, v, whole_one(self, heads)
        self.causal = causal
        self.mask, self.looks = mask, None
        self.groups = groups if groups is None else whole_one(self, groups)
        if groups is not None and (groups < 1 or heads % groups):
            raise ValueError(f"Attention of {heads} heads in {groups} groups, expected a divisor")

    def split(self, x, heads):
        """x by heads: (B, T, I) as (B, T, heads, I / heads)."""
        B, T, I = x.shape
        if heads < 1 or I % heads:
            raise ValueError(f"expected a multiple of {heads} heads, not {I}")
        return packed(x).reshape(B, T, heads, I // heads)

    def headed(self, *more):
        """The values of q, k and v, and more like q, (B, T, I), as (B, heads, T, I / heads)."""
        q, k, v, *more = floats(self.q.value, self.k.value, self.v.value, *more)
        those = [self.split(x, self.groups or self.heads) for x in (k, v)]
        return swapped(
            self.split(q, self.heads), *those, *(self.split(x, self.heads) for x in more)
        )

    def grouped(self, x):
        """x, (B, H, T, I), as (B, G, N T, I): one after the other, what shares a head of k."""
        if not self.groups:
            return x
        B, H, T, I = x.shape
        return x.reshape(B, self.groups, H // self.groups * T, I)

    def allowed(self, T, S):
        """Where the mask is not 0, (B, T, S) or (B, 1, S); B is 1 of a mask without b."""
        mask, b = self.mask.value, self.mask.batched
        if mask.shape[b:] not in ((S,), (T, S)):
            raise ValueError("expected mask (B, S) or (B, T, S)")
        rows = len(mask) if b else 1
        return (mask != 0).reshape(rows, T if mask.ndim > 1 + b else 1, S)

    def forward(self):
        q, k, v = self.headed()
        (B, H, T, I), S = q.shape, k.shape[2]
        if k.shape[3] != I or v.shape[2] != S:
            raise ValueError(f"expected k (B, S, {I * k.shape[1]}), v (B, S, E)")
        self.scale, mask = I**-0.5, None
        if self.mask is not None:
            mask = self.allowed(T, S)
            self.looks = np.broadcast_to(mask, (B, T, S))
        self.a = attention_weights(
            self.grouped(q), k, self.scale, self.causal, mask, H // k.shape[1]
        )
        y = product(self.a.swapaxes(2, 3), v)
        (y,) = swapped(y.reshape(B, H, T, y.shape[3]))
        self.value = y.reshape(B, T, H * y.shape[3])

    def backward(self):
        q, k, v, g = self.headed(self.grad)
        ours, g = self.grouped(q), self.grouped(g)
        y = self.split(self.value, self.heads).swapaxes(1, 2)
        d = scores_gradient(self.a, v, g, y, self.scale)
        factors = (self.v, v, self.a, g), (self.q, q, d.swapaxes(2, 3), k), (self.k, k, d, ours)
        varying = [
            (x, product(left, right).reshape(its.shape))
            for x, its, left, right in factors
            if x.varies
        ]
        deltas = swapped(*[delta for _, delta in varying])
        for (x, _), delta in zip(varying, deltas, strict=True):
            x.addgrad(delta.reshape(x.value.shape))
