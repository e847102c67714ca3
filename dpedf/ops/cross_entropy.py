"""The log loss against a distribution of classes: class weights, label smoothing, soft targets."""

import numpy as np

from dpedf.edf import CompNode
from dpedf.kernels import packed
from dpedf.kernels.gemm import matrix
from dpedf.kernels.labels import expect_labels
from dpedf.kernels.softmax import sum_of_columns
from dpedf.ops.logarithm import Log
from dpedf.ops.masked_mean import expect_same_shape, mean, share_of, spread, unmasked, weights


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


class CrossEntropy(CompNode):
    """ell[b] = -sum_... sum_j t[b,...,j] logs[b,...,j] / N[b]

    t[b,...,j] = weights[j] m[b,...] ((1 - smoothing) [j = y[b,...]] + smoothing / J)
    m[b,...] = [mask[b,...] != 0]
    N[b] = max(1, sum_... m[b,...])

    logs.grad[b,...,j] -= ell.grad[b] t[b,...,j] / N[b]

    what LogLoss is with weights of the classes, with smoothing, and of a distribution y[b,...,j]
    in place of [j = y[b,...]].  PyTorch's CrossEntropyLoss has the same t.

    mean = "positions": N[b] is the mean over the whole minibatch of sum_... m[b,...], or where
    labels have weights of sum_... m[b,...] weights[y[b,...]], or 1 if that is 0.

    y: labels of 0..J-1, (B, ...), or numbers like log Q;
    logs: (B, ..., J), of log Q; mask: (B, ...)
    """

    whole_mask = None

    def __init__(self, logs, y, mask=None, mean="rows", weights=None, smoothing=0.0):
        if not 0 <= smoothing <= 1:
            raise ValueError(f"LogLoss of smoothing = {smoothing}, expected 0 to 1")
        self.logs, self.y, self.mask, self.smoothing = logs, y, mask, float(smoothing)
        self.weights = None if weights is None else weights_of_classes(weights)
        self.kept = {}  # the weights, as arrays like others
        if mean == "positions":
            by_label = weights is not None and not is_distribution(y, logs)
            self.whole_mask = Occurrences(y, mask, len(weights)) if by_label else mask

    def forward(self):
        logs = self.logs.value
        W = self.weights_like(logs)
        if W is not None and W.shape != logs.shape[-1:]:
            raise ValueError(f"LogLoss of {len(W)} weights, expected {logs.shape[-1]}, one a class")
        self.m, self.share = None, None
        if self.mask is not None:
            self.m = unmasked(logs[..., 0], self.mask, logs.dtype)
        p = self.probabilities(logs)
        t = (1 - self.smoothing) * p + self.smoothing / logs.shape[-1]
        if W is not None:
            t = W * t
        counted = self.m
        if self.whole_mask is not None:
            if self.by_label:
                counted = (W * p).sum(axis=-1)
            self.share = share_of(self, counted)
        if self.m is not None:
            t = np.where(np.expand_dims(self.m, -1) > 0, t, 0.0)
        self.t = t
        m = np.ones_like(logs[..., 0]) if self.m is None and self.share is not None else self.m
        self.over = weights(logs[..., 0], m, self.share)
        products = t * np.where(t != 0, logs, 0.0)  # a logarithm may be infinite
        losses = 0.0 - sum_of_columns(packed(matrix(products).T))
        self.value = losses if self.over is None else mean(losses, self.over, logs.shape[:-1])

    @property
    def by_label(self):
        """Are weights of labels counted in the whole minibatch?"""
        return type(self.whole_mask) is Occurrences

    def probabilities(self, logs):
        """p[b,...,j], like these logarithms: those of y, or 1 for its labels; 0 if masked."""
        y = self.y.value
        m = None if self.m is None else self.m > 0
        if y.ndim == logs.ndim:
            expect_same_shape("y", y, logs.shape)
            y = y.astype(logs.dtype, copy=False)
            return y if m is None else np.where(np.expand_dims(m, -1), y, 0.0)
        expect_same_shape("y", y, logs.shape[:-1])
        labels = y if m is None else np.where(m, y, 0)
        J = logs.shape[-1]
        expect_labels(labels, J, "LogLoss")
        # on a GPU, which does not look at them, the loss of a label that there is not is nan
        known = np.where((labels >= 0) & (labels < J), 1.0, np.nan).astype(logs.dtype)
        known = known if m is None else np.where(m, known, 0.0)
        hot = np.expand_dims(labels, -1) == np.arange(J, like=y)
        return np.expand_dims(known, -1) * hot

    def backward(self):
        logs, g = self.logs.value, self.grad
        g = g if self.over is None else spread(g, self.over, logs.shape[:-1])
        g = g.reshape(*logs.shape[:-1], 1)
        self.logs.addgrad(-g * self.t)
        if self.y.varies:
            W = 1.0 if self.weights is None else self.weights_like(logs)
            self.y.addgrad((self.smoothing - 1) * W * g * np.where(g != 0, logs, 0.0))

    def weight_of(self, counts):
        """The sum of the weights of so many labels of each class."""
        return (self.weights_like(counts) * counts).sum()

    def weights_like(self, array):
        """(J,), of the type and on the device of an array, or None; made once, as it is a copy."""
        key = type(array), array.dtype
        if self.weights is not None and key not in self.kept:
            self.kept[key] = np.asarray(self.weights.tolist(), array.dtype, like=array)
        return self.kept.get(key)

    def equations(self):
        """Those of these arguments."""
        soft = self.y.value is not None and self.y.value.ndim == self.logs.value.ndim
        p = "y[b,...,j]" if soft else "[j = y[b,...]]"
        N = "share" if self.whole_mask is not None else "max(1, sum_... m[b,...])"
        g = "ell.grad[b] / N[b]"
        lines = [
            "ell[b] = -sum_... sum_j t[b,...,j] logs[b,...,j] / N[b]",
            f"t[b,...,j] = weights[j] m[b,...] ((1 - smoothing) {p} + smoothing / J)",
            "m[b,...] = [mask[b,...] != 0]",
            f"N[b] = {N}",
            f"logs.grad[b,...,j] -= {g} t[b,...,j]",
            f"y.grad[b,...,j] -= {g} weights[j] m[b,...] (1 - smoothing) logs[b,...,j]" * soft,
        ]
        return "\n".join(lines)


def weights_of_classes(weights):
    """A vector, float64.  ValueError: these are no numbers from 0 on."""
    found = np.asarray(weights)
    if found.ndim != 1 or found.dtype.kind not in "iuf":
        raise ValueError(f"LogLoss of weights = {weights!r}, expected a number for each class")
    if not (np.isfinite(found) & (found >= 0)).all():
        raise ValueError(f"LogLoss of weights = {weights!r}, expected finite numbers from 0 on")
    return found.astype(np.float64)


def against_distribution(ell, weights, smoothing):
    """The CrossEntropy that a LogLoss is; None, where labels alone are enough."""
    if weights is None and not smoothing and not is_distribution(ell.y, ell.Q):
        return None
    y, log_Q = ell.y, ell.log_Q or Log(ell.Q)
    ell.y = None if is_distribution(y, ell.Q) else y  # labels, that is
    return CrossEntropy(log_Q, y, ell.mask, ell.mean, weights, smoothing)


def is_distribution(y, Q):
    """Has y a number for each class, as Q has, rather than labels?"""
    value, like = getattr(y, "value", None), Q.value
    numbers = value is not None and value.dtype.kind == "f"
    return numbers and (like is None or value.ndim == like.ndim)
