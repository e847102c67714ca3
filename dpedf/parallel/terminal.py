"""Where a stream ends.  Launchers give each rank a pipe, and pass on to a terminal what comes out.

What is found in /proc is Linux's; elsewhere, a pipe ends nowhere that is known.
"""

import os
import stat
from typing import NamedTuple

PROXY = "hydra_pmi_proxy"  # of MPICH, between mpirun and the ranks of a host
LAUNCHERS = PROXY, "mpirun", "mpiexec", "mpiexec.hydra", "orterun", "prterun"
NARROW = 80  # columns, where a terminal does not know how many it has


class Terminal(NamedTuple):
    device: int
    columns: int


def terminal(stream):
    """The Terminal in which sys.stdout or sys.stderr ends; None where it ends elsewhere."""
    try:
        number = stream.fileno()
        if os.isatty(number):
            return described(number)
        end = os.open(of_launcher(number), os.O_RDONLY | os.O_NOCTTY)
    except (OSError, ValueError, AttributeError):  # no stream, no /proc, no launcher, another's
        return None
    try:
        return described(end) if os.isatty(end) else None
    finally:
        os.close(end)


def described(number):
    return Terminal(os.fstat(number).st_rdev, os.get_terminal_size(number).columns or NARROW)


def of_launcher(number):
    """The file in /proc of this stream of the launcher that passes on what this process prints.

    ValueError: none does, or it prints to a file or into a pipe.
    """
    process, mine = os.getppid(), os.fstat(number)
    while (name := name_of(process)) not in LAUNCHERS:
        process = parent_of(process)  # such as a shell that a rank was started in
    ends = (os.stat(f"/proc/{process}/fd/{end}") for end in os.listdir(f"/proc/{process}/fd"))
    if not any(os.path.samestat(mine, end) for end in ends):
        raise ValueError(f"{name} does not read what this process prints")
    while name_of(process) == PROXY:
        process = parent_of(process)
    file = f"/proc/{process}/fd/{number}"
    if not stat.S_ISCHR(os.stat(file).st_mode):
        raise ValueError(f"{file} is no terminal")
    return file


def name_of(process):
    """What Linux calls a process, in 15 characters at most."""
    with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().rstrip("\n")


def parent_of(process):
    """ValueError: it has none."""
    with open(f"/proc/{process}/stat", "rb") as file:
        parent = int(file.read().rpartition(b")")[2].split()[1])
    if not parent:
        raise ValueError("a process without a parent")
    return parent
