"""Rows that the ranks of a host share, for data.cache = "memory", as far as there is room."""

import os
import shutil
import subprocess
import sys

import pytest
from launcher import ENVIRONMENT, LIMIT, ROOT, mpirun

from dpedf.parallel.shared_memory import FOLDER

# Prints the sum of what rank 0 of the host has put into the array, as each rank finds it.
SHARE = """
import os, sys
import numpy as np
from dpedf.parallel import job
from dpedf.parallel.shared_memory import shared_array

def main(ranks):
    array = shared_array(ranks, (int(sys.argv[1]), 1 << 10), np.uint8)
    with ranks.together():
        if ranks.host_rank == 0:
            array[...] = 1
    ranks.say([int(array.sum()) for array in ranks.gather(array[:, :3])])
    ranks.say(sorted(name for name in os.listdir("/dev/shm") if name.startswith("dpedf-")))

job.run(main)
"""


def names():
    return {name for name in os.listdir(FOLDER) if name.startswith("dpedf-")}


def test_ranks_share_an_array_that_leaves_no_name_behind(tmp_path):
    (tmp_path / "share.py").write_text(SHARE)
    before = names()
    done = mpirun(2, tmp_path / "share.py", 5, env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout) == (0, f"[15, 15]\n{sorted(before)}\n")
    assert names() == before


ON_A_SMALL = f'mount -t tmpfs -o size=32m tmpfs {FOLDER} && "$@"'


def test_rows_for_which_there_is_no_room_are_one_line(tmp_path):
    (tmp_path / "share.py").write_text(SHARE)
    alone = ["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c", ON_A_SMALL, "sh"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"]).returncode:
        pytest.skip("needs root, or a kernel that lets users mount a tmpfs")
    command = [*alone, "mpirun", "-n", "2", sys.executable, tmp_path / "share.py", "50000"]
    options = {"env": ENVIRONMENT | {"PYTHONPATH": str(ROOT)}, "timeout": LIMIT}
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("51,200,000 bytes, expected at most the ")
    assert done.stderr.endswith(f" that are free in {FOLDER}\n") and done.stderr.count("\n") == 1
