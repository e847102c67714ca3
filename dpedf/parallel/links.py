"""The link between the arrays of all ranks: how they are added over ranks.

For arrays of the host the link is Ranks itself.  Arrays on GPUs go through NCCL, or through the
host and MPI.  Each link offers

rank, size;
start_add, start_exchange and start_collect, which return a request to Wait() for.  On a GPU it is
the stream that waits;
recordable: may the sums be part of a CUDA graph?
piece: how many numbers are added at a time, None for any;
raise_errors(), after each step.
"""

import os

from dpedf.errors import plural
from dpedf.parallel.nccl import Nccl
from dpedf.parallel.through_host import ThroughHost

SHARES = 23000  # NCCL 2.30, the first that takes several ranks on one GPU, if it is told to


def link_between(ranks, device):
    """The link between the devices of all ranks; rank 0 says what is special about it."""
    if device.unit == "cpu" or ranks.size == 1:
        return ranks
    nccl, told = device.nccl(), os.environ.get("NCCL_MULTI_RANK_GPU_ENABLE") == "1"
    version = nccl.get_version() if nccl else 0
    found = ranks.gather((device.place, version, told and version >= SHARES))
    devices, versions, share = zip(*found, strict=True)
    shared = [place for place in dict.fromkeys(devices) if devices.count(place) > 1]
    through_host = shared and not all(share)
    for place in shared:
        how = ", whose sums pass through the host" if through_host else ""
        ranks.say(f"GPU {place}: shared by {plural(devices.count(place), 'rank')}{how}")
    if not (shared or all(versions)):
        ranks.say("sums over ranks pass through the host, for CuPy finds no NCCL on every rank")
        through_host = True
    return ThroughHost(ranks, device) if through_host else Nccl(ranks, device, nccl)
