"""The log loss against a distribution of classes: class weights, label smoothing, soft targets."""

from numbers import Real

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import packed
from dpedf.kernels.gemm import matrix
from dpedf.kernels.labels import expect_labels
from dpedf.kernels.softmax import sum_of_columns
from dpedf.ops.logarithm import Log
from dpedf.ops.masked_mean import (
    MaskedMean,
    expect_floats,
    expect_labels_of,
    expect_same_shape,
    mean,
    share_of,
    spread,
    unmasked,
)
from dpedf.ops.masked_mean import weights as weights_of


class Occurrences(CompNode):
    """n[b,j] = sum_... [mask[b,...] != 0] [j = y[b,...]], in float32

    how often a row has each label: of these whole numbers the sum over a minibatch has the same
    bits on any number of ranks, which a sum of weights has not.

    y: (B, ...), of 0..J-1; mask: (B, ...), if there is one; n: (B, J)
    """

    def __init__(self, y, mask, J):
        self.y, self.mask, self.J = y, mask, J

    def forward(self):
        y = self.y.value
        hot = np.expand_dims(y, -1) == np.arange(self.J, like=y)
        if self.mask is not None:
            hot = hot & np.expand_dims(self.mask.value != 0, -1)
        self.value = hot.sum(axis=tuple(range(1, y.ndim)), dtype=np.float32)

    def backward(self):
        """Labels do not vary."""


class CrossEntropy(MaskedMean):
    """ell[b] = -sum_... sum_j t[b,...,j] log_Q[b,...,j] / N[b]

    t[b,...,j] = weights[j] m[b,...] ((1 - smoothing) p[b,...,j] + smoothing / J)
    p[b,...,j] = [j = y[b,...]]
    m[b,...] = [mask[b,...] != 0]
    N[b] = max(1, sum_... m[b,...])

    log_Q.grad[b,...,j] -= ell.grad[b] t[b,...,j] / N[b]

    where soft:

    p[b,...,j] = y[b,...,j]

    log_Q.grad[b,...,j] -= ell.grad[b] t[b,...,j] / N[b]
    y.grad[b,...,j] -= ell.grad[b] weights[j] m[b,...] (1 - smoothing) log_Q[b,...,j] / N[b]

    where whole_mask:

    N[b] = share

    which is the mean over the whole minibatch of sum_... m[b,...], or where labels have weights of
    sum_... m[b,...] weights[y[b,...]], or 1 if that is 0.

    It is what LogLoss(Q, y) makes with weights, a number for each class, with smoothing, or where y
    is soft: probabilities of classes, not labels.  PyTorch's CrossEntropyLoss has the same t.

    Q: (B, ..., J); y: labels of 0..J-1, (B, ...), or numbers like Q; mask: (B, ...); ell: (B,)
    """

    def __init__(self, Q, y, mask=None, mean=None, weights=None, smoothing=0, ignore=None):
        number = isinstance(smoothing, Real) and not isinstance(smoothing, bool)
        if not number or not 0 <= smoothing <= 1:
            raise ValueError(f"LogLoss of smoothing = {smoothing!r}, expected a number from 0 to 1")
        if ignore is not None and is_distribution(y, Q):
            found = f"LogLoss of ignore = {ignore!r} and probabilities as y"
            raise ValueError(f"{found}, expected labels, of which it is one: or a mask")
        super().__init__(Q, y, mask, mean, weights, ignore)
        self.log_Q, self.smoothing = Log(Q), float(smoothing)
        self.weights = None if weights is None else weights_of_classes(weights)
        self.copies = {}  # of the weights, by the type of the array and of its numbers
        self.occurrences = None
        if weights is not None and self.mean == "positions" and not is_distribution(y, Q):
            self.occurrences = Occurrences(y, self.mask, len(weights))
        if weights is not None and getattr(Q, "value", None) is not None:
            self.weights_like(Q.value)  # ValueError: they are not as many as its classes

    @property
    def soft(self):
        """Has y probabilities of classes, not labels?"""
        return self.y.value.ndim == self.log_Q.value.ndim and not self.by_label

    @property
    def by_label(self):
        """Are labels of each class counted in the whole minibatch, as they have weights?"""
        return self.occurrences is not None

    @property
    def whole_mask(self):
        """What is counted in the whole minibatch: labels if they have weights, or positions."""
        return self.occurrences if self.by_label else super().whole_mask

    def forward(self):
        logs = self.log_Q.value
        J, W = logs.shape[-1], self.weights_like(logs)
        self.m = unmasked(logs[..., 0], self.mask, logs.dtype)
        counts = np.expand_dims(self.m > 0, -1)
        p = np.where(counts, self.probabilities(logs), 0.0)
        self.t = W * np.where(counts, (1 - self.smoothing) * p + self.smoothing / J, 0.0)
        self.share = None
        if self.mean == "positions":
            counted = (W * p).sum(axis=-1) if self.by_label else self.m
            self.share = share_of(self, counted)
        products = self.t * np.where(self.t != 0, logs, 0.0)  # a logarithm may be infinite
        losses = 0.0 - sum_of_columns(packed(matrix(products).T))
        self.of_mean = weights_of(self.m, self.m, self.share)
        self.value = mean(losses, self.of_mean, self.m.shape)

    def probabilities(self, logs):
        """p[b,...,j], of the type of these logarithms, and anything where a mask is 0."""
        y = self.y.value
        if self.soft:
            expect_floats(self.y, self.log_Q)
            expect_same_shape("y", y, logs.shape)
            return y.astype(logs.dtype, copy=False)
        expect_labels_of(self.y, self.log_Q)
        labels, J = np.where(self.m > 0, y, 0), logs.shape[-1]
        expect_labels(labels, J, "LogLoss")
        # on a GPU, which does not look at them, the loss of a label that there is not is nan
        known = np.expand_dims((labels >= 0) & (labels < J), -1)
        p = np.expand_dims(labels, -1) == np.arange(J, like=labels)
        return np.where(known, p.astype(logs.dtype), np.nan)

    def backward(self):
        logs, shape = self.log_Q.value, self.m.shape
        g = spread(self.grad, self.of_mean, shape).reshape(*shape, 1)
        self.log_Q.addgrad(-g * self.t)
        if self.y.varies:
            W = self.weights_like(logs)
            self.y.addgrad((self.smoothing - 1) * W * g * np.where(g != 0, logs, 0.0))

    def weight_of(self, counts):
        """The sum of the weights of so many labels of each class."""
        return (self.weights_like(counts) * counts).sum()

    def weights_like(self, array):
        """(J,), of the type and on the device of an array, (..., J); without weights 1."""
        if self.weights is None:
            return 1.0
        J, n, key = array.shape[-1], len(self.weights), (type(array), array.dtype)
        if n != J:
            raise ValueError(f"LogLoss of {n} weights, expected {J}, one a class")
        if key not in self.copies:  # to a device it is copied once
            self.copies[key] = np.asarray(self.weights.tolist(), array.dtype, like=array)
        return self.copies[key]


def weights_of_classes(weights):
    """A vector, float64.  ValueError: these are no numbers from 0 on."""
    found = np.asarray(weights)
    if found.ndim != 1 or found.dtype.kind not in "iuf":
        raise ValueError(f"LogLoss of weights = {weights!r}, expected a number for each class")
    if not (np.isfinite(found) & (found >= 0)).all():
        raise ValueError(f"LogLoss of weights = {weights!r}, expected finite numbers from 0 on")
    return found.astype(np.float64)


def is_distribution(y, Q):
    """Has y a number for each class, as Q has, rather than labels?"""
    y, Q = getattr(y, "value", None), getattr(Q, "value", None)
    return y is not None and y.dtype.kind == "f" and (Q is None or y.ndim == Q.ndim)
