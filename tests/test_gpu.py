"""A run on a GPU: a simulated one (tests/fake), and with `pytest -m gpu` a real one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from shipped import ROOT, SHIPPED, settings_of

PROGRAMS = Path(__file__).parent / "programs"
DIGITS = ROOT / "configs" / "digits.toml"


alone = pytest.mark.parametrize("gpu", ["simulated"], indirect=True)  # no real one


@pytest.fixture
def train(gpu, digits, tmp_path):
    """train(*settings) on the GPU, to the end; device="cpu" trains on the CPU."""

    def run(*settings, config=DIGITS, device="gpu", status=0, **variables):
        arguments = [config, f"data.file={digits}", f"run.dir={tmp_path}/run", *settings]
        done = subprocess.run(
            [sys.executable, "-m", "dpedf.train", *map(str, arguments), f"run.device={device}"],
            env=gpu | variables,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout if status == 0 else done.stderr

    return run


@pytest.fixture
def phi_of(train, tmp_path):
    """phi_of(*settings): Phi, as float64, at the end of a run."""

    def run(*settings, **options):
        train(*settings, "--overwrite", **options)
        return phi(tmp_path)

    return run


def phi(folder):
    with h5py.File(folder / "run" / "checkpoint.h5") as file:
        return file["phi"][...].astype(np.float64)


def distance(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def sha256(output):
    return output.splitlines()[-1].removeprefix("phi_sha256 ")


@pytest.mark.parametrize(
    ("precision", "stop", "most"), [("float64", "epochs=1", 1e-10), ("float32", "steps=50", 1e-5)]
)
def test_a_gpu_and_the_cpu_agree(phi_of, precision, stop, most):
    settings = f"train.precision={precision}", f"train.{stop}"
    found, expected = phi_of(*settings), phi_of(*settings, device="cpu")
    assert 0 < distance(found, expected) < most  # 0 would be the CPU's own


@pytest.mark.parametrize(
    "how",
    [
        "train.slices=8",
        "train.slices=0",
        "train.grad_clip=0.5",
        "train.batch_size=300",
        "run.log_every=1",
        "data.cache=memory",
        "data.cache=device",
    ],
)
def test_steps_that_are_replayed_have_the_bits_of_eager_ones(train, how):
    common = "train.epochs=4", "train.batch_size=256", how, "--overwrite"
    replayed, eager = train(*common), train(*common, "run.capture=off")
    assert sha256(replayed) == sha256(eager)
    assert "kernel by kernel" not in replayed
    assert "launched kernel by kernel: run.capture = 'off'" in eager


# The models of text, in less rows of less symbols, since each step of a sequence is many launches.
FEW_SYMBOLS = "data.window=8", "train.batch_size=10", "train.slices=2"


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_trains_as_on_the_cpu_and_is_replayed(phi_of, train, name, tmp_path):
    """The first step is as ever, the second is recorded, the others are replayed."""
    less = FEW_SYMBOLS if name.startswith("char_") else ()
    words = *settings_of(name, tmp_path), *less, "train.epochs=0", "train.steps=5"
    options = {"config": ROOT / "configs" / f"{name}.toml"}
    expected = phi_of(*words, device="cpu", **options)
    eager = train(*words, "run.capture=off", **options)
    replayed = train(*words, **options)
    assert sha256(replayed) == sha256(eager)
    assert ("kernel by kernel" in replayed) == (name == "debug")  # which looks for nan
    assert 0 < distance(phi(tmp_path), expected) < 1e-5


@pytest.mark.parametrize("precision, most", [("tf32", 1e-2), ("bfloat16", 3e-2)])
def test_reduced_precisions_stay_near_float32_and_keep_it_for_phi(
    phi_of, precision, most, tmp_path
):
    expected = phi_of("train.steps=20")
    found = phi_of("train.steps=20", f"train.precision={precision}")
    assert distance(found, expected) < most
    with h5py.File(tmp_path / "run" / "checkpoint.h5") as file:
        assert file["phi"].dtype == file["v"].dtype == np.float32


@pytest.mark.parametrize("there", ["gpu", "cpu"])
def test_a_run_that_was_stopped_on_a_gpu_goes_on(train, tmp_path, there):
    more = "train.steps=24", "train.schedule=constant"
    expected = train(*more, "--overwrite", "train.precision=float64")
    train("train.steps=11", "train.schedule=constant", "--overwrite", "train.precision=float64")
    resumed = train(*more, "--resume", "train.precision=float64", device=there)
    if there == "gpu":
        assert sha256(resumed) == sha256(expected)
    else:
        assert last(tmp_path)["test_loss"] == pytest.approx(loss(expected), abs=1e-4)


def last(folder):
    return json.loads((folder / "run" / "metrics.jsonl").read_text().splitlines()[-1])


def loss(output):
    return float(output.splitlines()[-2].split()[2].rstrip(","))


@alone
@pytest.mark.parametrize("late", ["1", "2 3 4 5 6 7 8"])
@pytest.mark.parametrize("cache", ["none", "device"])
def test_streams_may_be_as_late_as_events_let_them(train, late, cache):
    """Either what computes or what copies runs only when something waits for it: seldom, here."""
    seldom = "train.eval_every=1000", "run.log_every=1000", "train.checkpoint_every=1000"
    steps = "train.epochs=2", "train.batch_size=16", "train.slices=0"
    settings = *steps, *seldom, f"data.cache={cache}", "--overwrite"
    expected = sha256(train(*settings, "run.capture=off"))
    assert sha256(train(*settings, FAKE_CUPY_LATE=late)) == expected
    assert sha256(train(*settings, "run.capture=off", FAKE_CUPY_LATE=late)) == expected


def test_a_step_is_one_launch_that_waits_for_nothing(simulated, digits, tmp_path):
    """All that the host does is counted, in the steps that are replayed and not logged.

    Beside the graph there are its x and y, and the step and the learning rate as they are now.
    """
    program = [PROGRAMS / "launches.py", DIGITS, f"data.file={digits}", f"run.dir={tmp_path}/run"]
    done = subprocess.run(
        [sys.executable, *map(str, program), "train.epochs=4", "run.device=gpu"],
        env=simulated,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "2 copy, 2 elementwise, 1 graph"


def test_draws_are_those_of_the_cpu_and_new_ones_in_every_step(phi_of, train):
    model = f"model={{build='{ROOT}/tests/mpi/programs/noise.py:noisy'}}", "train.steps=30"
    expected = phi_of(*model, "train.precision=float64", device="cpu")
    assert distance(phi_of(*model, "train.precision=float64"), expected) < 1e-10
    replayed, eager = train(*model, "--overwrite"), train(*model, "run.capture=off", "--overwrite")
    assert sha256(replayed) == sha256(eager)


@pytest.mark.parametrize("slices", [0, 8])
@pytest.mark.parametrize("model", ["noise.py:dropped", "normalized.py:normalized"])
def test_nodes_that_know_the_minibatch_learn_as_on_the_cpu(phi_of, train, tmp_path, model, slices):
    """And are evaluated so: running values, too, are moved once a step where it is replayed."""
    if slices and model.startswith("normalized"):
        pytest.skip("it mixes the rows of a minibatch, which no slices do")
    model = f"model={{build='{ROOT}/tests/mpi/programs/{model}'}}"
    words = model, f"train.slices={slices}", "train.steps=30", "train.precision=float64"
    expected = phi_of(*words, device="cpu"), running(tmp_path), last(tmp_path)["test_loss"]
    eager = train(*words, "run.capture=off", "--overwrite")
    replayed = train(*words, "--overwrite")
    assert sha256(replayed) == sha256(eager) and "kernel by kernel" not in replayed
    assert 0 < distance(phi(tmp_path), expected[0]) < 1e-10
    for found, array in zip(running(tmp_path), expected[1], strict=True):
        np.testing.assert_allclose(found, array, rtol=1e-8)
    assert last(tmp_path)["test_loss"] == pytest.approx(expected[2], rel=1e-8)


def running(folder):
    """The running values of computed nodes."""
    with h5py.File(folder / "run" / "checkpoint.h5") as file:
        return [array[...] for array in file.get("running", {}).values()]


def test_what_is_tested_on_a_gpu_passes_on_a_simulated_one(simulated):
    tests = Path(__file__).with_name("test_on_gpu.py")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", str(tests)]
    done = subprocess.run(command, env=simulated, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    counted = done.stdout.splitlines()[-1]
    assert int(counted.split()[0]) > 1000 and "passed" in counted and "skipped" not in counted


@alone
def test_products_without_a_bias_of_their_own_have_it_subtracted(phi_of):
    settings = "train.steps=10", "train.precision=float64"
    expected = phi_of(*settings, device="cpu")
    assert distance(phi_of(*settings, FAKE_CUPY_BIAS="0"), expected) < 1e-10


@alone
def test_a_gpu_without_memory_for_a_step_ends_the_run_and_says_so(train):
    """And does not give away what graphs still write, as CuPy's own pools would."""
    error = train("train.steps=20", status=1, FAKE_CUPY_BYTES="100000")
    assert "MemoryError" in error and "out of memory" in error


@alone
def test_numbers_of_another_byte_order_are_brought_to_the_gpu_in_its_own(phi_of, digits, tmp_path):
    with h5py.File(digits) as there, h5py.File(tmp_path / "swapped.h5", "w") as here:
        here.attrs.update(there.attrs)
        for name in "train/x", "train/y", "test/x", "test/y":
            here[name] = there[name][...].astype(">i4")
    settings = "train.steps=5", "data.valid=0", "train.precision=float64"
    found = phi_of(*settings, f"data.file={tmp_path}/swapped.h5")
    assert distance(found, phi_of(*settings, device="cpu")) < 1e-10


def test_the_step_that_the_benchmark_times_is_recorded(simulated):
    pytest.importorskip("torch", reason="the benchmark compares with PyTorch")
    command = [sys.executable, str(PROGRAMS / "benchmark.py")]
    done = subprocess.run(command, env=simulated, capture_output=True, text=True, timeout=120)
    assert done.stdout == "1 recorded\n", done.stdout + done.stderr


# Where something is missing.

SLIDES = """
import numpy as np
from dpedf.edf import CompNode
from dpedf import models
from dpedf.ops import Flatten, LogLoss, Softmax
from dpedf.phi import dense

class Affine(CompNode):
    def __init__(self, Phi, x):
        self.Phi, self.x = Phi, x
    def forward(self):
        self.value = {forward}
    def backward(self):
        self.x.addgrad(self.grad @ self.Phi.w.value.T)
        self.Phi.w.addgrad(self.x.value.T @ self.grad)
        self.Phi.b.addgrad(-self.grad)

def slides(x, y):
    Q = Softmax(Affine(dense(64, 10), Flatten(x)))
    return Q, LogLoss(Q, y)
"""
FORWARD = "self.x.value @ self.Phi.w.value - self.Phi.b.value"
READS_THE_STEP = """
from dpedf import ops
from dpedf.program import context
from dpedf.phi import dense

class Growing(ops.Affine):
    def forward(self):
        super().forward()
        self.value = self.value * (1 + int(context.step))

def slides(x, y):
    Q = ops.Softmax(Growing(dense(64, 10), ops.Flatten(x)))
    return Q, ops.LogLoss(Q, y)
"""


@pytest.mark.parametrize(
    "model, why",
    [(SLIDES.format(forward=FORWARD), "NotImplementedError"), (READS_THE_STEP, "RuntimeError")],
    ids=["CuPy's @ is cuBLAS, which refuses", "the step, read on the host, would be the same ever"],
)
def test_a_users_node_that_cannot_be_recorded_is_launched_each_time(train, tmp_path, model, why):
    """One line says so, and the run goes on."""
    (tmp_path / "slides.py").write_text(model)
    settings = f"model={{build='{tmp_path}/slides.py:slides'}}", "train.steps=12", "--overwrite"
    output = train(*settings)
    assert output.count(f"launched kernel by kernel: {why}") == 1
    assert sha256(output) == sha256(train(*settings, "run.capture=off"))


def test_a_node_that_fails_on_the_gpu_fails_as_anywhere(train, tmp_path):
    forward = f"{FORWARD} + (1 / 0 if __import__('dpedf.edf').edf.context.train else 0)"
    (tmp_path / "slides.py").write_text(SLIDES.format(forward=forward))
    error = train(f"model={{build='{tmp_path}/slides.py:slides'}}", status=1)
    assert "ZeroDivisionError" in error


def test_without_nvmath_python_one_line_says_what_to_install(simulated, digits, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in "cupy", "cupyx":
        (alone / name).symlink_to(ROOT / "tests" / "fake" / name)
    (alone / "nvmath.py").write_text("raise ImportError('no nvmath here')\n")
    path = os.pathsep.join([str(alone), str(ROOT), str(ROOT / "tests")])
    settings = [DIGITS, f"data.file={digits}", f"run.dir={tmp_path}/run", "train.steps=20"]
    command = [sys.executable, "-m", "dpedf.train", *map(str, settings), "run.device=gpu"]
    options = dict(
        env=simulated | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120
    )
    done = subprocess.run(command, **options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("kernel by kernel") == 1
    assert "no nvmath here" in done.stdout and "cuda12" in done.stdout
    done = subprocess.run([*command, "train.precision=bfloat16", "--overwrite"], **options)
    assert done.returncode == 2 and "cuda12" in done.stderr and done.stderr.count("\n") == 1


@alone
def test_no_device_is_status_2_with_what_to_install(train):
    error = train(status=2, FAKE_CUPY_DEVICES="-1")
    assert error.count("\n") == 1 and "run.device = 'gpu'" in error and "pip install" in error


def test_a_driver_without_cupy_is_the_cpu_with_a_line_that_says_so(
    python, driver, digits, tmp_path
):
    settings = [DIGITS, f"data.file={digits}", f"run.dir={tmp_path}/run", "train.steps=1"]
    done = python("-m", "dpedf.train", *settings, **driver)
    assert done.returncode == 0, done.stderr
    notes = [line for line in done.stdout.splitlines() if 'pip install -e ".[cuda12]"' in line]
    assert len(notes) == 1 and notes[0].startswith("cpu: ")
    done = python("-m", "dpedf.train", *settings, "run.device=gpu", **driver)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert 'pip install -e ".[cuda12]"' in done.stderr


@alone
def test_granted_gpus_that_cannot_be_used_are_status_2_with_the_reason(train):
    error = train(status=2, device="auto", FAKE_CUPY_DEVICES="-1", CUDA_VISIBLE_DEVICES="0")
    assert error.count("\n") == 1 and "CUDA_VISIBLE_DEVICES = 0" in error and "pip" in error


def test_auto_takes_a_gpu_that_computes(train):
    output = train("train.steps=2", device="auto")
    assert " cpu," not in output.splitlines()[0]
