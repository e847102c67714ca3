"""BatchNorm on any number of ranks: its means are over the minibatch of all of them."""

import numpy as np
import pytest
from launcher import PROGRAMS, ROOT, assert_equal_up_to_rounding, learnt, mpirun
from shipped import few_rows
from trainings import Trainings

DIGITS = ROOT / "configs" / "digits.toml"
FILES = "checkpoint.h5", "best.h5"


BUILD = f"model={{build='{PROGRAMS}/normalized.py:normalized'}}"
# Without slices, on one thread a rank.
COMMON = "train.precision=float64", "train.slices=0", "run.threads=1", "train.schedule=constant"
HOW = {"whole": ["run.allreduce=whole"], "buckets": ["run.allreduce=buckets", "run.bucket=200"]}


@pytest.fixture(scope="module")
def ended(digits, tmp_path_factory):
    """ended(name, n): how one of the runs below ended, on n ranks."""
    folder = tmp_path_factory.mktemp("normalization")
    trainings, few = Trainings(folder, mpirun), few_rows(folder / "few.h5")

    def add(ranks, name, *words, file=digits):
        trainings.add(ranks, name, DIGITS, BUILD, f"data.file={file}", *COMMON, *words)

    for how, words in HOW.items():
        add((1, 2, 3, 4), how, "train.steps=25", *words)
    for B in 8, 3:
        short = "data.valid=0", f"train.batch_size={B}", "train.epochs=2", *HOW["whole"]
        add((1, 3, 4), f"few rows by {B}", *short, file=few)
    add((1, 3), "not stopped", "train.steps=30", *HOW["whole"])
    add((1, 3), "stopped", "train.steps=11", *HOW["whole"])
    add((1, 3), "stopped: goes on", "train.steps=30", *HOW["whole"], "--resume")
    return trainings


@pytest.mark.parametrize("allreduce", HOW)
def test_phi_and_running_values_are_those_of_one_rank_up_to_rounding(ended, allreduce):
    alone = ended(allreduce, 1).directory
    assert len(learnt(alone, "best.h5")) == 5
    for n in 2, 3, 4:
        for file in FILES:
            found = learnt(ended(allreduce, n).directory, file)
            assert_equal_up_to_rounding(found, learnt(alone, file))


@pytest.mark.parametrize("B", [8, 3])
def test_shards_may_be_uneven_and_empty(ended, B):
    """Minibatches of 8 and 5 rows; of 3, and at last of one."""
    alone, *found = (learnt(ended(f"few rows by {B}", n).directory) for n in (1, 3, 4))
    for one in found:
        assert_equal_up_to_rounding(one, alone)


@pytest.mark.parametrize("n", [1, 3])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(ended, n):
    whole, resumed = ended("not stopped", n), ended("stopped: goes on", n)
    assert "resumed" in resumed.output and resumed.phi_sha256 == whole.phi_sha256
    expected = learnt(whole.directory)
    for name, array in learnt(resumed.directory).items():
        np.testing.assert_array_equal(array, expected[name], name)


def test_slices_are_status_2_with_one_line_that_names_the_node(digits, tmp_path):
    common = BUILD, f"data.file={digits}", f"run.dir={tmp_path}", *COMMON
    done = mpirun(2, "-m", "dpedf.train", DIGITS, *common, "train.slices=4")
    lines = [line for line in done.stderr.splitlines() if "train.slices = 4" in line]
    assert done.returncode == 2 and len(lines) == 1
    assert "digits.toml" in lines[0] and "expected 0: z3 = BatchNorm" in lines[0]
