"""Ranks that no longer hold the same numbers stop at once, and save nothing."""

import h5py
import numpy as np
import pytest
from launcher import ROOT, mpirun
from threaded import on_ranks

from dpedf.errors import AgreedRunError
from dpedf.parallel import equality

MODEL = """
import os
from dpedf.edf import CompNode, context
from dpedf.ops import Affine, Flatten, LogLoss, Softmax
from dpedf.phi import dense

RANK = os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK"))

class Fault(CompNode):
    def __init__(self, x, bias):
        self.x, self.bias = x, bias
    def forward(self):
        self.value = self.x.value
        if context.step == 20 and RANK == "1":
            self.bias().value[0] += 1e-6
    def backward(self):
        self.x.addgrad(self.grad)

def faulty(x, y):
    Phi = dense(64, 10)
    Q = Softmax(Affine(Phi, Flatten(x)))
    return Q, Fault(LogLoss(Q, y), lambda: Phi.b)
"""
# Just before anything is saved after step 25, another momentum.
FORGETFUL = """
import sys
from dpedf import train
from dpedf.parallel import job
from dpedf.run.saves import Saves

def main(ranks):
    save = Saves.save

    def forget_and_save(self, name, training):
        step = training.step
        if ranks.rank == 1 and step.number >= 25:
            step.update.state["v"][3] = 1.0
        save(self, name, training)

    Saves.save = forget_and_save
    return train.main(ranks, sys.argv[1:])

job.run(main)
"""

OTHER_KERNELS = """
import os, runpy
if os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK")) == "1":
    os.environ["OPENBLAS_CORETYPE"] = "Prescott"
runpy.run_module("dpedf.train", run_name="__main__")
"""


def settings(digits, tmp_path, *more):
    digits = ROOT / "configs" / "digits_mlp.toml", f"data.file={digits}", f"run.dir={tmp_path}/run"
    return [*digits, "train.epochs=0", "train.steps=60", "train.checkpoint_every=5", *more]


def assert_stopped(done, tmp_path, step, *words):
    """With one line, and a checkpoint of what was the same on all ranks."""
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    line = done.stderr.splitlines()[0]
    assert done.stderr.count("step ") == 1 and all(word in line for word in words), done.stderr
    with h5py.File(tmp_path / "run" / "checkpoint.h5") as file:
        assert file.attrs["step"] == step


@pytest.mark.parametrize(("n", "check_every", "found"), [(2, 7, 21), (3, 0, 25)])
def test_ranks_of_another_phi_are_named_at_the_next_check(digits, tmp_path, n, check_every, found):
    model = tmp_path / "model.py"
    model.write_text(MODEL)
    config = tmp_path / "config.toml"
    config.write_text(f"""
    data.file = "{digits}"
    model.build = "{model}:faulty"
    train = {{batch_size = 64, slices = 8, steps = 60, learning_rate = 0.1, checkpoint_every = 5}}
    run = {{check_every = {check_every}, dir = "{tmp_path}/run"}}
    """)
    done = mpirun(n, "-m", "dpedf.train", config)
    assert_stopped(done, tmp_path, 20, f"step {found}: rank 1 (", "differ in phi,")


def test_ranks_of_another_state_of_the_optimizer_are_named_before_it_is_saved(digits, tmp_path):
    done = mpirun(2, "-c", FORGETFUL, *settings(digits, tmp_path))
    assert_stopped(done, tmp_path, 20, "step 25: rank 1 (", "differ in v,")


@pytest.mark.parametrize(
    ("phis", "who"),
    [
        ([1, 2], "rank 1"),
        ([2, 1, 1], "rank 0"),
        ([1, 2, 1, 2, 1], "rank 1"),
        ([0.0, -0.0], "rank 1"),
    ],
)
def test_the_ranks_that_differ_from_most_are_named(phis, who):
    def compare(rank):
        phi, v = np.full(3, phis[rank.rank]), np.zeros(3)
        equality.expect_equal(rank, 1000, {"phi": phi, "v": v})

    with pytest.raises(AgreedRunError, match=rf"step 1,000: {who} \(.* differ in phi,"):
        on_ranks(len(phis), compare)


def test_ranks_that_differ_in_different_vectors_are_an_error_too():
    def compare(rank):
        vectors = {name: np.full(3, float(rank.rank == k)) for k, name in enumerate(("phi", "v"))}
        equality.expect_equal(rank, 1, vectors)

    with pytest.raises(AgreedRunError, match="differ in phi"):
        on_ranks(2, compare)


def test_equal_ranks_are_not_disturbed():
    on_ranks(3, lambda rank: equality.expect_equal(rank, 1, {"phi": np.ones(3)}))


def test_ranks_of_other_arithmetic_are_said_in_one_line(digits, tmp_path):
    done = mpirun(2, "-c", OTHER_KERNELS, *settings(digits, tmp_path))
    said = [line for line in done.stdout.splitlines() if "rank 1 computes with BLAS" in line]
    assert done.returncode == 0 and len(said) == 1 and "mixture" in said[0], done.stdout
    done = mpirun(2, "-m", "dpedf.train", *settings(digits, tmp_path, "--overwrite"))
    assert done.returncode == 0 and "computes with" not in done.stdout
