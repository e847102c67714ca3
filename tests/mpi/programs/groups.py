"""Groups of 1, 2 and 4 of 4 ranks: who is who, their sums and their memory."""

import numpy as np

from dpedf.parallel import job
from dpedf.parallel.groups import Group
from dpedf.parallel.segments import MAPS, SEGMENTS
from dpedf.parallel.shared_memory import shared_array


def main(ranks):
    for each in 1, 2, 4:
        group = Group(ranks, each)
        total = np.array([ranks.rank])
        group.add(total)
        shared = shared_array(group, (1,), np.int64)
        if group.host_rank == 0:
            shared[:] = ranks.rank
        group.wait()
        group.say("a group says nothing")
        who = group.rank, group.size, group.host_rank, group.hosts, group.local_rank
        for line in ranks.gather((*who, total.item(), shared.item())):
            ranks.say(str(line))
    named = [SEGMENTS in line and "(deleted)" not in line for line in MAPS.open()]
    ranks.say(f"segments with a name: {max(ranks.gather(sum(named)))}")


job.run(main)
