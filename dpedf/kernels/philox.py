"""Random draws of a node: the same bits for any split of the rows, and on any device."""

from math import prod

import numpy as np

from dpedf.edf import context
from dpedf.kernels import Kernels, function, number, on_gpu

cuda = Kernels("philox.cu")
DROP = {4: 40, 8: 11}  # of the 64 bits, what the fraction of a float of so many bytes has not


@function
def uniform(x, node):
    """u[b,...], drawn from U[0, 1) for each number of x[b,...], in the shape and dtype of x.

    A function of context's seed and step, of the place of the node in its program, and of the
    row in the global minibatch: Philox4x64-10 with the key (seed, place) and the counter
    (block, 0, step, 1), where each row has as many blocks of four numbers as it needs.
    Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011.
    """
    B, n = len(x), prod(x.shape[1:])
    blocks = -(-n // 4)
    counter = [context.row * blocks, 0, int(context.step), 1]
    bits = np.random.Philox(key=[context.seed, node.place], counter=counter)
    raw = bits.random_raw(4 * B * blocks).reshape(B, 4 * blocks)[:, :n]
    drop = DROP[x.dtype.itemsize]
    u = (raw >> np.uint64(drop)).astype(x.dtype) * 2.0 ** (drop - 64)
    return u.reshape(x.shape)


@on_gpu(uniform)
def uniform_on_gpu(x, node):
    u, B, n = np.empty_like(x, order="C"), len(x), prod(x.shape[1:])
    step = number(context.step, np.int64)
    cuda.uniform(B * -(-n // 4), u, step, context.seed, node.place, context.row, B, n)
    return u
