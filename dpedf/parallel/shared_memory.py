"""Memory that the ranks of a host share."""

import numpy as np


def shared_array(ranks, shape, dtype, fill):
    """An array that the ranks of each host share; fill(array) is called by one of them."""
    if ranks.size == 1:
        array = np.empty(shape, dtype)
        fill(array)
        return array
    dtype = np.dtype(dtype)
    nbytes = int(np.prod(shape)) * dtype.itemsize if ranks.host_rank == 0 else 0
    window = ranks.MPI.Win.Allocate_shared(nbytes, dtype.itemsize, comm=ranks.host)
    array = np.ndarray(shape, dtype, window.Shared_query(0)[0])
    if ranks.host_rank == 0:
        fill(array)
    window.Fence()
    return array
