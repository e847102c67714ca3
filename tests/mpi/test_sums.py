"""Sums over ranks: the same bits on any number of ranks, and on all of them."""

import pytest
from launcher import PROGRAMS, mpirun


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_tree_has_the_bits_of_one_rank_for_any_slices_length_and_bucket(n):
    done = mpirun(n, PROGRAMS / "tree.py")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 150


def test_all_ranks_hold_the_same_bits_after_every_step(digits):
    """With slices and without, where nodes draw and where they mix rows, however sums are made."""
    models = ("0", "noise.py:noisy"), ("8", "noise.py:noisy"), ("0", "normalized.py:normalized")
    words = [word for slices, model in models for word in (slices, PROGRAMS / model)]
    done = mpirun(3, PROGRAMS / "same_bits.py", digits, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("29 steps") == 2 * len(models)
