"""An autoencoder: x through a short code, and back."""

from math import prod

import numpy as np

from dpedf.edf import Package, Parameter
from dpedf.errors import UserError
from dpedf.models.mlp import ACTIVATIONS, MLP
from dpedf.ops import Affine, Flatten, Sigmoid, SquareLoss, Transpose
from dpedf.phi import affine


def autoencoder(x, y, sizes, activation="relu"):
    """x, of numbers in 0..1, decoded from a code by the weights that encoded it, transposed.

    sizes: of x, of each layer, and last of the code, which is Affine; the labels y are not looked
    at.  The output is (B, sizes[0]).
    """
    if sizes[0] != prod(x.shape):
        raise UserError(f"model.sizes[0] = {sizes[0]}, expected {prod(x.shape)}: x is {x.shape}")
    Activation, bound = ACTIVATIONS[activation]
    encoder = [affine(*pair, bound) for pair in zip(sizes, sizes[1:], strict=False)]
    decoder = [
        Package(w=Transpose(Phi.w), b=Parameter(np.zeros(len(Phi.w.value))))
        for Phi in reversed(encoder)
    ]
    x = Flatten(x)
    code = Affine(encoder[-1], MLP(encoder[:-1], x, Activation))
    output = Sigmoid(Affine(decoder[-1], MLP(decoder[:-1], code, Activation)))
    return output, SquareLoss(output, x)
