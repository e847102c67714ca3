"""Several ranks, each on a simulated GPU (tests/fake), and with `pytest -m gpu` on a real one.

FAKE_CUPY_DEVICES says how many GPUs the ranks of this host find: with one for each of them sums
are NCCL's, simulated over MPI, which checks that all ranks make the same calls; with less, they
pass through the host.
"""

import sys
from functools import partial

import numpy as np
import pytest
from launcher import (
    OPEN_MPI,
    PROGRAMS,
    ROOT,
    SEARCH,
    assert_equal_up_to_rounding,
    assert_timeout_ends,
    learnt,
    mpirun,
)
from trainings import Trainings

DIGITS = ROOT / "configs" / "digits_mlp.toml"
alone = pytest.mark.parametrize("gpu", ["simulated"], indirect=True)  # no real one


@pytest.fixture
def environment_of(gpu):
    """environment_of(**variables): those of ranks that have GPUs."""
    return lambda **variables: gpu | SEARCH | OPEN_MPI | variables


@pytest.fixture
def settings(digits, tmp_path):
    run = f"data.file={digits}", f"run.dir={tmp_path}/run", "run.device=gpu", "--overwrite"
    return lambda *more: [*run, "train.batch_size=200", *more]


@pytest.fixture(scope="module")
def ended(gpu, few_digits, tmp_path_factory):
    """ended(name, n): how one of the runs below ended, on n ranks."""
    environment = gpu | SEARCH | OPEN_MPI
    folder = tmp_path_factory.mktemp("gpus")
    trainings = Trainings(folder, partial(mpirun, env=environment))
    data = f"data.file={few_digits}", "data.valid=20", "train.batch_size=100", "train.epochs=2"

    def add(n, gpus, name, *words):
        """2 minibatches an epoch and a shorter one: called, recorded, and twice replayed."""
        variables = "run.device=gpu", f"FAKE_CUPY_DEVICES={gpus}"
        trainings.add([n], name, DIGITS, *variables, *data, *words)

    def model(file, name):
        return f"model={{build='{PROGRAMS}/{file}.py:{name}'}}"

    for slices, devices in DEVICES.items():
        for n, gpus in devices:
            add(n, gpus, f"{slices} slices, {gpus} GPUs", f"train.slices={slices}")
    for gpus, how, capture in SUMS:
        words = f"run.allreduce={how}", "run.bucket=6000", f"run.capture={capture}"
        add(3, gpus, f"{gpus} GPUs, {how}, {capture}", *words)
    for n, gpus in (1, 1), (2, 1), (3, 1), (2, 3), (3, 3):
        words = "train.slices=0", "train.precision=float64"
        add(n, gpus, f"no slices, {gpus} GPUs", *words)
    for n, gpus, how in (1, 1, "whole"), *((2, *norm) for norm in NORMS):
        words = "train.slices=0", "train.precision=float64", f"run.allreduce={how}"
        words = model("normalized", "normalized"), *words, "run.bucket=200"
        for capture in "auto", "off":
            name = f"BatchNorm, {gpus} GPUs, {how}, {capture}"
            add(n, gpus, name, *words, f"run.capture={capture}")
    for n, gpus in NORMS_IN_SLICES:
        words = model("normalized", "normalized"), "train.slices=5"
        add(n, gpus, f"BatchNorm, 5 slices, {gpus} GPUs", *words)
    for name, _ in MODELS:
        add(1, 1, name, model("noise", name), "run.capture=off")
        add(2, 2, f"{name}, auto", model("noise", name))
        words = "run.allreduce=buckets", "run.bucket=100"
        add(2, 2, f"{name}, buckets", model("noise", name), *words)
    for gpus, late, how in LATE if "FAKE_CUPY_KERNELS" in gpu else ():
        words = f"FAKE_CUPY_LATE={late}", f"run.allreduce={how}", "run.bucket=6000"
        add(2, gpus, f"{gpus} GPUs, {how}, late {late}", *words)
    add(2, 2, "no NCCL", "FAKE_CUPY_NCCL=0")
    return trainings


@pytest.fixture
def alone_it_ends_with(ended):
    """The phi_sha256 of 8 slices on one GPU."""
    return ended("8 slices, 1 GPUs", 1).phi_sha256


# By the number of slices, which ranks on which GPUs: each its own, or several one.
DEVICES = {8: [(1, 1), (2, 2), (3, 3), (4, 4), (2, 1), (4, 2)], 5: [(1, 1), (3, 3), (4, 2)]}
DEVICES[3] = [(1, 1), (4, 2), (4, 4)]  # one rank gets no slice


@pytest.mark.parametrize("slices", DEVICES)
def test_slices_have_the_same_bits_on_any_number_of_gpus(ended, slices):
    runs = [ended(f"{slices} slices, {gpus} GPUs", n) for n, gpus in DEVICES[slices]]
    assert len({run.phi_sha256 for run in runs}) == 1
    assert not any("kernel by kernel" in run.output for run in runs)


# GPUs of 3 ranks, sums, capture: every pair.
SUMS = [(1, "whole", "auto"), (1, "buckets", "off"), (3, "whole", "off"), (3, "buckets", "auto")]


@pytest.mark.parametrize("gpus, how, capture", SUMS)
def test_how_sums_are_made_changes_no_bit(ended, alone_it_ends_with, gpus, how, capture):
    assert ended(f"{gpus} GPUs, {how}, {capture}", 3).phi_sha256 == alone_it_ends_with


@pytest.mark.parametrize("gpus", [1, 3])
def test_without_slices_gpus_agree_up_to_rounding(ended, gpus):
    alone = phi_of(ended("no slices, 1 GPUs", 1))
    for n in 2, 3:
        phi = phi_of(ended(f"no slices, {gpus} GPUs", n))
        assert 0 < np.linalg.norm(phi - alone) / np.linalg.norm(phi) < 1e-12


def phi_of(run):
    return learnt(run.directory)["phi"].astype(np.float64)


NORMS = [(2, "whole"), (2, "buckets"), (1, "buckets")]


@pytest.mark.parametrize("gpus, how", NORMS)
def test_batch_norm_adds_over_gpus(ended, gpus, how):
    """By NCCL, recorded; and through the host, where its sums are in the midst of a pass."""
    alone = learnt(ended("BatchNorm, 1 GPUs, whole, auto", 1).directory)
    recorded, eager = (
        learnt(ended(f"BatchNorm, {gpus} GPUs, {how}, {capture}", 2).directory)
        for capture in ("auto", "off")
    )
    assert len(alone) == 5 and (recorded["phi"] != alone["phi"]).any()
    assert_equal_up_to_rounding(recorded, alone)
    for name, array in recorded.items():
        np.testing.assert_array_equal(eager[name], array, name)


NORMS_IN_SLICES = [(1, 1), (2, 2), (3, 3), (2, 1)]


def test_batch_norm_of_slices_has_the_same_bits_on_any_number_of_gpus(ended):
    runs = [ended(f"BatchNorm, 5 slices, {gpus} GPUs", n) for n, gpus in NORMS_IN_SLICES]
    assert len({run.phi_sha256 for run in runs}) == 1
    expected = learnt(runs[0].directory)
    assert len(expected) == 5
    for run in runs[1:]:
        for name, array in learnt(run.directory).items():
            np.testing.assert_array_equal(array, expected[name], name)


COMPUTATION, COPIES = "1", "2 3 4 5 6 7 8"  # as streams are counted
HOW = "whole", "buckets"
LATE = [
    *((gpus, late, how) for gpus in (1, 2) for late in (COMPUTATION, COPIES) for how in HOW),
    *((gpus, f"{COMPUTATION} {COPIES}", "buckets") for gpus in (1, 2)),
]


@alone
@pytest.mark.parametrize("gpus, late, how", LATE)
def test_sums_wait_for_what_they_add_and_updates_for_sums(
    ended, alone_it_ends_with, gpus, late, how
):
    assert ended(f"{gpus} GPUs, {how}, late {late}", 2).phi_sha256 == alone_it_ends_with


MODELS = [("noisy", 0), ("dropped", 0), ("noisy_slides", 1)]


@pytest.mark.parametrize("model, lines", MODELS)
def test_any_model_has_the_same_bits_on_two_gpus(ended, model, lines):
    """Where recording is given up after sums over ranks were started, too."""
    for how in "auto", "buckets":
        run = ended(f"{model}, {how}", 2)
        assert run.phi_sha256 == ended(model, 1).phi_sha256
        assert run.output.count("launched kernel by kernel: NotImplementedError") == lines


@alone
def test_ranks_that_share_a_gpu_are_told_so_once(ended):
    assert ended("8 slices, 2 GPUs", 4).output.count("shared by 2 ranks") == 2  # one line a GPU
    assert "shared" not in ended("8 slices, 2 GPUs", 2).output


@alone
def test_without_nccl_sums_pass_through_the_host_and_one_line_says_so(ended, alone_it_ends_with):
    run = ended("no NCCL", 2)
    assert run.output.count("sums over ranks pass through the host") == 1
    assert run.phi_sha256 == alone_it_ends_with


@alone
def test_a_sum_that_fails_ends_the_job(environment_of, settings):
    environment = environment_of(FAKE_CUPY_DEVICES="2", FAKE_CUPY_NCCL_FAILS="1")
    done = mpirun(2, "-m", "dpedf.train", DIGITS, *settings(), env=environment)
    assert done.returncode not in (0, 2, 75) and "NcclError" in done.stderr


@alone
def test_a_rank_that_is_stopped_ends_the_job_after_the_timeout(environment_of, settings):
    environment = environment_of(FAKE_CUPY_DEVICES="2")
    assert_timeout_ends(2, DIGITS, *settings(), env=environment)


@alone
def test_graphs_are_gone_before_nccl_is(ended, environment_of, settings):
    """It would wait for them: also where a user's error, here no float64, ends the run."""
    assert ended("no NCCL", 2) and ended.jobs[2].returncode == 0
    assert "ncclCommDestroy" not in ended.jobs[2].stderr
    wrong, environment = "run.check_gradients=true", environment_of(FAKE_CUPY_DEVICES="2")
    done = mpirun(2, "-m", "dpedf.train", DIGITS, *settings(wrong), env=environment)
    assert done.returncode == 2 and "ncclCommDestroy" not in done.stderr


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
