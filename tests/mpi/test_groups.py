"""Groups of the ranks of a job, and a sweep by them."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from launcher import ENVIRONMENT, PROGRAMS, learnt, mpirun, start

from dpedf.tools.experiments.past import runs_in

# (rank, size, host_rank, hosts, local_rank, sum of the ranks of the world, that of the first)
WHO = [
    *((0, 1, 0, 1, k, k, k) for k in range(4)),
    *((k % 2, 2, k % 2, 1, k, [1, 1, 5, 5][k], k // 2 * 2) for k in range(4)),
    *((k, 4, k, 1, k, 6, 0) for k in range(4)),
]


def test_a_group_is_ranks_of_its_own_that_know_their_place_among_all_of_the_host():
    done = mpirun(4, PROGRAMS / "groups.py")
    expected = [*map(str, WHO), "segments with a name: 0"]
    assert (done.returncode, done.stdout.splitlines()) == (0, expected), done.stderr


def sweep(folder, name, *words):
    return ["-m", "dpedf", "sweep", folder / "digits.toml", f"run.dir={folder / name}", *words]


@pytest.fixture
def place(digits_in_place):
    """A folder with digits.toml, and one for what is temporary."""
    config = Path(__file__).parents[2] / "configs" / "digits.toml"
    (digits_in_place / "digits.toml").write_text(config.read_text())
    (digits_in_place / "tmp").mkdir()
    return digits_in_place


def test_groups_share_the_runs_of_a_sweep_and_learn_the_bits_of_one_rank(place):
    """One of them diverges."""
    options = {"cwd": place, "env": ENVIRONMENT | {"TMPDIR": str(place / "tmp")}}
    words = "train.weight_decay=[0.0,1e9,0.001,0.01]", "train.epochs=1"
    done = mpirun(4, *sweep(place, "groups", *words), "--each", 2, **options)
    assert (done.returncode, done.stderr) == (1, ""), done.stdout
    assert [*map(done.stdout.count, [": started", ": finished", ": failed"])] == [4, 3, 1]
    groups = runs_in(place / "groups")
    assert [run.status for run in groups] == ["finished"] * 3 + ["failed"]
    assert {run.ranks for run in groups[:3]} == {2}
    assert mpirun(1, *sweep(place, "alone", *words), **options).returncode == 1
    for run, other in zip(groups[:3], runs_in(place / "alone")[:3], strict=True):
        assert run.path.name == other.path.name
        assert np.array_equal(learnt(run.path)["phi"], learnt(other.path)["phi"])
    assert os.listdir(place / "tmp") == []
    assert all(name.startswith("weight_decay=") for name in os.listdir(place / "groups"))


# Odd ranks fail before the others, whose sum over ranks of a layer has begun by then.
FAILS = """
from mpi4py import MPI

from dpedf.ops import Affine, Flatten, LogLoss, Relu, Softmax
from dpedf.phi import dense, glorot

class Fails(Relu):
    def __init__(self, x, left):
        super().__init__(x)
        self.left = left

    def forward(self):
        self.fail_on(1)
        super().forward()

    def fail_on(self, odd):
        if not self.left and MPI.COMM_WORLD.rank % 2 == odd:
            raise TypeError("bad")

    def backward(self):
        self.fail_on(0)
        self.left -= 1
        super().backward()

def model(x, y, left, **others):
    hidden = Fails(Affine(dense(64, 16, glorot), Flatten(x)), left)
    Q = Softmax(Affine(dense(16, 10, glorot), hidden))
    return Q, LogLoss(Q, y)
"""


def test_groups_outlive_a_run_that_fails_and_one_rank_that_is_told_to_stop_stops_them_all(place):
    """The same command goes on then, but not with the run that failed."""
    (place / "fails.py").write_text(FAILS)
    words = "model.build=fails.py:model", "model.left=[100,1000000000,1000000001,1000000002]"
    words = *words, "run.allreduce=buckets", "run.bucket=64", "data.valid=0"
    words = sweep(place, "runs", *words, "train.epochs=100000", "--each", 2)
    job = start(4, *words, cwd=place)
    places = [place / "runs" / f"left=100000000{k}" / "metrics.jsonl" for k in range(2)]
    while not all(file.exists() for file in places):
        assert job.poll() is None
        time.sleep(0.05)
    os.kill(descendants(job.pid, 2)[-1], signal.SIGTERM)
    out, err = job.communicate(timeout=60)
    assert job.returncode == 75, out + err
    assert err.count("TypeError: bad") == 1 and out.count(": failed: TypeError: bad") == 1
    again = "the same command goes on: mpirun -n 4 python -m dpedf sweep"
    assert out.count(": stopped at step") == 2 and again in out
    assert [run.status for run in runs_in(place / "runs")] == ["failed", *["stopped"] * 2]
    assert not list((place / "runs").glob(".*"))


def descendants(process, generation):
    """The numbers of the processes of a generation after one: those that mpirun's helper starts."""
    if not generation:
        return [process]
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [its for child in children for its in descendants(int(child), generation - 1)]


def test_ranks_that_no_group_can_have_are_refused_before_anything_is_made(place):
    done = mpirun(3, *sweep(place, "runs", "seed=[0,1]"), "--each", 2, cwd=place)
    assert done.returncode == 2 and "--each 2, expected a divisor of the 3 ranks" in done.stderr
    assert done.stderr.count("\n") == 1 and not (place / "runs").exists()


def test_groups_on_gpus_of_their_own_learn_the_same_bits(place, few_digits, simulated):
    config = f"data.file={few_digits}", "train.steps=2", "run.device=gpu"
    words = *config, "run.log_every=[1,2]", "--each", 2
    env = ENVIRONMENT | simulated | {"FAKE_CUPY_DEVICES": "4"}
    done = mpirun(4, *sweep(place, "runs", *words), cwd=place, env=env)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    one, other = runs_in(place / "runs")
    assert (one.ranks, one.settings.run.device) == (2, "gpu")
    assert np.array_equal(learnt(one.path)["phi"], learnt(other.path)["phi"])
