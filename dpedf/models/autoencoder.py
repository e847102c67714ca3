"""An autoencoder: x through a short code, and back."""

import numpy as np

from dpedf.edf import Package, Parameter
from dpedf.models import expect
from dpedf.models.mlp import ACTIVATIONS, MLP
from dpedf.ops import Affine, Flatten, Sigmoid, SquareLoss, Transpose
from dpedf.phi import dense


def autoencoder(x, y, sizes, activation="relu"):
    """x, of numbers in 0..1, encoded, and decoded by the same weights, transposed.

    sizes: of x, of each layer, and last of the code, which is Affine.  The labels y are not used.
    The output is (B, sizes[0]).
    """
    Activation, bound = expect.layers(sizes, activation, ACTIVATIONS, x)
    encoder = [dense(*pair, bound) for pair in zip(sizes, sizes[1:], strict=False)]
    decoder = [
        Package(w=Transpose(Phi.w), b=Parameter(np.zeros(len(Phi.w.value))))
        for Phi in reversed(encoder)
    ]
    x = Flatten(x)
    code = Affine(encoder[-1], MLP(encoder[:-1], x, Activation))
    output = Sigmoid(Affine(decoder[-1], MLP(decoder[:-1], code, Activation)))
    return output, SquareLoss(output, x)
