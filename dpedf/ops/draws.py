"""Random draws of a node: the same for any split of the rows, and on any device."""

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
