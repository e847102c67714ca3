"""Softmax and its log loss, which together are stable where Q is 0."""

import numpy as np

from dpedf.kernels import Kernels, function, on_gpu, packed
from dpedf.kernels.labels import expect_integers

cuda = Kernels("softmax.cu")


@function
def softmax(s):
    """Q[b,j] = exp(shifted[b,j]) / Z[b],  shifted[b,j] = s[b,j] - max_k s[b,k]

    s: (B, J).  Returns Q, shifted: (B, J), and Z: (B,).
    """
    # In memory j is the outer index: NumPy adds 10 long rows faster than B short ones.
    shifted = s.T.copy()  # (J, B)
    shifted -= shifted.max(axis=0)
    exp = np.exp(shifted)
    Z = sum_of_columns(exp)
    exp /= Z
    return exp.T, shifted.T, Z


def sum_of_columns(x):
    """sum_j x[j,b], added in the order of j: NumPy adds a single column in another order."""
    return x.sum(axis=0) if x.shape[1] != 1 else x.cumsum(axis=0)[-1]


@on_gpu(softmax)
def softmax_on_gpu(s):
    s, (B, J) = packed(s), s.shape
    Q, shifted, Z = np.empty_like(s), np.empty_like(s), np.empty(B, s.dtype, like=s)
    cuda.softmax(32 * B, s, shifted, Q, Z, B, J)  # a warp, of 32 threads, a row
    return Q, shifted, Z


def flat_index(y, J):
    """The index of [y[b], b] in an array (J, B) as a vector.  ValueError: y is not of 0..J-1."""
    expect_integers(y, "LogLoss")
    try:
        return np.ravel_multi_index((y, np.arange(len(y), like=y)), (J, len(y)))
    except ValueError:
        label = y[(y < 0) | (y >= J)][0]
        raise ValueError(f"label {label}, expected 0..{J - 1}, or a mask") from None


@function
def log_loss(shifted, Z, y):
    """ell[b] = log Z[b] - shifted[b,y[b]]

    Returns ell, (B,), and `chosen` for log_loss_gradient: the scores that y chooses, in a form
    that depends on the device.  A label that is not in 0..J-1 is a ValueError, or on a GPU, which
    nobody waits for, a loss of nan.
    """
    at = flat_index(y, shifted.shape[1])
    return np.log(Z) - shifted.T.take(at), at


@on_gpu(log_loss)
def log_loss_on_gpu(shifted, Z, y):
    expect_integers(y, "LogLoss")
    ell, y = np.empty_like(Z), packed(y.astype(np.int64, copy=False))
    cuda.log_loss(len(ell), packed(shifted), Z, y, ell, *shifted.shape)
    return ell, y


@function
def log_loss_gradient(Q, chosen, g):
    """s.grad[b,j] = g[b] (Q[b,j] - [j = y[b]]), (B, J); chosen: from log_loss"""
    delta = (Q.T * g).ravel()  # in the order of (J, B), like chosen
    delta[chosen] -= g
    return delta.reshape(Q.T.shape).T


@on_gpu(log_loss_gradient)
def log_loss_gradient_on_gpu(Q, y, g):
    Q = packed(Q)
    delta = np.empty_like(Q)
    cuda.log_loss_gradient(Q.size, Q, y, packed(g), delta, *Q.shape)
    return delta
