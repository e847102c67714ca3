"""Affine: what a layer of weights computes."""

from dpedf.edf import CompNode
from dpedf.kernels.gemm import affine, product


class Affine(CompNode):
    """y[b,j] = sum_i x[b,i] W[i,j] - C[j]

    x.grad[b,i] += sum_j y.grad[b,j] W[i,j]
    W.grad[i,j] += sum_b x[b,i] y.grad[b,j]
    C.grad[j]   -= sum_b y.grad[b,j]

    Phi.w: W, (I, J); Phi.b: C, (J,); x: (B, I); y: (B, J)
    """

    def __init__(self, Phi, x):
        self.Phi, self.x = Phi, x

    def forward(self):
        self.value = affine(self.x.value, self.Phi.w.value, self.Phi.b.value)

    def backward(self):
        if self.x.varies:
            self.x.addgrad(product(self.grad, self.Phi.w.value.T))
        self.Phi.w.addproduct(self.x.value.T, self.grad)
        self.Phi.b.addgrad(-self.grad.sum(axis=0))
