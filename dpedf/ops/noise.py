"""Noise: what a model draws for itself."""

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import floats
from dpedf.ops.draws import normal
from dpedf.ops.indices import whole


class Normal(CompNode):
    """y[b,...] = e[b,...], drawn from N(0, 1), for each b of x

    x.grad[b,...] += 0

    Drawn anew in each step, in evaluation too, the same for any split of the rows;
    `with dpedf.program.during(seed=1):` seeds a loop of one's own.

    shape: that of a row of y; by default, that of x
    """

    def __init__(self, x, shape=None):
        self.x, self.shape = x, shape if shape is None else whole(self, shape)

    def forward(self):
        (x,) = floats(self.x.value)
        b, row = x.shape[: self.x.batched], x.shape[self.x.batched :]
        shape = row if self.shape is None else self.shape
        self.value = self.e = normal(self, np.empty_like(x, shape=(*b, *shape)))

    def backward(self):
        """It does not depend on the numbers of x."""
