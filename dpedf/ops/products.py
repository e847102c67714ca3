"""Sums of products: of matrices, and in index notation."""

import numpy as np

from dpedf.edf import CompNode, context
from dpedf.kernels import floats, packed
from dpedf.kernels.gemm import matrix, product
from dpedf.kernels.slices import product_of_rows
from dpedf.ops.broadcast import aligned, send


class MatMul(CompNode):
    """z[b,...,i,j] = sum_k x[b,...,i,k] y[b,...,k,j]

    x.grad[b,...,i,k] += sum_j z.grad[b,...,i,j] y[b,...,k,j]
    y.grad[b,...,k,j] += sum_i x[b,...,i,k] z.grad[b,...,i,j]

    x may lack i, y may lack j, and either may lack b (a parameter); z lacks the same.  Indices
    between b and these broadcast.
    """

    def __init__(self, x, y):
        self.x, self.y = x, y

    def equations(self):
        """Those of the indices that x and y have."""
        i, j = (a * (n.value.ndim - n.batched > 1) for a, n in (("i", self.x), ("j", self.y)))
        x, y, z = (",".join(["b", "...", *letters]) for letters in (i + "k", "k" + j, i + j))
        return f"""z[{z}] = sum_k x[{x}] y[{y}]

        x.grad[{x}] += z.grad[{z}] y[{y}]
        y.grad[{y}] += x[{x}] z.grad[{z}]"""

    def matrices(self):
        """x as (..., i, k), y as (..., k, j), and the axes of z that neither of them has."""
        x, y = self.x, self.y
        (a, b), lacking = floats(x.value, y.value), ()
        if a.ndim <= x.batched or b.ndim <= y.batched:
            raise ValueError("expected x and y with an index after b, to be summed over")
        one_for_all = not y.batched and b.ndim <= 2  # b is one more row index of x
        if a.ndim == 1 or (a.ndim == 2 and x.batched and not one_for_all):
            a, lacking = np.expand_dims(a, -2), (-2,)
        if b.ndim - y.batched == 1:
            b, lacking = np.expand_dims(b, -1), (*lacking, -1)
        if not one_for_all:
            a, b = aligned((x, packed(a)), (y, packed(b)))
        return a, b, lacking

    def forward(self):
        a, b, lacking = self.matrices()
        if b.ndim == 2:
            z = product_of_rows(matrix(a), b, context.slices).reshape(*a.shape[:-1], b.shape[-1])
        else:
            z = product(a, b)
        self.value = np.squeeze(z, axis=lacking)

    def backward(self):
        a, b, lacking = self.matrices()
        g = np.expand_dims(self.grad, lacking)
        if b.ndim == 2:
            a, g = matrix(a), matrix(g)
            if self.x.varies:
                self.x.addgrad(product_of_rows(g, b.T, context.slices).reshape(self.x.value.shape))
            self.y.addproduct(a, g)
            return
        g = packed(g)
        if self.x.varies:
            send(self.x, product(g, b.swapaxes(-1, -2)), a)
        if self.y.varies:
            send(self.y, product(a.swapaxes(-1, -2), g), b)
