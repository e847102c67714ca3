"""BatchNorm on any number of ranks: its means are over the minibatch of all of them."""

import numpy as np
import pytest
from launcher import PROGRAMS, ROOT, assert_equal_up_to_rounding, learnt, mpirun
from shipped import few_rows
from trainings import Trainings

DIGITS = ROOT / "configs" / "digits_mlp.toml"
FILES = "checkpoint.h5", "best.h5"


BUILD = f"model={{build='{PROGRAMS}/normalized.py:normalized'}}"
COMMON = "train.precision=float64", "run.threads=1", "train.schedule=constant"
SLICES = 0, 5, 8
HOW = {"whole": ["run.allreduce=whole"], "buckets": ["run.allreduce=buckets", "run.bucket=200"]}


@pytest.fixture(scope="module")
def ended(digits, tmp_path_factory):
    """ended(name, n): how one of the runs below ended, on n ranks."""
    folder = tmp_path_factory.mktemp("normalization")
    trainings, few = Trainings(folder, mpirun), few_rows(folder / "few.h5")

    def add(ranks, name, *words, file=digits):
        trainings.add(ranks, name, DIGITS, BUILD, f"data.file={file}", *COMMON, *words)

    for V in SLICES:
        cut, whole = f"train.slices={V}", HOW["whole"]
        for how, words in HOW.items():
            add((1, 2, 3, 4), f"{V} slices, {how}", cut, "train.steps=25", *words)
        for B in 8, 11:
            short = "data.valid=0", f"train.batch_size={B}", "train.epochs=2", cut, *whole
            add((1, 3, 4), f"{V} slices of few rows by {B}", *short, file=few)
    for V in 0, 8:
        cut, whole = f"train.slices={V}", HOW["whole"]
        add((1, 3), f"{V} slices, not stopped", cut, "train.steps=30", *whole)
        add((1, 3), f"{V} slices, stopped", cut, "train.steps=11", *whole)
        add((1, 3), f"{V} slices, stopped: goes on", cut, "train.steps=30", *whole, "--resume")
    return trainings


@pytest.mark.parametrize("allreduce", HOW)
def test_phi_and_running_values_are_those_of_one_rank_up_to_rounding(ended, allreduce):
    alone = ended(f"0 slices, {allreduce}", 1).directory
    assert len(learnt(alone, "best.h5")) == 5
    for n in 2, 3, 4:
        for file in FILES:
            found = learnt(ended(f"0 slices, {allreduce}", n).directory, file)
            assert_equal_up_to_rounding(found, learnt(alone, file))


@pytest.mark.parametrize("V", SLICES[1:])
def test_with_slices_they_are_those_of_one_rank_to_the_bit(ended, V):
    """And without them, they are the same up to rounding."""
    whole = ended("0 slices, whole", 1).directory
    for file in FILES:
        alone = learnt(ended(f"{V} slices, whole", 1).directory, file)
        assert_equal_up_to_rounding(alone, learnt(whole, file))
        for how in HOW:
            for n in 1, 2, 3, 4:
                assert_equal(learnt(ended(f"{V} slices, {how}", n).directory, file), alone)


def assert_equal(found, expected):
    """Of what two runs have learnt, to the bit."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, name)


@pytest.mark.parametrize("V", SLICES)
@pytest.mark.parametrize("B", [8, 11])
def test_shards_and_slices_may_be_uneven_and_empty(ended, B, V):
    """Minibatches of 8 and 5 rows; of 11 rows and of two."""
    name = f"{V} slices of few rows by {B}"
    alone, *found = (learnt(ended(name, n).directory) for n in (1, 3, 4))
    for one in found:
        (assert_equal if V else assert_equal_up_to_rounding)(one, alone)


@pytest.mark.parametrize("V", [0, 8])
@pytest.mark.parametrize("n", [1, 3])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(ended, n, V):
    whole, resumed = (ended(f"{V} slices, {how}", n) for how in ("not stopped", "stopped: goes on"))
    assert "resumed" in resumed.output and resumed.phi_sha256 == whole.phi_sha256
    assert_equal(learnt(resumed.directory), learnt(whole.directory))
