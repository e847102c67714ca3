"""The losses of a minibatch: their sums, whether they are finite, and those of two classes."""

from math import isfinite, nan

import numpy as np

from dpedf.kernels import Kernels, function, on_gpu, packed, packed_for

cuda = Kernels("losses.cu")


@function
def add_losses(ell, slices, sums, totals, failed, first=True, last=True):
    """Leave in sums[v] the sum over the rows of slice v of ell, (N,), and add it to totals[v].

    Both are float64.  Of rows in several passes, the first begins sums[v] anew, and the last adds
    to totals[v].  A sum that is not finite makes failed, (1,), nan.
    """
    for these, part in slices.cut(ell):
        added = part.sum(axis=1, dtype=np.float64)
        if not isfinite(sum(added.tolist())):
            failed[0] = nan
        sums[these] = added if first else sums[these] + added
        if last:
            here = totals[these]
            here += sums[these]


@on_gpu(add_losses)
def add_losses_on_gpu(ell, slices, sums, totals, failed, first=True, last=True):
    for these, part in slices.cut(packed(ell)):
        V, n = part.shape
        how = int(first), int(last)
        cuda.add_losses(32 * V, part, sums[these], totals[these], failed, V, n, *how)


@function
def binary_log_loss(s, y):
    """ell[b] = log(1 + exp(s[b])) - y[b] s[b], and nan where y[b] is not in 0..1

    In this form it is exact also where it is small: log(1 + exp(-|s|)) + |s| |[s > 0] - y|
    """
    size, wrong = np.abs(s), np.abs(y - (s > 0))
    ell = np.logaddexp(-size, 0.0) + np.where(wrong == 0, 0.0, size) * wrong
    return np.where((y >= 0) & (y <= 1), ell, np.nan)


@on_gpu(binary_log_loss)
def binary_log_loss_on_gpu(s, y):
    s, y = packed_for(s, s, y)
    ell = np.empty_like(s)
    cuda.binary_log_loss(s.size, s, y, ell, s.size)
    return ell
