"""Do slices that are computed together have the bits of slices that are computed by themselves?

They do if every node computes its rows as if no others stood beside them.  A node that multiplies
all rows at hand by a matrix does not, nor does one that adds them up.
"""

import numpy as np

from dpedf.edf import CompNodes, Forward
from dpedf.kernels.slices import UncutError
from dpedf.program import during, program

# Added to Phi, which may begin with zeros, whose products are the same in any order.  Where noise
# makes something nan, which hides a difference, less is added.
NOISES = 0.1, 0.001, 0.0


def why_apart(gradient, x, y, sizes, put, passes=1):
    """Why a Gradient cannot compute several slices together, in words; None if it can.

    x, y: rows of this rank, of which as many are computed as it has of minibatches of these sizes.
    put: brings an array to the device.  passes: how few they may be.
    """
    phi, before, overlap = gradient.phi, gradient.phi.value.copy(), gradient.overlap
    random = np.random.default_rng(0).uniform(-1, 1, before.shape).astype(before.dtype)
    size = put(random) * (np.abs(before) + (before == 0))  # so that no parameter changes its sign
    gradient.overlap, gradient.train = False, not gradient.mixer  # which is no mixer in evaluation
    try:
        with np.errstate(all="ignore"), during(add=ones):
            for B in sizes:
                first, end = gradient.shard(B)
                rows = x[: end - first], y[: end - first], B
                for noise in NOISES:
                    phi.value[...] = before + noise * size
                    sums, made = together(gradient, *rows, passes), gradient.passes.count
                    if np.isfinite(sums).all():
                        break
                if not same_bits(sums, found(gradient, *rows)):
                    return f"{differing(gradient, made, *rows)} has other bits beside other rows"
    except UncutError:  # in the backward of a node, the last one that has its value
        n = [n for n in CompNodes(gradient.ell) if n.value is not None][-1]
        return f"{name_of(gradient, n)} adds up the rows of several slices"
    except MemoryError:  # for a slice by itself, which a trial of passes will say
        return None
    finally:
        phi.value[...] = before
        gradient.overlap, gradient.train = overlap, True
        gradient.compute_in(gradient.passes.most)


def ones(parts):
    """What stands for a sum over slices and ranks outside of training, whatever rows there are."""
    return np.ones_like(parts[0])


def together(gradient, x, y, B, passes):
    """The sums of gradients that this rank has after so many passes, or as few as memory allows."""
    while passes < gradient.passes.most:
        try:
            return found(gradient, x, y, B, passes)
        except MemoryError:
            passes *= 2
    return found(gradient, x, y, B)


def found(gradient, x, y, B, passes=None):
    """The sums of gradients that this rank has after so many passes: by default, of one slice."""
    gradient.compute_in(passes or gradient.passes.most)
    gradient.add_slices(x, y, B)
    return gradient.summed[: gradient.passes.left].copy()


def differing(gradient, passes, x, y, B):
    """The first node whose value depends on what else is computed, or any one's backward.

    Just "a node" where memory lacks for all values.
    """
    try:
        together, apart = (values(gradient, n, x, y, B) for n in (passes, gradient.passes.most))
    except MemoryError:
        return "a node"
    differ = (n for n in apart if not same_bits(together[n], apart[n]))
    return next((name_of(gradient, n) for n in differ), "the backward of a node")


def values(gradient, passes, x, y, B):
    """{n: its value}, of this rank's rows, of all nodes with b after so many passes."""
    first, found = gradient.shard(B)[0], {n: [] for n in CompNodes(gradient.ell) if n.batched}
    gradient.compute_in(passes)
    for rows, slices, _ in gradient.passes.of(B):
        known = {"B": B, "shares": gradient.shares}
        with during(row=first + rows.start, slices=slices, **known):
            gradient.put(x[rows], y[rows])
            Forward(gradient.ell, gradient.train)
        for n in found:
            found[n].append(n.value)
    return {n: np.concatenate(pieces) for n, pieces in found.items()}


def name_of(gradient, n):
    """z3 = BatchNorm"""
    return f"{program(gradient.ell).names[n]} = {type(n).__name__}"


def same_bits(a, b):
    """Have two arrays the same bits?  One nan is like another."""
    same = bits(a) == bits(b)
    if a.dtype.kind == "f":
        same |= np.isnan(a) & np.isnan(b)
    return a.dtype == b.dtype and bool(same.all())


def bits(array):
    return array.view(f"u{array.itemsize}") if array.dtype.kind == "f" else array
