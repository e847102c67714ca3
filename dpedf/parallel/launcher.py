"""What the launcher of a run says: how many processes there are, and which one this is."""

import os

from dpedf.errors import AgreedError

LAUNCHERS = {
    "PMI_SIZE": "PMI_RANK",
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",
}


def expect_one_world(ranks):
    """AgreedError: under another MPI's launcher, every process believes that it is alone."""
    for size, rank in LAUNCHERS.items():
        launched = int(os.environ.get(size, 1))
        if ranks.size == 1 < launched:
            ranks.rank = int(os.environ.get(rank, 0))  # so that only one of them prints it
            raise AgreedError(
                f"{size} = {launched}, but {ranks.mpi} was loaded and sees one rank: "
                "expected the mpirun of that library"
            )
