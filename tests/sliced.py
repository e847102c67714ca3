"""Rows cut into slices, as a Gradient cuts them."""

from dpedf.kernels.slices import Slices
from dpedf.parallel.sums import cuts, plan


def in_slices(B, V):
    """V slices of B rows, which one pass of one rank takes."""
    return Slices(cuts(B, V), plan(0, V, V)[0])
