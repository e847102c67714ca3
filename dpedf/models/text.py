"""Models of language: x[b,t] is a symbol, and y[b,t] the one after it."""

import numpy as np

from dpedf.edf import Package, Parameter
from dpedf.errors import UserError
from dpedf.models.expect import positive
from dpedf.models.recurrent import GRU, LSTM, gru, lstm
from dpedf.ops import (
    Affine,
    Attention,
    Embedding,
    Gelu,
    LayerNorm,
    LogLoss,
    MatMul,
    Softmax,
    Transpose,
)
from dpedf.phi import Uniform, dense, glorot


def embedded(x, size, bound):
    """W, (x.classes, size), and the row of it for each symbol of x.  UserError: there are none."""
    if x.classes is None:
        raise UserError("model.build: x holds no symbols, expected a text, and data.window")
    W = Uniform((x.classes, size), bound)
    return W, Embedding(W, x)


def char_lstm(x, y, embedding=64, hidden=192):
    """Softmax(Affine(Phi, LSTM(Embedding(x)))): embedding and hidden are sizes."""
    positive(embedding=embedding, hidden=hidden)
    z = embedded(x, embedding, 1.0)[1]
    h = LSTM(lstm(embedding, hidden), z)
    Q = Softmax(Affine(dense(hidden, x.classes, glorot), h))
    return Q, LogLoss(Q, y)


def char_gru(x, y, embedding=64, hidden=192):
    """Softmax(Affine(Phi, GRU(Embedding(x)))): embedding and hidden are sizes."""
    positive(embedding=embedding, hidden=hidden)
    z = embedded(x, embedding, 1.0)[1]
    h = GRU(*gru(embedding, hidden), z)
    Q = Softmax(Affine(dense(hidden, x.classes, glorot), h))
    return Q, LogLoss(Q, y)


def char_transformer(x, y, layers=4, heads=4, width=128):
    """A GPT: Radford et al., 2019, its weights tied between embedding and scores, no dropout."""
    positive(layers=layers, heads=heads, width=width)
    T, I = x.shape[0], width

    def small(*sizes):
        return 0.02 * 3**0.5  # a standard deviation of 0.02

    def last(*sizes):
        return small() / (2 * layers) ** 0.5  # of what is added to the sum that layers make

    def norm(z):
        return LayerNorm(Package(w=Parameter(np.ones(I)), b=Parameter(np.zeros(I))), z)

    W, z = embedded(x, I, small())
    z = z + Uniform((T, I), small())
    for _ in range(layers):
        n = norm(z)
        q, k, v = (Affine(dense(I, I, small), n) for _ in range(3))
        z = z + Affine(dense(I, I, last), Attention(q, k, v, heads, causal=True))
        n = norm(z)
        z = z + Affine(dense(4 * I, I, last), Gelu(Affine(dense(I, 4 * I, small), n)))
    Q = Softmax(MatMul(norm(z), Transpose(W)))
    return Q, LogLoss(Q, y)
