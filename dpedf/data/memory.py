"""How much memory this host has, or the part of it that a job may use."""

import os
from pathlib import Path

from dpedf.errors import UserError

MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def lines(path):
    """The lines of a file; none where there is no such file, as on macOS."""
    return Path(path).read_text().splitlines() if os.path.exists(path) else []


def available():
    """The bytes that can be used before the host swaps, or a limit of the job's cgroup is met."""
    free = [line.split()[1] for line in lines("/proc/meminfo") if line.startswith("MemAvailable:")]
    return min([MEMORY, *(int(kilobytes) * 1024 for kilobytes in free), *limits()])


def limits():
    """The limits of this process's cgroup and of those around it, in versions 1 and 2."""
    root = Path("/sys/fs/cgroup")
    for line in lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        here = root / controllers / path.lstrip("/")
        for folder in (here, *here.parents) if controllers in ("", "memory") else ():
            for name in "memory.max", "memory.limit_in_bytes":
                limit = lines(folder / name)
                if limit and limit[0] != "max":
                    yield int(limit[0])


def expect_memory(what, nbytes):
    """UserError: memory cannot hold so many bytes."""
    if nbytes > (free := available()):
        raise UserError(f"{what}: {nbytes:,} bytes, expected at most the {free:,} of free memory")
