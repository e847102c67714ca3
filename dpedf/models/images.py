"""Models of images, (B, I, H, W)."""

from math import prod

import numpy as np

from dpedf.edf import Package, Parameter
from dpedf.errors import UserError
from dpedf.models.expect import labels, positive
from dpedf.models.mlp import MLP
from dpedf.ops import Affine, Conv2D, Flatten, LogLoss, MaxPool, Relu, Reshape, Softmax
from dpedf.phi import Uniform, dense, glorot, he

COLOURS = 1, 3, 4  # channels of most images, which no width is


def conv(I, J, size, bound=he, name=None):
    """A package for Conv2D: w, (J, I, size, size), uniform; b, (J,), zero.  bound: as of affine."""
    w = Uniform((J, I, size, size), bound(I * size**2, J * size**2))
    return Package(name, w=w, b=Parameter(np.zeros(J)))


def lenet(x, y, channels=(6, 16), hidden=(120, 84), padding=2):
    """LeNet-5 with relu, max-pool, softmax and a dense second convolution: LeCun et al., 1998.

    channels: of the two convolutions, 5 x 5.  hidden: sizes of the layers after them.  padding:
    zeros around x, which was 32 x 32 in 1998.
    """
    positive(channels=channels, hidden=hidden)
    labels(y)
    if len(channels) != 2:
        raise UserError(f"model.channels = {channels}, expected two numbers")
    if len(x.shape) == 2:  # of one channel, which has no index
        x, (I, H, W) = Reshape(x, (1, *x.shape)), (1, *x.shape)
    elif len(x.shape) == 3:
        I, H, W = x.shape
        if W in COLOURS and I not in COLOURS:
            found = f"model.build = lenet: x is {x.shape}"
            raise UserError(f"{found}, expected (I, H, W), the channels first")
    else:
        raise UserError(f"model.build = lenet: x is {x.shape}, expected (H, W) or (I, H, W)")
    J, K = channels
    z = Relu(MaxPool(Conv2D(conv(I, J, 5), x, padding=padding), 2))
    z = Relu(MaxPool(Conv2D(conv(J, K, 5), z), 2))
    sizes = [prod(z.value.shape[1:]), *hidden]
    packages = [dense(*pair, he) for pair in zip(sizes, sizes[1:], strict=False)]
    Q = Softmax(Affine(dense(sizes[-1], y.classes, glorot), MLP(packages, Flatten(z), Relu)))
    return Q, LogLoss(Q, y)
