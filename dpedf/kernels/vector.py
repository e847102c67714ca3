"""What is done to whole vectors such as Phi: its update, sums in a tree, a length."""

from functools import cache

import numpy as np

from dpedf.kernels import Kernels, function, number, on_gpu, packed

cuda = Kernels("vector.cu")
CACHED = 1 << 15  # numbers that are computed with at a time, so that they stay in the cache


@function
def momentum(Phi, grad, v, eta, mu, nesterov, decay):
    """One step of SGD with momentum mu and weight decay lambda, in place.

    g = grad + lambda Phi
    v <- mu v + g, where there is momentum
    Phi <- Phi - eta v,  or with Nesterov's momentum  Phi - eta (g + mu v)

    Phi, grad, v: (n,); grad is used up, v is not looked at where mu is 0.  eta: one number.
    """
    for low in range(0, len(Phi), CACHED):
        part = slice(low, low + CACHED)
        g = grad[part]
        if decay:
            g += decay * Phi[part]
        direction = g
        if mu:
            velocity = v[part]
            velocity *= mu
            velocity += g
            direction = g + mu * velocity if nesterov else velocity
        Phi[part] -= np.multiply(direction, eta, out=g)


@on_gpu(momentum)
def momentum_on_gpu(Phi, grad, v, eta, mu, nesterov, decay):
    n, eta = len(Phi), number(eta, Phi.dtype)
    cuda.momentum(n, Phi, grad, v, eta, float(mu), int(nesterov), float(decay), n)


@function
def add_in_order(vectors, additions, low, high):
    """vectors[p,i] += vectors[q,i] for each (p, q) of additions in order, low <= i < high.

    vectors: (K, n); additions: a tuple of pairs.
    """
    for here in range(low, high, CACHED) if additions else ():
        part = slice(here, min(here + CACHED, high))
        for p, q in additions:
            vectors[p, part] += vectors[q, part]


@on_gpu(add_in_order)
def add_in_order_on_gpu(vectors, additions, low, high):
    if additions:
        stride, pairs = vectors.strides[0] // vectors.itemsize, on_device(additions)
        cuda.tree(high - low, vectors, stride, pairs, len(additions), low, high)


@cache
def on_device(additions):
    """These pairs on the GPU, copied once, since what is recorded cannot copy from the host."""
    return Kernels.put(np.array(additions, np.int64))


@function
def norm(vector):
    """The Euclidean length, added in float64 and in an order that depends on n alone."""
    parts = (vector[low : low + CACHED] for low in range(0, len(vector), CACHED))
    return np.sqrt(sum(np.square(part, dtype=np.float64).sum() for part in parts))


@on_gpu(norm)
def norm_on_gpu(vector):
    threads = 1 << 16
    sums = np.empty(threads, np.float64, like=vector)
    cuda.squares(threads, packed(vector), sums, len(vector), threads)
    return np.sqrt(sums.sum())
