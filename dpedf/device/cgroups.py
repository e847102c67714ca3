"""Control groups (cgroups): what Linux lets the processes of a container or a job use.

Versions 1 and 2, as cgroups(7) describes them.
"""

from contextlib import suppress
from pathlib import Path

ROOT = Path("/")  # of /proc and /sys


def folders(controller):
    """The folders of this process's cgroups that have a controller, and of those around them.

    A container may see its own cgroup as the outermost one, whatever path it reads for it.
    """
    for line in text(ROOT / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for name in [controllers, controller] if controllers else ["", "unified"]:
            top = ROOT / "sys/fs/cgroup" / name
            here = top / path.lstrip("/")
            yield from (folder for folder in (here, *here.parents) if folder.is_relative_to(top))


def text(path):
    """What stands in a file; nothing where there is none, as on macOS."""
    with suppress(OSError):
        return path.read_text("utf-8", "surrogateescape")
    return ""


def quotas():
    """Pairs (cgroup, how many cores its processes may use together)."""
    for folder in folders("cpu"):
        quota = text(folder / "cpu.max").split()
        if not quota:
            files = "cpu.cfs_quota_us", "cpu.cfs_period_us"
            quota = [word for name in files for word in text(folder / name).split()]
        if len(quota) == 2 and all(map(str.isdecimal, quota)):  # others are max or -1: no limit
            its = folder.stat()
            yield (its.st_dev, its.st_ino), int(quota[0]) / int(quota[1])
