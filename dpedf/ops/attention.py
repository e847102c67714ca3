"""Attention: each position of a sequence looks at others."""

from dpedf.edf import CompNode
from dpedf.kernels import floats, packed
from dpedf.kernels.attention import attention_weights, scores_gradient, swapped
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

    def split(self, x):
        """x by heads: (B, T, I) as (B, T, heads, I / heads)."""
        B, T, I = x.shape
        if self.heads < 1 or I % self.heads:
            raise ValueError(f"expected a multiple of {self.heads} heads, not {I}")
        return packed(x).reshape(B, T, self.heads, I // self.heads)

    def headed(self, *values):
        """Each of these, (B, T, I), as (B, heads, T, I / heads)."""
        return swapped(*map(self.split, floats(*values)))

    def forward(self):
        q, k, v = self.headed(self.q.value, self.k.value, self.v.value)
        self.scale = q.shape[3] ** -0.5
        self.a = attention_weights(q, k, self.scale, self.causal)
        (y,) = swapped(product(self.a.swapaxes(2, 3), v))
        B, T, heads, J = y.shape
        self.value = y.reshape(B, T, heads * J)

    def backward(self):
        q, k, v, g = self.headed(self.q.value, self.k.value, self.v.value, self.grad)
        y = self.split(self.value).swapaxes(1, 2)
        d = scores_gradient(self.a, v, g, y, self.scale)
        factors = (self.v, self.a, g), (self.q, d.swapaxes(2, 3), k), (self.k, d, q)
        varying = [(x, product(left, right)) for x, left, right in factors if x.varies]
        deltas = swapped(*[delta for _, delta in varying])
        for (x, _), delta in zip(varying, deltas, strict=True):
            x.addgrad(delta.reshape(x.value.shape))
