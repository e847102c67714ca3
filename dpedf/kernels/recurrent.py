"""The cells of recurrent layers, whose equations are in the docstrings of ops/recurrent.py."""

import numpy as np

from dpedf.kernels import Kernels, function, on_gpu
from dpedf.kernels.activation import sigmoid

cuda = Kernels("recurrent.cu")


def by_rows(*matrices):
    """These with contiguous rows, copied if need be, and the stride of each, in numbers."""
    if len({x.dtype for x in matrices}) > 1:
        raise ValueError(f"{', '.join(str(x.dtype) for x in matrices)}, expected one type")
    lie = [x if x.strides[1] == x.itemsize else x.copy() for x in matrices]
    return lie, [x.strides[0] // x.itemsize for x in lie]


@function
def lstm_cell(x, z, s):
    """y, and what lstm_cell_gradient reads: the gates i, f, o, g side by side, and tanh(y[:, :J])

    x, z: (B, 4J); s: (B, 2J).  Returns (B, 2J), (B, 4J), (B, J).
    """
    J = s.shape[1] // 2
    a = x + z
    g = np.tanh(a[:, 3 * J :])
    sigmoid(a, out=a)  # of all columns, which is faster than of some
    a[:, 3 * J :] = g
    y = np.empty_like(s)
    c = np.multiply(a[:, J : 2 * J], s[:, :J], out=y[:, :J])
    c += a[:, :J] * g
    tanh = np.tanh(c)
    np.multiply(a[:, 2 * J : 3 * J], tanh, out=y[:, J:])
    return y, a, tanh


@on_gpu(lstm_cell)
def lstm_cell_on_gpu(x, z, s):
    B, J = len(s), s.shape[1] // 2
    (x, z, s), strides = by_rows(x, z, s)
    y, gates, tanh = (np.empty((B, n * J), s.dtype, like=s) for n in (2, 4, 1))
    cuda.lstm_cell(B * J, x, z, s, y, gates, tanh, B, J, *strides)
    return y, gates, tanh


@function
def lstm_cell_gradient(gates, tanh, s, g):
    """d, what is added to x.grad and z.grad, and what is added to s.grad

    gates, tanh: from lstm_cell; s: (B, 2J); g: y.grad, (B, 2J).  Returns (B, 4J), (B, 2J).
    """
    a, J = gates, tanh.shape[1]
    i, f, o, new = (a[:, k * J : (k + 1) * J] for k in range(4))
    dh, c = g[:, J:], s[:, :J]
    dc = np.square(tanh)
    np.subtract(1, dc, out=dc)
    dc *= o
    dc *= dh
    dc += g[:, :J]
    slopes = np.square(a)  # sigmoid' = sigmoid - sigmoid**2,  tanh' = 1 - tanh**2
    np.subtract(a[:, : 3 * J], slopes[:, : 3 * J], out=slopes[:, : 3 * J])
    np.subtract(1, slopes[:, 3 * J :], out=slopes[:, 3 * J :])
    delta = np.empty_like(a)
    for k, factors in enumerate([(dc, new), (dc, c), (dh, tanh), (dc, i)]):
        np.multiply(*factors, out=delta[:, k * J : (k + 1) * J])
    delta *= slopes
    ds = np.zeros_like(s)
    np.multiply(dc, f, out=ds[:, :J])
    return delta, ds


@on_gpu(lstm_cell_gradient)
def lstm_cell_gradient_on_gpu(gates, tanh, s, g):
    (B, J), ((s, g), strides) = tanh.shape, by_rows(s, g)
    delta, ds = np.empty_like(gates), np.empty((B, 2 * J), s.dtype, like=s)
    cuda.lstm_cell_gradient(B * J, gates, tanh, s, g, delta, ds, B, J, *strides)
    return delta, ds


@function
def gru_cell(x, z, h):
    """y, and what gru_cell_gradient reads: r, u and n

    x, z: (B, 3J); h: (B, J).  Returns four of (B, J).
    """
    J = h.shape[1]
    gates = sigmoid(x[:, : 2 * J] + z[:, : 2 * J])
    r, u = gates[:, :J], gates[:, J:]
    n = np.tanh(x[:, 2 * J :] + r * z[:, 2 * J :])
    return n + u * (h - n), r, u, n


@on_gpu(gru_cell)
def gru_cell_on_gpu(x, z, h):
    (B, J), ((x, z, h), strides) = h.shape, by_rows(x, z, h)
    y, r, u, n = (np.empty((B, J), h.dtype, like=h) for _ in range(4))
    cuda.gru_cell(B * J, x, z, h, y, r, u, n, B, J, *strides)
    return y, r, u, n


@function
def gru_cell_gradient(r, u, n, z, h, g):
    """What is added to x.grad, to z.grad and to h.grad

    r, u, n: from gru_cell; z: (B, 3J); h: (B, J); g: y.grad, (B, J).  Returns two of (B, 3J) and
    one of (B, J).
    """
    J = h.shape[1]
    delta = np.empty_like(z)
    dr, du, dn = delta[:, :J], delta[:, J : 2 * J], delta[:, 2 * J :]
    dn[...] = g * (1 - u) * (1 - np.square(n))
    du[...] = g * (h - n) * u * (1 - u)
    dr[...] = dn * z[:, 2 * J :] * r * (1 - r)
    through = delta.copy()
    through[:, 2 * J :] *= r
    return delta, through, g * u


@on_gpu(gru_cell_gradient)
def gru_cell_gradient_on_gpu(r, u, n, z, h, g):
    (B, J), ((z, h, g), strides) = n.shape, by_rows(z, h, g)
    delta, through, dh = (np.empty((B, k * J), n.dtype, like=n) for k in (3, 3, 1))
    cuda.gru_cell_gradient(B * J, r, u, n, z, h, g, delta, through, dh, B, J, *strides)
    return delta, through, dh
