"""Normalization of rows, (..., J), and its gradients."""

import numpy as np

from dpedf.kernels import Kernels, function, on_gpu, packed, packed_for

cuda = Kernels("normalization.cu")


@function
def layer_norm(x, w, c, epsilon):
    """(y, n, s): y = n w - c,  n = (x - m) / s,  s = sqrt(mean (x - m)**2 + epsilon),  m = mean x

    x, y, n: (..., J); w, c: (J,); s: (..., 1)
    """
    x = packed(x)
    n = x - x.mean(axis=-1, keepdims=True)
    s = size_of(n, epsilon)
    n /= s
    y = n * w
    y -= c
    return y, n, s


@function
def rms_norm(x, w, epsilon):
    """(y, n, s): y = n w,  n = x / s,  s = sqrt(mean x**2 + epsilon); shapes as of layer_norm"""
    x = packed(x)
    s = size_of(x, epsilon)
    n = x / s
    return n * w, n, s


def size_of(x, epsilon):
    """sqrt(mean_j x[...,j]**2 + epsilon), (..., 1), also where the squares overflow"""
    with np.errstate(over="ignore"):
        squares = np.square(x).mean(axis=-1, keepdims=True)
    if not (overflow := np.isinf(squares)).any():
        return np.sqrt(squares + epsilon)
    largest = np.minimum(np.abs(x).max(axis=-1, keepdims=True), np.finfo(x.dtype).max)
    unit = np.where(overflow, largest, 1)
    return unit * np.sqrt(np.square(x / unit).mean(axis=-1, keepdims=True) + epsilon / unit / unit)


@function
def layer_norm_gradient(g, n, s, w):
    """(delta, h): delta = (g w - mean g w - n mean g w n) / s,  h = g n

    delta is for x, given g for y, and the sum of h over rows is for w.
    """
    h = g * n
    p, delta = h * w, g * w
    delta -= delta.mean(axis=-1, keepdims=True)
    delta -= np.multiply(n, p.mean(axis=-1, keepdims=True), out=p)
    delta /= s
    return delta, h


@function
def rms_norm_gradient(g, n, s, w):
    """(delta, h): delta = (g w - n mean g w n) / s,  h = g n; as layer_norm_gradient"""
    h = g * n
    p, delta = h * w, g * w
    delta -= np.multiply(n, p.mean(axis=-1, keepdims=True), out=p)
    delta /= s
    return delta, h


@on_gpu(layer_norm)
def layer_norm_on_gpu(x, w, c, epsilon):
    return normalized(x, w, c, epsilon, centred=True)


@on_gpu(rms_norm)
def rms_norm_on_gpu(x, w, epsilon):
    return normalized(x, w, w, epsilon, centred=False)


@on_gpu(layer_norm_gradient)
def layer_norm_gradient_on_gpu(g, n, s, w):
    return gradient(g, n, s, w, centred=True)


@on_gpu(rms_norm_gradient)
def rms_norm_gradient_on_gpu(g, n, s, w):
    return gradient(g, n, s, w, centred=False)


def normalized(x, w, c, epsilon, centred):
    x = packed(x)
    w, c = packed_for(x, w, c)
    y, n, J = np.empty_like(x), np.empty_like(x), x.shape[-1]
    s = np.empty((*x.shape[:-1], 1), x.dtype, like=x)
    cuda.normalize(32 * s.size, x, w, c, y, n, s, float(epsilon), int(centred), s.size, J)
    return y, n, s


def gradient(g, n, s, w, centred):
    g, w = packed_for(n, g, w)
    delta, h = np.empty_like(n), np.empty_like(n)
    cuda.gradient(32 * s.size, g, n, s, w, delta, h, int(centred), s.size, n.shape[-1])
    return delta, h
