"""The memory through which the ranks of a host pass their messages."""

from contextlib import suppress
from pathlib import Path

MAPS, SEGMENTS = Path("/proc/self/maps"), "/dev/shm/mpich_shm_"


def unlink_segments():
    """Take away the names of the segments that MPICH has made for this job.

    MPICH itself does so only in MPI_Finalize, and a job that is aborted or killed never comes
    there: each would leave its segments in /dev/shm until the machine is started again.  Without
    a name, memory goes with the last process that uses it.  Every rank of the host has to be past
    MPI_Init, because nobody finds the memory from now on.
    """
    if MAPS.exists():  # on Linux
        fields = (line.split(maxsplit=5) for line in MAPS.read_text().splitlines())
        for path in {field[5] for field in fields if len(field) == 6}:
            if path.startswith(SEGMENTS) and not path.endswith(" (deleted)"):
                with suppress(OSError):  # another rank was first, or it may not, and all goes on
                    Path(path).unlink()
