"""Control groups (cgroups): what Linux lets the processes of a container or a job use.

Versions 1 and 2, as cgroups(7) describes them.
"""

import re
from contextlib import suppress
from pathlib import Path

ROOT = Path("/")  # of /proc and /sys
QUOTA = re.compile(r"\s*([0-9]{1,18})\s+([1-9][0-9]{0,17})\s*")  # microseconds, of so many


def folders(controller):
    """The folders of this process's cgroups that have a controller, and of those around them.

    A container may see its own cgroup as the outermost one, whatever path it reads for it.
    """
    for line in text(ROOT / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not path or (controllers and controller not in controllers.split(",")):
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
        files = "cpu.cfs_quota_us", "cpu.cfs_period_us"
        found = text(folder / "cpu.max") or " ".join(text(folder / name) for name in files)
        if limit := QUOTA.fullmatch(found):  # others are max or -1: no limit
            its = folder.stat()
            yield (its.st_dev, its.st_ino), int(limit[1]) / int(limit[2])
