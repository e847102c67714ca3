"""How much memory this host has, or the part of it that a job may use."""

import os

from dpedf.device import cgroups
from dpedf.errors import UserError

MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def available():
    """The bytes that can be used before the host swaps, or a limit of the job's cgroup is met."""
    known = cgroups.text(cgroups.ROOT / "proc/meminfo").splitlines()
    free = [line.split()[1] for line in known if line.startswith("MemAvailable:")]
    return min([MEMORY, *(int(kilobytes) * 1024 for kilobytes in free), *limits()])


def limits():
    """The limits of this process's cgroup and of those around it, in versions 1 and 2."""
    for folder in cgroups.folders("memory"):
        for name in "memory.max", "memory.limit_in_bytes":
            limit = cgroups.text(folder / name).strip()
            if limit.isdecimal():  # others are max: no limit
                yield int(limit)


def expect_memory(what, nbytes):
    """UserError: memory cannot hold so many bytes."""
    if nbytes > (free := available()):
        raise UserError(f"{what}: {nbytes:,} bytes, expected at most the {free:,} of free memory")
