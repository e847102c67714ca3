"""BatchNorm on any number of ranks: its means are over the minibatch of all of them."""

import numpy as np
import pytest
from launcher import (
    PROGRAMS,
    ROOT,
    assert_equal_up_to_rounding,
    learnt,
    mpirun,
    phi_sha256,
    train,
)

from dpedf.data import write

DIGITS = ROOT / "configs" / "digits.toml"
FILES = "checkpoint.h5", "best.h5"


@pytest.fixture
def settings(digits, tmp_path):
    """settings(*more): those of a model with BatchNorm, without slices, on one thread a rank."""
    model = f"model={{build='{PROGRAMS}/normalized.py:normalized'}}", "train.precision=float64"
    common = f"data.file={digits}", "train.slices=0", "run.threads=1", "run.allreduce=whole"
    run = f"run.dir={tmp_path}/run", "train.schedule=constant"
    return lambda *more: [*model, *common, *run, *more]


@pytest.fixture
def few(tmp_path):
    """A data file of 13 rows."""
    x, y = np.random.default_rng(0).integers(0, 17, (13, 8, 8), np.uint8), np.arange(13) % 10
    about = dict(name="few", source="this test", licence="none", classes=10, scale=1 / 16)
    write(tmp_path / "few.h5", **about, train=(x, y), test=(x, y))
    return tmp_path / "few.h5"


@pytest.mark.parametrize("allreduce", ["whole", "buckets"])
def test_phi_and_running_values_are_those_of_one_rank_up_to_rounding(settings, tmp_path, allreduce):
    more = "train.steps=25", f"run.allreduce={allreduce}", "run.bucket=200", "--overwrite"
    train(1, DIGITS, *settings(*more))
    expected = {file: learnt(tmp_path / "run", file) for file in FILES}
    assert len(expected["best.h5"]) == 5
    for n in 2, 3, 4:
        train(n, DIGITS, *settings(*more))
        for file in FILES:
            assert_equal_up_to_rounding(learnt(tmp_path / "run", file), expected[file])


@pytest.mark.parametrize("B", [8, 3])
def test_shards_may_be_uneven_and_empty(settings, few, tmp_path, B):
    """Minibatches of 8 and 5 rows; of 3, and at last of one."""
    more = f"data.file={few}", "data.valid=0", f"train.batch_size={B}", "train.epochs=2"
    train(1, DIGITS, *settings(*more, "--overwrite"))
    expected = learnt(tmp_path / "run")
    for n in 3, 4:
        train(n, DIGITS, *settings(*more, "--overwrite"))
        assert_equal_up_to_rounding(learnt(tmp_path / "run"), expected)


@pytest.mark.parametrize("n", [1, 3])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(settings, tmp_path, n):
    whole = phi_sha256(train(n, DIGITS, *settings("train.steps=30", "--overwrite")))
    expected = learnt(tmp_path / "run")
    train(n, DIGITS, *settings("train.steps=11", "--overwrite"))
    resumed = train(n, DIGITS, *settings("train.steps=30", "--resume"))
    assert phi_sha256(resumed) == whole
    for name, array in learnt(tmp_path / "run").items():
        np.testing.assert_array_equal(array, expected[name], name)


def test_slices_are_status_2_with_one_line_that_names_the_node(settings):
    done = mpirun(2, "-m", "dpedf.train", DIGITS, *settings("train.slices=4"))
    lines = [line for line in done.stderr.splitlines() if "train.slices = 4" in line]
    assert done.returncode == 2 and len(lines) == 1
    assert "digits.toml" in lines[0] and "expected 0: z3 = BatchNorm" in lines[0]
