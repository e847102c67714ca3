"""Random draws of a node: the same for any split of the rows, and on any device."""

import numpy as np

from dpedf.kernels import philox
from dpedf.program import context


def uniform(node, x):
    """u[b,...] for x[b,...], drawn from U[0, 1) for this node and step, and row b of the minibatch.

    In evaluation others than in training.  Without b, the same for all rows.  node: a CompNode,
    while it runs, or is made.
    """
    row, stream = context.row if node.batched else 0, 1 if context.train else 2
    place = context.numbers.get(node, 0)
    return philox.uniform(x, context.seed, place, context.step, row, stream)


def normal(node, x):
    """e[b,...] for x[b,...], drawn from N(0, 1), as uniform draws: Box and Muller, 1958.

    A GPU may round its logarithm and cosine otherwise than a CPU, in the last bits.
    """
    b, shape = x.shape[: node.batched], x.shape[node.batched :]
    pairs = uniform(node, np.empty_like(x, shape=(*b, 2, *shape)))
    u, v = (pairs[:, k] if node.batched else pairs[k] for k in (0, 1))
    return np.sqrt(-2 * np.log(1 - u)) * np.cos(2 * np.pi * v)
