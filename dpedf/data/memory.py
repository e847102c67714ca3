"""How much memory this host, or the part of it that a job may use, has for rows."""

from pathlib import Path

from dpedf.errors import UserError


def available():
    """The bytes that can be used before the host swaps, or a limit of the job's cgroup is met."""
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return min(int(meminfo["MemAvailable"].split()[0]) * 1024, *limits())


def limits():
    """The limits of this process's cgroup and of those around it; version 1 and 2 of cgroups."""
    root, unlimited = Path("/sys/fs/cgroup"), 1 << 62
    yield unlimited
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            here = root / controllers / path.lstrip("/")
            for folder in here, *here.parents:
                for name in "memory.max", "memory.limit_in_bytes":
                    if folder.is_relative_to(root) and (folder / name).exists():
                        limit = (folder / name).read_text().strip()
                        yield unlimited if limit == "max" else int(limit)


def expect_memory(what, nbytes):
    """UserError: memory cannot hold so many bytes."""
    if nbytes > (free := available()):
        raise UserError(f"{what}: {nbytes:,} bytes, expected at most the {free:,} of free memory")
