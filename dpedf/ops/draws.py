"""Random draws of a node: the same for any split of the rows, and on any device."""

from dpedf.kernels import philox
from dpedf.program import context


def uniform(node, x):
    """u[b,...] for x[b,...], drawn from U[0, 1) for this node and step, and row b of the minibatch.

    node: a CompNode, while it runs in a program.
    """
    row = context.row if node.batched else 0  # without b, the same for all rows
    return philox.uniform(x, context.seed, context.numbers.get(node, 0), context.step, row)
