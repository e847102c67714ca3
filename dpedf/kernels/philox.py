"""Random draws of a node: the same bits for any split of the rows, and on any device."""

from math import prod
from numbers import Real

import numpy as np

from dpedf.kernels import Kernels, function, number, on_gpu

cuda = Kernels("philox.cu")
DROP = {4: 40, 8: 11}  # of the 64 bits, those beyond the fraction of a float of 4 or 8 bytes


@function
def uniform(x, seed, node, step, row, stream=1):
    """u[b,...], drawn from U[0, 1) for each number of x[b,...], in the shape and dtype of x.

    A function of the seed, the number of a node in its program, the step, and row + b, where row
    is that of x[0] in the global minibatch.  Philox4x64-10 with the key (seed, node) and the
    counter (block, 0, step, stream), where each row has as many blocks of four numbers as it needs:
    Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011.
    """
    B, n = prod(x.shape[:1]), prod(x.shape[1:])  # one row of one number, without any index
    blocks = -(-n // 4)
    bits = np.random.Philox(key=[seed, node], counter=[int(row) * blocks, 0, int(step), stream])
    raw = bits.random_raw(4 * B * blocks).reshape(B, 4 * blocks)[:, :n]
    drop = DROP[x.dtype.itemsize]
    u = (raw >> np.uint64(drop)).astype(x.dtype) * 2.0 ** (drop - 64)
    return u.reshape(x.shape)


@on_gpu(uniform)
def uniform_on_gpu(x, seed, node, step, row, stream=1):
    u, B, n = np.empty_like(x, order="C"), prod(x.shape[:1]), prod(x.shape[1:])
    draw = cuda.uniform if isinstance(row, Real) else cuda.uniform_from
    draw(B * -(-n // 4), u, number(step, np.int64), row, seed, node, stream, B, n)
    return u
