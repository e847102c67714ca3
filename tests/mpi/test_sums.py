"""Sums over ranks: the same bits on any number of ranks, and on all of them."""

import pytest
from launcher import PROGRAMS, mpirun


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_tree_has_the_bits_of_one_rank_for_any_slices_length_and_bucket(n):
    done = mpirun(n, PROGRAMS / "tree.py")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 150


@pytest.mark.parametrize(
    "slices, model", [(0, "noise.py:noisy"), (8, "noise.py:noisy"), (0, "normalized.py:normalized")]
)
@pytest.mark.parametrize("overlap", ["whole", "buckets"])
def test_all_ranks_hold_the_same_bits_after_every_step(digits, slices, model, overlap):
    done = mpirun(3, PROGRAMS / "same_bits.py", digits, slices, overlap, PROGRAMS / model)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("29 steps")
