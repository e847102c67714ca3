"""Several ranks, each on a simulated GPU (tests/fake), and with `pytest -m gpu` on a real one.

FAKE_CUPY_DEVICES says how many GPUs the ranks of this host find: with one for each of them sums
are NCCL's, simulated over MPI, which checks that all ranks make the same calls; with less, they
pass through the host.
"""

import os
import signal
import sys
import time

import h5py
import numpy as np
import pytest
from launcher import (
    OPEN_MPI,
    PROGRAMS,
    ROOT,
    SEARCH,
    assert_equal_up_to_rounding,
    learnt,
    mpirun,
    phi_sha256,
    ranks_of,
    start,
    train,
)

DIGITS = ROOT / "configs" / "digits.toml"
ONE_GPU = pytest.StashKey()
alone = pytest.mark.parametrize("gpu", ["simulated"], indirect=True)  # no real one


@pytest.fixture
def environment_of(gpu):
    """environment_of(**variables): those of ranks that have GPUs."""
    return lambda **variables: gpu | SEARCH | OPEN_MPI | variables


@pytest.fixture
def settings(digits, tmp_path):
    run = f"data.file={digits}", f"run.dir={tmp_path}/run", "run.device=gpu", "--overwrite"
    return lambda *more: [*run, "train.epochs=3", "train.batch_size=200", *more]


@pytest.fixture
def alone_it_ends_with(environment_of, settings, request):
    """The phi_sha256 of these settings on one GPU, found once for each kind of GPU."""
    found = request.config.stash.setdefault(ONE_GPU, {})
    kind = request.node.callspec.params["gpu"]
    if kind not in found:
        found[kind] = phi_sha256(train(1, DIGITS, *settings(), env=environment_of()))
    return found[kind]


def phi_of(folder):
    with h5py.File(folder / "run" / "checkpoint.h5") as file:
        return file["phi"][...].astype(np.float64)


@pytest.mark.parametrize("slices", [8, 5])
def test_slices_have_the_same_bits_on_any_number_of_gpus(environment_of, settings, slices):
    found = set()
    for n, gpus in (1, 1), (2, 2), (3, 3), (4, 4), (2, 1), (4, 2):
        environment = environment_of(FAKE_CUPY_DEVICES=str(gpus))
        output = train(n, DIGITS, *settings(f"train.slices={slices}"), env=environment)
        found.add(phi_sha256(output))
        assert "kernel by kernel" not in output
    assert len(found) == 1


@pytest.mark.parametrize("gpus", ["1", "3"])
@pytest.mark.parametrize("how", ["whole", "buckets"])
@pytest.mark.parametrize("capture", ["auto", "off"])
def test_how_sums_are_made_changes_no_bit(
    environment_of, settings, alone_it_ends_with, gpus, how, capture
):
    more = settings(f"run.allreduce={how}", "run.bucket=6000", f"run.capture={capture}")
    output = train(3, DIGITS, *more, env=environment_of(FAKE_CUPY_DEVICES=gpus))
    assert phi_sha256(output) == alone_it_ends_with


@pytest.mark.parametrize("gpus", ["1", "3"])
def test_without_slices_gpus_agree_up_to_rounding(environment_of, settings, tmp_path, gpus):
    more = settings("train.slices=0", "train.precision=float64", "train.epochs=1")
    found = []
    for n in 1, 2, 3:
        train(n, DIGITS, *more, env=environment_of(FAKE_CUPY_DEVICES=gpus))
        found.append(phi_of(tmp_path))
    for phi in found[1:]:
        assert 0 < np.linalg.norm(phi - found[0]) / np.linalg.norm(phi) < 1e-12


@pytest.mark.parametrize("gpus, how", [("2", "whole"), ("2", "buckets"), ("1", "buckets")])
def test_batch_norm_adds_over_gpus(environment_of, settings, tmp_path, gpus, how):
    """By NCCL, recorded; and through the host, where its sums are in the midst of a pass."""
    model = f"model={{build='{PROGRAMS}/normalized.py:normalized'}}"
    words = model, "train.slices=0", "train.precision=float64", "train.epochs=1"
    found = []
    for n, capture in (1, "auto"), (2, "auto"), (2, "off"):
        more = settings(*words, f"run.allreduce={how}", "run.bucket=200", f"run.capture={capture}")
        train(n, DIGITS, *more, env=environment_of(FAKE_CUPY_DEVICES=gpus))
        found.append(learnt(tmp_path / "run"))
    alone, recorded, eager = found
    assert len(alone) == 5 and (recorded["phi"] != alone["phi"]).any()
    assert_equal_up_to_rounding(recorded, alone)
    for name, array in recorded.items():
        np.testing.assert_array_equal(eager[name], array, name)


@alone
@pytest.mark.parametrize("late", ["1", "2 3 4 5 6 7 8", "0 1 2 3 4 5 6 7 8"])
@pytest.mark.parametrize("gpus", ["1", "2"])
def test_sums_wait_for_what_they_add_and_updates_for_sums(
    environment_of, settings, alone_it_ends_with, gpus, late
):
    environment = environment_of(FAKE_CUPY_DEVICES=gpus, FAKE_CUPY_LATE=late)
    for how in "whole", "buckets":
        more = settings(f"run.allreduce={how}", "run.bucket=6000")
        assert phi_sha256(train(2, DIGITS, *more, env=environment)) == alone_it_ends_with


@pytest.mark.parametrize("model, lines", [("noisy", 0), ("dropped", 0), ("noisy_slides", 1)])
def test_any_model_has_the_same_bits_on_two_gpus(environment_of, settings, model, lines):
    """Where recording is given up after sums over ranks were started, too."""
    more = settings(f"model={{build='{PROGRAMS}/noise.py:{model}'}}")
    expected = phi_sha256(train(1, DIGITS, *more, "run.capture=off", env=environment_of()))
    for how in "auto", "buckets":
        more = [*more, f"run.allreduce={how}", "run.bucket=100"]
        output = train(2, DIGITS, *more, env=environment_of(FAKE_CUPY_DEVICES="2"))
        assert phi_sha256(output) == expected
        assert output.count("launched kernel by kernel: NotImplementedError") == lines


@alone
def test_ranks_that_share_a_gpu_are_told_so_once(environment_of, settings):
    output = train(4, DIGITS, *settings("train.steps=1"), env=environment_of(FAKE_CUPY_DEVICES="2"))
    assert output.count("shared by 2 ranks") == 2  # one line a GPU
    output = train(2, DIGITS, *settings("train.steps=1"), env=environment_of(FAKE_CUPY_DEVICES="2"))
    assert "shared" not in output


@alone
def test_without_nccl_sums_pass_through_the_host_and_one_line_says_so(
    environment_of, settings, alone_it_ends_with
):
    environment = environment_of(FAKE_CUPY_DEVICES="2", FAKE_CUPY_NCCL="0")
    output = train(2, DIGITS, *settings(), env=environment)
    assert output.count("sums over ranks pass through the host") == 1
    assert phi_sha256(output) == alone_it_ends_with


@alone
def test_a_sum_that_fails_ends_the_job(environment_of, settings):
    environment = environment_of(FAKE_CUPY_DEVICES="2", FAKE_CUPY_NCCL_FAILS="1")
    began = time.monotonic()
    done = mpirun(2, "-m", "dpedf.train", DIGITS, *settings(), env=environment)
    assert done.returncode not in (0, 2, 75) and "NcclError" in done.stderr
    assert time.monotonic() - began < 30


@alone
def test_a_rank_that_is_stopped_ends_the_job_after_the_timeout(environment_of, settings, tmp_path):
    more = settings("train.epochs=100000", "run.timeout=3")
    job = start(2, "-m", "dpedf.train", DIGITS, *more, env=environment_of(FAKE_CUPY_DEVICES="2"))
    victim = ranks_of(job, tmp_path / "run", 2)[-1]
    began = time.monotonic()
    os.kill(victim, signal.SIGSTOP)
    _, err = job.communicate(timeout=60)
    assert time.monotonic() - began < 3 + 5
    assert job.returncode not in (0, 2, 75) and "no step for 3 seconds" in err


@alone
@pytest.mark.parametrize("what", ["run.check_gradients=true", "train.steps=30"])
def test_graphs_are_gone_before_nccl_is(environment_of, settings, what):
    """It would wait for them: also where a user's error, here no float64, ends the run."""
    status = 2 if "check" in what else 0
    environment = environment_of(FAKE_CUPY_DEVICES="2")
    done = mpirun(2, "-m", "dpedf.train", DIGITS, *settings(what), env=environment)
    assert done.returncode == status and "ncclCommDestroy" not in done.stderr


@alone
def test_ranks_on_other_kinds_of_device_stop_with_one_line(environment_of, settings):
    """Rank 1 has no GPU, or another one."""
    train_it = ["-m", "dpedf.train", DIGITS, *settings()]
    for name, device in ("Another GPU", "gpu"), ("", "cpu"):
        rank = ["env", f"FAKE_CUPY_NAME={name}", sys.executable, *train_it, f"run.device={device}"]
        done = mpirun(1, *train_it, ":", "-n", "1", *rank, env=environment_of())
        assert done.returncode == 2, done.stderr
        ours = [line for line in done.stderr.splitlines() if "the device: rank 1 has" in line]
        assert len(ours) == 1, done.stderr
