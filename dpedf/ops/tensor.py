"""Nodes that act on whole indices."""

from math import prod

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels.gemm import product
from dpedf.ops.broadcast import aligned, send


class Flatten(CompNode):
    """y[b,i] = x[b,...], the indices after b as one

    x.grad[b,...] += y.grad[b,i]
    """

    def __init__(self, x):
        self.x = x

    def forward(self):
        B, *shape = self.x.value.shape
        self.value = self.x.value.reshape(B, prod(shape))

    def backward(self):
        self.x.addgrad(self.grad.reshape(self.x.value.shape))


class MatMul(CompNode):
    """z[b,i,j] = sum_k x[b,i,k] y[b,k,j]

    x.grad[b,i,k] += sum_j z.grad[b,i,j] y[b,k,j]
    y.grad[b,k,j] += sum_i x[b,i,k] z.grad[b,i,j]

    x may lack i, y may lack j, and either may lack b (a parameter); z lacks the same.
    """

    def __init__(self, x, y):
        self.x, self.y = x, y

    def matrices(self):
        """x as (..., i, k), y as (..., k, j), and the axes of z that neither of them has."""
        x, y = self.x, self.y
        a, b, lacking = x.value, y.value, ()
        if a.ndim == 1 or (a.ndim == 2 and x.batched and y.batched):
            a, lacking = np.expand_dims(a, -2), (-2,)
        if b.ndim - y.batched == 1:
            b, lacking = np.expand_dims(b, -1), (*lacking, -1)
        if y.batched:  # otherwise b is one more row index of x: one product for all
            a, b = aligned((x, a), (y, b))
        return a, b, lacking

    def forward(self):
        a, b, lacking = self.matrices()
        self.value = np.squeeze(product(a, b), axis=lacking)

    def backward(self):
        a, b, lacking = self.matrices()
        g = np.expand_dims(self.grad, lacking)
        if self.x.varies:
            send(self.x, product(g, b.swapaxes(-1, -2)), a)
        if self.y.varies:
            if not self.y.batched:
                a, g = a.reshape(-1, a.shape[-1]), g.reshape(-1, g.shape[-1])
            send(self.y, product(a.swapaxes(-1, -2), g), b)
