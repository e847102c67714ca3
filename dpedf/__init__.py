"""dpedf: the Educational Framework of TTIC 31230, data-parallel over MPI ranks."""

from dpedf import ops as ops  # gives the nodes of dpedf.edf their operators

__version__ = "0.1.0"
