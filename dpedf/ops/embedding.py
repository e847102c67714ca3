"""Labels as vectors.

A label that there is not is a ValueError on a CPU; on a GPU, where a look at labels would wait, it
is not noticed.
"""

import numpy as np

from dpedf.edf import CompNode, context
from dpedf.kernels.embedding import scattered
from dpedf.kernels.labels import expect_labels
from dpedf.ops.indices import whole_one


class Embedding(CompNode):
    """y[b,...,i] = W[x[b,...],i]

    W.grad[x[b,...],i] += y.grad[b,...,i]

    W: (J, I); x: (B, ...), of 0..J-1; y: (B, ..., I)
    """

    def __init__(self, W, x):
        self.W, self.x = W, x

    def forward(self):
        W, x = self.W.value, self.x.value
        expect_labels(x, len(W), "Embedding")
        self.labels = x.astype(np.intp, copy=False)  # as NumPy would
        self.value = W.take(self.labels, axis=0)

    def backward(self):
        (J, I), x = self.W.value.shape, self.labels
        rows = self.grad.reshape(x.size, I), x.reshape(x.size)
        for these, *parts in context.slices.cut(*rows):
            self.W.addslices(these, scattered(*parts, J))


class Codes(CompNode):
    """y[b,...] = x[b,...], as integers, such as Embedding takes

    of a table, in which the codes of categories stand among numbers: they arrive as floats, which
    are whole numbers.
    """

    def __init__(self, x):
        self.x = x

    def forward(self):
        self.value = np.rint(self.x.value).astype(np.intp)

    def backward(self):
        """Codes do not vary."""


class OneHot(CompNode):
    """y[b,...,j] = [x[b,...] = j], in float32, which never changes the dtype of a graph

    x: (B, ...), of 0..J-1; y: (B, ..., J)
    """

    def __init__(self, x, J):
        self.x, self.J = x, whole_one(self, J)

    def forward(self):
        x = self.x.value
        expect_labels(x, self.J, "OneHot")
        self.value = (np.expand_dims(x, -1) == np.arange(self.J, like=x)).astype(np.float32)

    def backward(self):
        """Labels do not vary."""
