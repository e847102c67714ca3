"""Functions of whole vectors such as Phi: updates, sums in a tree, the Euclidean length."""

from functools import cache
from math import isnan, sqrt

import numpy as np

from dpedf.kernels import Kernels, function, gpu, number, on_gpu, packed

cuda = Kernels("vector.cu")
CACHED = 1 << 15  # numbers computed at a time, few enough to stay in the cache


@function
def constant(like, number):
    """An array of the shape and dtype of like that holds this number, and is never written."""
    array = np.empty_like(like)
    array.fill(number)
    return array


@on_gpu(constant)
def constant_on_gpu(like, number):
    return constant_of(like.shape, like.dtype, number, gpu.name)


@cache
def constant_of(shape, dtype, number, gpu_name):
    """The constant on the GPU of this name, copied once."""
    return gpu.put(np.full(shape, number, dtype))


def skips(failed, skipped):
    """Has failed become nan?  Then an update leaves everything as it is, and is counted here."""
    if isnan(failed[0]):
        skipped[0] += 1
        return True
    return False


@function
def momentum(Phi, grad, failure, v, eta, mu, nesterov, decay):
    """One step of SGD with momentum mu and weight decay lambda, in place.

    g = grad + lambda Phi
    v <- mu v + g, where there is momentum
    Phi <- Phi - eta v,  or with Nesterov's momentum  Phi - eta (g + mu v)

    Phi, grad, v: (n,); grad is overwritten, and v is not read if mu is 0.  eta: one number.
    failure: (failed, skipped), of Phi.
    """
    if skips(*failure):
        return
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
def momentum_on_gpu(Phi, grad, failure, v, eta, mu, nesterov, decay):
    n, eta = len(Phi), number(eta, Phi.dtype)
    cuda.momentum(n, Phi, grad, *failure, v, eta, float(mu), int(nesterov), float(decay), n)


@function
def adam(Phi, grad, failure, m, v, eta, step, beta1, beta2, epsilon, decay, decoupled):
    """One step of Adam with weight decay lambda, in place.

    g = grad + lambda Phi,  or decoupled  g = grad
    m <- beta1 m + (1 - beta1) g
    v <- beta2 v + (1 - beta2) g**2
    d = m / (1 - beta1**t) / (sqrt(v / (1 - beta2**t)) + epsilon),  t = step + 1
    Phi <- Phi - eta d,  or decoupled  Phi - eta (d + lambda Phi)

    Phi, grad, m, v: (n,); grad is overwritten.  eta, step: one number each.
    failure: (failed, skipped), of Phi.
    """
    if skips(*failure):
        return
    scale, least = corrections(step, beta1, beta2, epsilon)
    for low in range(0, len(Phi), CACHED):
        part = slice(low, low + CACHED)
        phi, g, mean, square = Phi[part], grad[part], m[part], v[part]
        if decay and not decoupled:
            g += decay * phi
        mean *= beta1
        mean += (1 - beta1) * g
        square *= beta2
        square += np.multiply(np.square(g, out=g), 1 - beta2, out=g)
        size = np.multiply(np.sqrt(square, out=g), scale, out=g)
        size += least
        direction = np.divide(mean, size, out=g)
        if decay and decoupled:
            direction += decay * phi
        phi -= np.multiply(direction, eta, out=g)


def corrections(step, beta1, beta2, epsilon):
    """(a, b) with d = m / (a sqrt(v) + b), which corrects two numbers instead of two vectors."""
    bias = 1 - beta1 ** (step + 1)
    return bias / sqrt(1 - beta2 ** (step + 1)), bias * epsilon


@on_gpu(adam)
def adam_on_gpu(Phi, grad, failure, m, v, eta, step, beta1, beta2, epsilon, decay, decoupled):
    n, eta, step = len(Phi), number(eta, Phi.dtype), number(step, np.int64)
    beta1, beta2, both = float(beta1), float(beta2), np.empty(2, Phi.dtype, like=Phi)
    cuda.corrections(1, both, step, beta1, beta2, float(epsilon))
    constants = both, beta1, beta2, float(decay), int(decoupled)
    cuda.adam(n, Phi, grad, *failure, m, v, eta, *constants, n)


@function
def rmsprop(Phi, grad, failure, s, v, eta, alpha, epsilon, mu, decay):
    """One step of RMSProp with momentum mu and weight decay lambda, in place.

    g = grad + lambda Phi
    s <- alpha s + (1 - alpha) g**2
    v <- mu v + g / (sqrt(s) + epsilon), where there is momentum
    Phi <- Phi - eta v,  or without momentum  Phi - eta g / (sqrt(s) + epsilon)

    Phi, grad, s, v: (n,); grad is overwritten, and v is not read if mu is 0.  eta: one number.
    failure: (failed, skipped), of Phi.
    """
    if skips(*failure):
        return
    for low in range(0, len(Phi), CACHED):
        part = slice(low, low + CACHED)
        phi, g, square = Phi[part], grad[part], s[part]
        if decay:
            g += decay * phi
        size = np.square(g)
        square *= alpha
        square += np.multiply(size, 1 - alpha, out=size)
        size = np.sqrt(square, out=size)
        size += epsilon
        g /= size
        direction = g
        if mu:
            direction = v[part]
            direction *= mu
            direction += g
        phi -= np.multiply(direction, eta, out=g)


@on_gpu(rmsprop)
def rmsprop_on_gpu(Phi, grad, failure, s, v, eta, alpha, epsilon, mu, decay):
    n, eta, constants = len(Phi), number(eta, Phi.dtype), map(float, (alpha, epsilon, mu, decay))
    cuda.rmsprop(n, Phi, grad, *failure, s, v, eta, *constants, n)


@function
def average(mean, Phi, failed, step, decay):
    """mean <- Phi in step 0, later  mean + (1 - decay) (Phi - mean),  unless failed is nan.

    mean, Phi: (n,).  failed, step: one number each.
    """
    if isnan(failed[0]):
        return
    for low in range(0, len(Phi), CACHED):
        part = slice(low, low + CACHED)
        m, phi = mean[part], Phi[part]
        m[...] = m + (1 - decay) * (phi - m) if step else phi


@on_gpu(average)
def average_on_gpu(mean, Phi, failed, step, decay):
    n, step = len(Phi), number(step, np.int64)
    cuda.average(n, mean, Phi, failed, step, 1 - float(decay), n)


@function
def guarded(Phi, failure, state, change, eta, step):
    """change(eta, step), which writes to Phi and to the vectors of state, unless failed is nan.

    change: any function of NumPy's functions and operators.  failure: (failed, skipped), of Phi.
    """
    if not skips(*failure):
        change(eta, step)


@on_gpu(guarded)
def guarded_on_gpu(Phi, failure, state, change, eta, step):
    """What decides is on the GPU, so the change is made, and then perhaps taken back."""
    failed, before = np.isnan(failure[0]), [(vector, vector.copy()) for vector in (Phi, *state)]
    change(number(eta, Phi.dtype), number(step, np.int64))
    for vector, its in before:
        vector[...] = np.where(failed, its, vector)
    skipped = failure[1]
    skipped += failed


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
        stride, pairs = vectors.strides[0] // vectors.itemsize, on_device(additions, gpu.name)
        cuda.tree(high - low, vectors, stride, pairs, len(additions), low, high)


@cache
def on_device(additions, gpu_name):
    """These pairs on the GPU of this name, copied once: a CUDA graph cannot copy them again."""
    return gpu.put(np.array(additions, np.int64))


@function
def shorten(vector, length, most):
    """Scale a vector to a length of `most`, if the length that it has is larger."""
    vector *= (1 / np.maximum(length / most, 1)).astype(vector.dtype)


@on_gpu(shorten)
def shorten_on_gpu(vector, length, most):
    cuda.shorten(len(vector), vector, length, float(most), len(vector))


@function
def norm(vector):
    """The Euclidean length, added in float64 in an order that depends on n alone."""
    parts = (vector[low : low + CACHED] for low in range(0, len(vector), CACHED))
    return np.sqrt(sum(np.square(part, dtype=np.float64).sum() for part in parts))


@on_gpu(norm)
def norm_on_gpu(vector):
    threads = 1 << 16
    sums = np.empty(threads, np.float64, like=vector)
    cuda.squares(threads, packed(vector), sums, len(vector), threads)
    return np.sqrt(sums.sum())
