"""Broadcasting: which indices of two values meet, and which part of the gradient each one gets."""

import numpy as np

from dpedf.kernels.sums import sum_of_axes


def aligned(*operands):
    """The values of (node, value) pairs, in shapes in which NumPy broadcasts b against b."""
    indices = max(np.ndim(value) - node.batched for node, value in operands)
    for node, value in operands:
        if node.batched:
            b, rest = value.shape[:1], value.shape[1:]
            value = value.reshape(b + (1,) * (indices - len(rest)) + rest)
        yield value


def send(node, delta, value):
    """node.grad += delta, summed over the indices along which the aligned value was repeated."""
    shape = (1,) * (delta.ndim - value.ndim) + value.shape
    rows = 0  # indices before those of a node without b, of which the first may be b
    while not node.batched and rows < len(shape) and shape[rows] == 1:
        rows += 1
    repeated = [i for i, size in enumerate(shape) if size == 1 and delta.shape[i] != 1]
    if repeated := tuple(i for i in repeated if i >= rows):
        delta = sum_of_axes(delta, repeated, keepdims=True)
    if rows:
        node.addrows(delta.reshape(*delta.shape[:rows], *node.value.shape))
    else:
        node.addgrad(delta.reshape(node.value.shape))
