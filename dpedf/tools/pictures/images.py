"""What of a model and of its rows are images."""

from math import isqrt, prod

import numpy as np

from dpedf.device import host
from dpedf.edf import CompNodes
from dpedf.errors import UserError
from dpedf.models.images import COLOURS
from dpedf.program import inputs_of, kind

SMALLEST = 64  # numbers of a vector that is taken for an image
SIDE = 256


def channels(x):
    """An image x as (I, H, W), whose channels may come first or last; a vector has to be square.

    UserError: it is none.
    """
    if x.ndim == 1 and x.size >= SMALLEST and isqrt(x.size) ** 2 == x.size:
        return x.reshape(1, isqrt(x.size), -1)
    if x.ndim == 2 and x.size:
        return x[None]
    if x.ndim == 3 and x.size:
        last = x.shape[2] in COLOURS and x.shape[0] not in COLOURS
        return np.moveaxis(x, 2, 0) if last else x
    found = f"x of {x.shape}, expected images"
    raise UserError(f"{found}: (H, W), (I, H, W), (H, W, I), or a vector of N * N numbers")


def small(image):
    """An image (..., I, H, W) with at most some SIDE numbers along an axis, as a picture needs."""
    step = max(1, max(image.shape[-2:]) // SIDE)
    return image[..., ::step, ::step]


def first_layer(model, most):
    """(name, J, weights) of the first layer of a Trained model, of which J units see an image.

    weights: of the first of them, at most so many, (units, I, H, W).  The layer is the first
    parameter, in the order of the program, that has a number for each of x and each unit j,
    (I*H*W, J), or the first kernels of a convolution.  UserError: there is neither.
    """
    x = model.x
    if x.classes is not None:
        raise UserError("data.window > 0: a model of text, expected one of images")
    image = channels(np.empty(x.shape, np.uint8))
    held = (i for n in CompNodes(model.ell) for i in inputs_of(n))  # frozen parameters too
    for p in (i for i in held if kind(i) == "parameter"):
        W = host(p.value)
        if W.ndim == 4 and W.shape[1] == len(image):
            return p.name, len(W), W[:most]
        if W.ndim == 2 and len(W) == prod(x.shape):
            seen = [channels(w.reshape(x.shape)) for w in W.T[:most]]
            return p.name, W.shape[1], np.stack(seen)
    expected = f"weights ({prod(x.shape)}, J) or kernels (J, {len(image)}, K, K)"
    raise UserError(f"no parameter sees an image as a whole or in windows, expected {expected}")
