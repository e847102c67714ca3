"""dpedf: the Educational Framework of TTIC 31230, data-parallel over MPI ranks."""

import sys

# While Python looks for the program of `python -m dpedf.train`, argv[0] is "-m".
if sys.argv[:1] == ["-m"] and "dpedf.train" in sys.orig_argv:
    from dpedf.parallel import signals

    signals.listen()  # before what takes long to import

from dpedf import ops as ops  # gives the nodes of dpedf.edf their operators

__version__ = "0.1.0"
