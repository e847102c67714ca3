"""Affine: what a layer of weights computes."""

from dpedf.edf import CompNode, context
from dpedf.kernels import floats
from dpedf.kernels.gemm import matrix
from dpedf.kernels.slices import affine_of_rows, product_of_rows


class Affine(CompNode):
    """y[b,...,j] = sum_i x[b,...,i] W[i,j] - C[j]

    x.grad[b,...,i] += sum_j y.grad[b,...,j] W[i,j]
    W.grad[i,j] += sum_b,... x[b,...,i] y.grad[b,...,j]
    C.grad[j] -= sum_b,... y.grad[b,...,j]

    Phi.w: W, (I, J); Phi.b: C, (J,); x: (B, ..., I); y: (B, ..., J)
    """

    def __init__(self, Phi, x):
        self.Phi, self.x = Phi, x

    def forward(self):
        x, W = self.x.value, self.Phi.w.value
        y = affine_of_rows(*floats(matrix(x), W), self.Phi.b.value, context.slices)
        self.value = y if x.ndim == 2 else y.reshape(*x.shape[:-1], W.shape[1])

    def backward(self):
        g, x = matrix(self.grad), self.x
        if x.varies:
            x.addgrad(product_of_rows(g, self.Phi.w.value.T, context.slices).reshape(x.value.shape))
        self.Phi.w.addproduct(*floats(matrix(x.value), g))
        self.Phi.b.addrows(g, -1)
