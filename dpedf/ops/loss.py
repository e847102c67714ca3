"""The loss of classifiers."""

import numpy as np

from dpedf.kernels import selected
from dpedf.kernels.gemm import matrix
from dpedf.kernels.softmax import log_loss, log_loss_gradient
from dpedf.ops.cross_entropy import CrossEntropy, is_distribution
from dpedf.ops.logarithm import Log
from dpedf.ops.masked_mean import MaskedMean, expect_labels_of, mean, share_of, spread, unmasked
from dpedf.ops.masked_mean import weights as weights_of
from dpedf.ops.softmax import Softmax


class LogLoss(MaskedMean):
    """ell[b] = -sum_... m[b,...] log_Q[b,...,y[b,...]] / N[b]

    m[b,...] = [mask[b,...] != 0]
    N[b] = max(1, sum_... m[b,...])

    log_Q.grad[b,...,y[b,...]] -= ell.grad[b] m[b,...] / N[b]

    where Q = Softmax(s), without a node Log(Q), the same as

    ell[b] = sum_... m[b,...] (log(Z[b,...]) - s[b,...,y[b,...]]) / N[b]

    s.grad[b,...,j] += ell.grad[b] m[b,...] / N[b] (Q[b,...,j] - [j = y[b,...]])

    where whole_mask:

    N[b] = share

    which is the mean over the whole minibatch of sum_... m[b,...], or 1 if that is 0.

    Without a mask, each position counts.  y may be anything where the mask is 0, or y is ignore.

    mean: "rows" gives each row the mean over its own positions, so that it depends on no other row
    of the minibatch.  "positions" makes the mean of ell the mean over all unmasked positions of
    the minibatch, of all ranks, as in PyTorch.  It is the default with weights or ignore.

    With weights, a number for each class, with smoothing, or of a y of numbers, (B, ..., J), which
    are probabilities, it is a CrossEntropy.

    Q: (B, ..., J); y: (B, ...), of 0..J-1; mask: (B, ...); ell: (B,)
    """

    def __new__(cls, Q=None, y=None, mask=None, mean=None, weights=None, smoothing=0, ignore=None):
        """A LogLoss if y has labels, and no more is said of classes; else a CrossEntropy."""
        if weights is None and not smoothing and not is_distribution(y, Q):
            return super().__new__(cls)
        if cls is not LogLoss:
            raise ValueError(f"{cls.__name__} of weights, smoothing or soft y, expected LogLoss")
        return CrossEntropy(Q, y, mask, mean, weights, smoothing, ignore)

    def __init__(self, Q, y, mask=None, mean=None, weights=None, smoothing=0, ignore=None):
        super().__init__(Q, y, mask, mean, ignore=ignore)
        self.log_Q = None if type(Q) is Softmax else Log(Q)

    def forward(self):
        Q, y = self.Q, self.y.value
        expect_labels_of(self.y, Q)
        if self.log_Q is None:
            logs, Z = Q.shifted, Q.Z
        else:
            logs = matrix(self.log_Q.value)
            Z = np.ones_like(logs[:, 0])  # of which the logarithm is 0
        labels, self.m, self.share = y, None, None
        if self.mask is not None:
            self.m = unmasked(y, self.mask, logs.dtype)
            labels = np.where(self.m > 0, y, 0)
            self.share = share_of(self, self.m) if self.mean == "positions" else None
        losses, self.at = log_loss(logs, Z, labels.reshape(-1))
        self.weights = weights_of(y, self.m, self.share)
        self.value = losses if self.weights is None else mean(losses, self.weights, y.shape)

    def backward(self):
        Q, g = self.Q, self.grad
        if self.weights is not None:
            g = spread(g, self.weights, self.y.value.shape)
        if self.log_Q is None:
            delta = log_loss_gradient(matrix(Q.value), self.at, g)
            if self.m is not None:  # Q may be nan there
                delta = selected(delta, self.m.reshape(-1, 1) > 0)
            Q.s.addgrad(delta.reshape(Q.value.shape))
        else:
            zeros = np.zeros_like(matrix(self.log_Q.value))
            self.log_Q.addgrad(log_loss_gradient(zeros, self.at, g).reshape(Q.value.shape))
