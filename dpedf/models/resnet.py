"""Residual networks of small images: He et al., Deep residual learning, 2016, section 4.2."""

import numpy as np

from dpedf.edf import Package, Parameter
from dpedf.errors import UserError
from dpedf.models.expect import positive
from dpedf.models.images import with_channels
from dpedf.models.output import classifier_or_regression, outputs
from dpedf.ops import (
    Affine,
    BatchNorm,
    Conv2D,
    Crop,
    Cutout,
    Flip,
    GlobalAveragePool,
    Pad,
    Relu,
    Slice,
)
from dpedf.phi import Uniform, dense, glorot, he


def normalized(z, J, stride=1):
    """BatchNorm of a convolution by 3 x 3, of J channels; it has a bias, the convolution none."""
    I = z.value.shape[1]
    Phi = Package(w=Uniform((J, I, 3, 3), he(9 * I, 9 * J)))
    norm = Package(w=Parameter(np.ones(J)), b=Parameter(np.zeros(J)))
    return BatchNorm(norm, Conv2D(Phi, z, stride, padding=1))


def shortcut(z, J, stride):
    """z, or some lines and columns of it, and zeros as further channels: option A of the paper."""
    if stride > 1:
        z = Slice(z, (..., slice(None, None, stride), slice(None, None, stride)))
    more = J - z.value.shape[1]
    return Pad(z, [(0, more), (0, 0), (0, 0)]) if more else z


def block(z, J, stride):
    """Two convolutions, whose sum with z is rectified."""
    inner = Relu(normalized(z, J, stride))
    return Relu(normalized(inner, J) + shortcut(z, J, stride))


def resnet(x, y, depth=20, width=16, crop=4, flip=0.5, cutout=0, smoothing=0.0, class_weights=()):
    """ResNet-20, 32, 44, 56, 110 for CIFAR: three stages of blocks, each of half as many lines.

    depth: layers that learn, 6n + 2 for n blocks in a stage.  width: channels of the first stage;
    the next two have twice and four times as many.  In training an image is cropped after padding
    by `crop`, flipped with probability `flip`, and loses a square of size `cutout`.
    """
    positive(depth=depth, width=width)
    if depth % 6 != 2 or depth < 8:
        raise UserError(f"model.depth = {depth}, expected 6n + 2: 8, 14, 20, 32, 44, 56, 110")
    z = Cutout(Flip(Crop(with_channels(x, "resnet"), crop), flip), cutout)
    for name, size in ("crop", crop), ("cutout", cutout):
        if size > (most := min(z.value.shape[2:])):
            raise UserError(f"model.{name} = {size}, expected at most {most}: x is {x.shape}")
    z = Relu(normalized(z, width))
    for stage in range(3):
        for number in range(depth // 6):
            z = block(z, width * 2**stage, stride=2 if stage and not number else 1)
    s = Affine(dense(z.value.shape[1], outputs(y), glorot), GlobalAveragePool(z))
    return classifier_or_regression(s, y, smoothing, class_weights)
