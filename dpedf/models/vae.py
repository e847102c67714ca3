"""A variational autoencoder: x through a random code of a few numbers, and back."""

import numpy as np

from dpedf.errors import UserError
from dpedf.models import expect
from dpedf.models.mlp import ACTIVATIONS, MLP
from dpedf.ops import Affine, Exp, Flatten, Log, Normal, Sigmoid, Square, Sum
from dpedf.phi import dense


def narrow(I, J):
    """A bound for weights (I, J) closer to 0 than usual, so that the KL term starts small."""
    return I**-0.5


def vae(x, y, sizes, latent=20, activation="relu"):
    """x, of probabilities or of 0 and 1, by way of z ~ N(mean, exp(log_variance)), (B, latent).

    sizes: of x, and of each layer of the encoder; the decoder has the same, in reverse.  The output
    is the probability of 1, (B, sizes[0]).  The labels y are not used.  ell, in nats, is a bound of
    -log p(x): the reconstruction, of one draw of z, plus the KL divergence of z from N(0, 1).
    Kingma and Welling, Auto-encoding variational Bayes, 2014.
    """
    Activation, _ = expect.layers(sizes, activation, ACTIVATIONS, x)
    expect.positive(latent=latent)
    if x.dtype is not None and np.dtype(x.dtype).kind != "f":
        raise UserError(f"model.build = vae: x is {np.dtype(x.dtype)}, expected numbers in 0..1")
    x.within = 0, 1  # of which some rows are looked at (run/build.py)
    encoder = [dense(*pair, narrow) for pair in zip(sizes, sizes[1:], strict=False)]
    back = [latent, *reversed(sizes)]
    decoder = [dense(*pair, narrow) for pair in zip(back, back[1:], strict=False)]

    v = Flatten(x)
    h = MLP(encoder, v, Activation)
    mean = Affine(dense(sizes[-1], latent, narrow, "mean"), h)
    log_variance = Affine(dense(sizes[-1], latent, narrow, "log_variance"), h)
    z = mean + Exp(log_variance / 2) * Normal(x, latent)
    Q = Sigmoid(Affine(decoder[-1], MLP(decoder[:-1], z, Activation)))

    reconstruction = -Sum(v * Log(Q) + (1 - v) * Log(1 - Q))
    kl = Sum(Square(mean) + Exp(log_variance) - log_variance - 1) / 2
    return Q, reconstruction + kl, {"reconstruction": reconstruction, "kl": kl}
