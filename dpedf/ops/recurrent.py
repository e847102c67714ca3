"""The cells of recurrent layers, which compute one position of a sequence after the other."""

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels.activation import sigmoid


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
        s = self.s.value
        J = s.shape[1] // 2
        self.gates = a = self.x.value + self.z.value
        a[:, 3 * J :] *= 2  # tanh(a) = 2 sigmoid(2a) - 1: one exp for all
        sigmoid(a, out=a)
        g = a[:, 3 * J :]
        g *= 2
        g -= 1
        y = np.empty_like(s)
        c = np.multiply(a[:, J : 2 * J], s[:, :J], out=y[:, :J])
        c += a[:, :J] * g
        self.tanh = np.tanh(c)
        np.multiply(a[:, 2 * J : 3 * J], self.tanh, out=y[:, J:])
        self.value = y

    def backward(self):
        a, tanh = self.gates, self.tanh
        J = tanh.shape[1]
        i, f, o, g = (a[:, k * J : (k + 1) * J] for k in range(4))
        dh, c = self.grad[:, J:], self.s.value[:, :J]
        dc = np.square(tanh)
        np.subtract(1, dc, out=dc)
        dc *= o
        dc *= dh
        dc += self.grad[:, :J]
        slopes = np.square(a)  # sigmoid' = sigmoid - sigmoid**2,  tanh' = 1 - tanh**2
        np.subtract(a[:, : 3 * J], slopes[:, : 3 * J], out=slopes[:, : 3 * J])
        np.subtract(1, slopes[:, 3 * J :], out=slopes[:, 3 * J :])
        delta = np.empty_like(a)
        for k, factors in enumerate([(dc, g), (dc, c), (dh, tanh), (dc, i)]):
            np.multiply(*factors, out=delta[:, k * J : (k + 1) * J])
        delta *= slopes
        self.x.addgrad(delta)
        self.z.addgrad(delta)
        dc *= f
        if self.s.varies:
            part = self.s.own_grad()[:, :J]
            part += dc


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
        x, z, h = self.x.value, self.z.value, self.h.value
        J = h.shape[1]
        gates = sigmoid(x[:, : 2 * J] + z[:, : 2 * J])
        self.r, self.u = gates[:, :J], gates[:, J:]
        self.n = np.tanh(x[:, 2 * J :] + self.r * z[:, 2 * J :])
        self.value = self.n + self.u * (h - self.n)

    def backward(self):
        g, r, u, n, h = self.grad, self.r, self.u, self.n, self.h.value
        J = h.shape[1]
        delta = np.empty_like(self.z.value)
        dr, du, dn = delta[:, :J], delta[:, J : 2 * J], delta[:, 2 * J :]
        dn[...] = g * (1 - u) * (1 - np.square(n))
        du[...] = g * (h - n) * u * (1 - u)
        dr[...] = dn * self.z.value[:, 2 * J :] * r * (1 - r)
        self.x.addgrad(delta)
        through = delta.copy()
        through[:, 2 * J :] *= r
        self.z.addgrad(through)
        self.h.addgrad(g * u)
