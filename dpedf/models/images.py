"""Models of images, (B, I, H, W)."""

from math import prod

import numpy as np

from dpedf.edf import Package, Parameter
from dpedf.errors import UserError
from dpedf.models.expect import positive
from dpedf.models.mlp import MLP
from dpedf.models.output import classifier_or_regression, outputs
from dpedf.ops import (
    Affine,
    Conv2D,
    Dropout,
    Flatten,
    MaxPool,
    Relu,
    Reshape,
    Shift,
)
from dpedf.phi import Uniform, dense, glorot, he

COLOURS = 1, 3, 4  # channels of most images, which no width is


def conv(I, J, size, bound=he, name=None):
    """A package for Conv2D: w, (J, I, size, size), uniform; b, (J,), zero.  bound: as of affine."""
    w = Uniform((J, I, size, size), bound(I * size**2, J * size**2))
    return Package(name, w=w, b=Parameter(np.zeros(J)))


def with_channels(x, name):
    """x, (B, I, H, W); where it is (B, H, W), of one channel, which then has an index."""
    if len(x.shape) == 2:
        return Reshape(x, (1, *x.shape))
    if len(x.shape) != 3:
        raise UserError(f"model.build = {name}: x is {x.shape}, expected (H, W) or (I, H, W)")
    if x.shape[2] in COLOURS and x.shape[0] not in COLOURS:
        found = f"model.build = {name}: x is {x.shape}"
        raise UserError(f"{found}, expected (I, H, W), the channels first")
    return x


def convnet(
    x, y, channels=(16, 32), hidden=64, dropout=0.25, shift=0.1, smoothing=0.0, class_weights=()
):
    """For small images: convolutions of 3 x 3, one pooling, and a layer between two dropouts.

    channels: of each convolution.  In a step of training the part dropout of the values before a
    layer is 0, and the part shift of the images is moved by a pixel: up, down, left, and right.
    """
    positive(channels=channels, hidden=[hidden])
    z = Shift(with_channels(x, "convnet"), shift)
    for J in channels:
        z = Relu(Conv2D(conv(z.value.shape[1], J, 3), z, padding=1))
    z = Dropout(Flatten(MaxPool(z, 2)), dropout)
    z = Dropout(Relu(Affine(dense(z.value.shape[1], hidden, he), z)), dropout)
    s = Affine(dense(hidden, outputs(y), glorot), z)
    return classifier_or_regression(s, y, smoothing, class_weights)


def lenet(x, y, channels=(6, 16), hidden=(120, 84), padding=2, smoothing=0.0, class_weights=()):
    """LeNet-5 with relu, max-pool, softmax and a dense second convolution: LeCun et al., 1998.

    channels: of the two convolutions, 5 x 5.  hidden: sizes of the layers after them.  padding:
    zeros around x, which was 32 x 32 in 1998.
    """
    positive(channels=channels, hidden=hidden)
    if len(channels) != 2:
        raise UserError(f"model.channels = {channels}, expected two numbers")
    x = with_channels(x, "lenet")
    I, J, K = x.value.shape[1], *channels
    z = Relu(MaxPool(Conv2D(conv(I, J, 5), x, padding=padding), 2))
    z = Relu(MaxPool(Conv2D(conv(J, K, 5), z), 2))
    sizes = [prod(z.value.shape[1:]), *hidden]
    packages = [dense(*pair, he) for pair in zip(sizes, sizes[1:], strict=False)]
    s = Affine(dense(sizes[-1], outputs(y), glorot), MLP(packages, Flatten(z), Relu))
    return classifier_or_regression(s, y, smoothing, class_weights)
