"""The cells of recurrent layers, which compute one position of a sequence after the other."""

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import floats
from dpedf.kernels.recurrent import (
    gru_cell,
    gru_cell_gradient,
    lstm_cell,
    lstm_cell_gradient,
)


class Zeros(CompNode):
    """y[b,i] = 0, for each b of x: what a recurrent layer begins with

    x.grad[b,...] += 0

    x: (B, ...); y: (B, I)
    """

    def __init__(self, x, I):
        self.x, self.I = x, I

    def forward(self):
        x = self.x.value
        self.value = np.zeros((len(x), self.I), x.dtype, like=x)

    def backward(self):
        """It does not depend on the numbers of x."""


class LSTMCell(CompNode):
    """y[b,j] = f[b,j] s[b,j] + i[b,j] g[b,j]
    y[b,J+j] = o[b,j] tanh(y[b,j])

    i[b,j] = sigmoid(x[b,j] + z[b,j])
    f[b,j] = sigmoid(x[b,J+j] + z[b,J+j])
    o[b,j] = sigmoid(x[b,2J+j] + z[b,2J+j])
    g[b,j] = tanh(x[b,3J+j] + z[b,3J+j])

    x.grad[b,k] += d[b,k]
    d[b,j] = c[b,j] g[b,j] i[b,j] (1 - i[b,j])
    d[b,J+j] = c[b,j] s[b,j] f[b,j] (1 - f[b,j])
    d[b,2J+j] = y.grad[b,J+j] tanh(y[b,j]) o[b,j] (1 - o[b,j])
    d[b,3J+j] = c[b,j] i[b,j] (1 - g[b,j]**2)
    c[b,j] = y.grad[b,j] + y.grad[b,J+j] o[b,j] (1 - tanh(y[b,j])**2)
    z.grad[b,k] += d[b,k]
    s.grad[b,j] += c[b,j] f[b,j]

    s and y are the state before and after: the cell, and beside it the output.  x and z are what
    the input and the output before contribute to the scores of the gates for input, memory and
    output, i, f and o, and of the new value g, side by side.  Hochreiter and Schmidhuber, 1997;
    Gers, Schmidhuber and Cummins, 2000

    s: (B, 2J); x, z: (B, 4J); y: (B, 2J)
    """

    def __init__(self, x, z, s):
        self.x, self.z, self.s = x, z, s

    def forward(self):
        x, z, s = floats(self.x.value, self.z.value, self.s.value)
        self.value, self.gates, self.tanh = lstm_cell(x, z, s)

    def backward(self):
        s, g = floats(self.s.value, self.grad)
        delta, ds = lstm_cell_gradient(self.gates, self.tanh, s, g)
        self.x.addgrad(delta)
        self.z.addgrad(delta)
        if self.s.varies:
            self.s.addgrad(ds)
            if self.s.grad is ds:  # which no other node has
                self.s.owns_grad = True


class GRUCell(CompNode):
    """y[b,j] = (1 - u[b,j]) n[b,j] + u[b,j] h[b,j]

    r[b,j] = sigmoid(x[b,j] + z[b,j])
    u[b,j] = sigmoid(x[b,J+j] + z[b,J+j])
    n[b,j] = tanh(x[b,2J+j] + r[b,j] z[b,2J+j])

    x.grad[b,k] += d[b,k]
    d[b,j] = c[b,j] z[b,2J+j] r[b,j] (1 - r[b,j])
    d[b,J+j] = y.grad[b,j] (h[b,j] - n[b,j]) u[b,j] (1 - u[b,j])
    d[b,2J+j] = c[b,j]
    c[b,j] = y.grad[b,j] (1 - u[b,j]) (1 - n[b,j]**2)
    z.grad[b,j] += d[b,j]
    z.grad[b,J+j] += d[b,J+j]
    z.grad[b,2J+j] += c[b,j] r[b,j]
    h.grad[b,j] += y.grad[b,j] u[b,j]

    x and z are what the input and h contribute to the scores of reset, update and new value, side
    by side.  Cho et al., 2014, with the reset after the product, as cuDNN and PyTorch have it

    x, z: (B, 3J); h: (B, J); y: (B, J)
    """

    def __init__(self, x, z, h):
        self.x, self.z, self.h = x, z, h

    def forward(self):
        x, z, h = floats(self.x.value, self.z.value, self.h.value)
        self.value, self.r, self.u, self.n = gru_cell(x, z, h)

    def backward(self):
        z, h, g = floats(self.z.value, self.h.value, self.grad)
        delta, through, dh = gru_cell_gradient(self.r, self.u, self.n, z, h, g)
        self.x.addgrad(delta)
        self.z.addgrad(through)
        self.h.addgrad(dh)
