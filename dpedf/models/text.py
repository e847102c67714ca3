"""Models of language: x[b,t] is a symbol, and y[b,t] the one after it."""

import numpy as np

from dpedf.edf import Package, Parameter
from dpedf.errors import UserError
from dpedf.models.expect import positive
from dpedf.ops import (
    Affine,
    Attention,
    Concat,
    Embedding,
    Gelu,
    GRUCell,
    LayerNorm,
    LogLoss,
    LSTMCell,
    MatMul,
    Reshape,
    Slice,
    Softmax,
    Transpose,
    Zeros,
)
from dpedf.phi import Uniform, dense, glorot


def embedded(x, size, bound):
    """W, (x.classes, size), and the row of it for each symbol of x.  UserError: there are none."""
    if x.classes is None:
        raise UserError("model.build: x holds no symbols, expected a text, and data.window")
    W = Uniform((x.classes, size), bound)
    return W, Embedding(W, x)


def LSTM(Phi, x):
    """h[b,t,j], the outputs of a long short-term memory for x[b,t,i].  Phi: w, b for x; u for h."""
    z, T, J = Affine(Phi, x), x.value.shape[1], len(Phi.u.value)
    state, h, outputs = Zeros(z, 2 * J), Zeros(z, J), []
    for t in range(T):
        state = LSTMCell(Slice(z, t), h @ Phi.u, state)
        h = Slice(state, slice(J, None))
        outputs.append(h)
    return Reshape(Concat(outputs), (T, J))


def GRU(Phi, Psi, x):
    """h[b,t,j], the outputs of gated recurrent units for x[b,t,i].  Phi: for x; Psi: for h."""
    z, T, J = Affine(Phi, x), x.value.shape[1], len(Psi.w.value)
    h, outputs = Zeros(z, J), []
    for t in range(T):
        h = GRUCell(Slice(z, t), Affine(Psi, h), h)
        outputs.append(h)
    return Reshape(Concat(outputs), (T, J))


def char_lstm(x, y, embedding=64, hidden=192):
    """Softmax(Affine(Phi, LSTM(Embedding(x)))): embedding and hidden are sizes."""
    positive(embedding=embedding, hidden=hidden)
    J, bound = hidden, hidden**-0.5
    z = embedded(x, embedding, 1.0)[1]
    b = np.zeros(4 * J)
    b[J : 2 * J] = -1  # subtracted: at first the cells remember
    Phi = Package(
        w=Uniform((embedding, 4 * J), bound), u=Uniform((J, 4 * J), bound), b=Parameter(b)
    )
    Q = Softmax(Affine(dense(J, x.classes, glorot), LSTM(Phi, z)))
    return Q, LogLoss(Q, y)


def char_gru(x, y, embedding=64, hidden=192):
    """Softmax(Affine(Phi, GRU(Embedding(x)))): embedding and hidden are sizes."""
    positive(embedding=embedding, hidden=hidden)
    z = embedded(x, embedding, 1.0)[1]
    Phi, Psi = (dense(I, 3 * hidden, lambda I, J: hidden**-0.5) for I in (embedding, hidden))
    Q = Softmax(Affine(dense(hidden, x.classes, glorot), GRU(Phi, Psi, z)))
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
