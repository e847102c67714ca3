"""Rows cut into slices, as a Gradient cuts them; and what a Phi says of its losses."""

import numpy as np

from dpedf.kernels.slices import Slices
from dpedf.parallel.sums import cuts, plan


def in_slices(B, V):
    """V slices of B rows, which one pass of one rank takes."""
    return Slices(cuts(B, V), plan(0, V, V)[0])


def fine(dtype, put=np.asarray):
    """(failed, skipped) of a Phi whose losses were finite so far."""
    return put(np.zeros(1, dtype)), put(np.zeros(1, np.int64))
