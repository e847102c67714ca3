"""Noise: what a model draws for itself."""

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import floats
from dpedf.ops.draws import normal
from dpedf.ops.indices import whole_one


class Normal(CompNode):
    """y[b,i] = e[b,i], drawn from N(0, 1), for each b of x

    x.grad[b,...] += 0

    Drawn anew in each step, in evaluation too, the same for any split of the rows;
    `with dpedf.program.during(seed=1):` seeds a loop of one's own.

    x: (B, ...); y: (B, I)
    """

    def __init__(self, x, I):
        self.x, self.I = x, whole_one(self, I)
        if self.I < 1:
            raise ValueError(f"Normal by {I}, expected 1 or more numbers")

    def forward(self):
        (x,) = floats(self.x.value)
        self.e = normal(self, np.empty_like(x, shape=(*x.shape[: self.x.batched], self.I)))
        self.value = self.e

    def backward(self):
        """It does not depend on the numbers of x."""
