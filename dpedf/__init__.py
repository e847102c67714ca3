"""dpedf: the Educational Framework of TTIC 31230, data-parallel over MPI ranks."""

import sys

if sys.flags.optimize > 1:
    raise ImportError("python -OO has no docstrings, in which nodes say their shapes: use -O")

# While Python looks for the program of `python -m dpedf.train`, argv[0] is "-m".
if sys.argv[:1] == ["-m"] or sys.argv[0].endswith("/dpedf"):
    from dpedf.parallel import signals

    if "dpedf.train" in sys.orig_argv or sys.argv[1:2] in (["train"], ["sweep"]):
        signals.listen()  # before what takes long to import
    else:
        signals.leave_quietly()

from dpedf import ops as ops  # gives the nodes of dpedf.edf their operators

__version__ = "0.1.0"
