"""What the launcher of a run says: how many processes there are, and which one this is."""

import os
import shlex
import sys

from dpedf.errors import AgreedError, UserError, print_error

LAUNCHERS = {
    "PMI_SIZE": "PMI_RANK",
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",
}


def expect_numbers():
    """Exit with one line and status 2, where a variable is no number: MPI could not start."""
    for pair in LAUNCHERS.items():
        for name in pair:
            found, rank = (os.environ.get(variable, "0") for variable in (name, pair[1]))
            if not is_number(found):
                if not is_number(rank) or int(rank) == 0:  # so that only one of them prints it
                    expected = "a number, as a launcher sets it, or no such variable"
                    print_error(f'{name} = "{found}", expected {expected}')
                sys.exit(UserError.status)


def launched():
    """Was this process started by a launcher, be it as the only rank?"""
    return any(size in os.environ for size in LAUNCHERS)


def size():
    """How many processes the launcher started, be they a world or not."""
    return max(int(os.environ.get(variable, 1)) for variable in LAUNCHERS)


def rank():
    """Which of them this one is."""
    return max(int(os.environ.get(variable, 0)) for variable in LAUNCHERS.values())


def speaks():
    """Is this the one process that talks, before there are ranks?"""
    return all(int(os.environ.get(variable, 0)) == 0 for variable in LAUNCHERS.values())


def command(ranks, *words):
    """The command, for a shell, that runs a tool of dpedf on as many ranks: its name, and words."""
    if ranks.size == 1:
        return shlex.join(["dpedf", *words])
    by_srun = os.environ.get("SLURM_STEP_NUM_TASKS") == str(ranks.size)
    first = ["srun" if by_srun else "mpirun", "-n", str(ranks.size)]
    return shlex.join([*first, "python", "-m", "dpedf", *words])


def is_number(text):
    return text.isdecimal() and len(text) < 10


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
