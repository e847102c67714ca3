"""A model whose nodes mix the rows of a minibatch."""

import numpy as np

from dpedf.edf import Package, Parameter
from dpedf.ops import Affine, BatchNorm, Conv2D, Flatten, LogLoss, Reshape, Softmax, Tanh
from dpedf.phi import Uniform, dense


def scaled(J):
    """A package for BatchNorm."""
    return Package(w=Parameter(np.ones(J)), b=Parameter(np.zeros(J)))


def normalized(x, y):
    """BatchNorm of the channels of an image, and of the units of a layer."""
    kernels = Package(w=Uniform((3, 1, 3, 3), 0.8), b=Parameter(np.zeros(3)))
    z = Conv2D(kernels, Reshape(x, (1, *x.shape)))
    z = Flatten(Tanh(BatchNorm(scaled(3), z)))
    z = Tanh(BatchNorm(scaled(16), Affine(dense(z.value.shape[1], 16), z)))
    Q = Softmax(Affine(dense(16, y.classes), z))
    return Q, LogLoss(Q, y)
