"""A run on a GPU: a simulated one (tests/fake), and with `pytest -m gpu` a real one."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from shipped import LESS, ROOT, SHIPPED, settings_of
from trainings import Trainings

PROGRAMS = Path(__file__).parent / "programs"
DIGITS = ROOT / "configs" / "digits_mlp.toml"
LIMIT = 600  # seconds, which only what hangs takes

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
            timeout=LIMIT,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout if status == 0 else done.stderr

    return run


@pytest.fixture(scope="module")
def ended(gpu, few_digits, tmp_path_factory):
    """ended(name): how one of the runs below ended, all of one process."""
    folder = tmp_path_factory.mktemp("gpu")

    def launch(_, *arguments):
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, env=gpu, capture_output=True, text=True, timeout=LIMIT)

    trainings = Trainings(folder, launch)

    def add(name, *words, device="gpu", config="digits_mlp", file=few_digits):
        settings = f"data.file={file}", f"run.device={device}", *words
        few = ["data.valid=20"] if config == "digits_mlp" else []
        trainings.add([1], name, ROOT / "configs" / f"{config}.toml", *few, *settings)

    def add_cpu(name, *words, **options):
        add(f"{name}, cpu", *words, device="cpu", **options)

    def add_both(name, *words, **options):
        """Recorded and replayed, and launched kernel by kernel."""
        add(name, *words, **options)
        add(f"{name}, eager", *words, "run.capture=off", **options)

    for precision, _ in PRECISIONS:
        for added in add, add_cpu:
            added(precision, f"train.precision={precision}", "train.steps=15")
    for how, eager in REPLAYED.items():
        added = add_both if how == eager else add
        added(how, "train.epochs=3", "train.batch_size=100", how)
    for name in SHIPPED:
        less = FEW_SYMBOLS if name.startswith("char_") else FEW_LAYERS.get(name, ())
        file = settings_of(name, folder / name)[0].removeprefix("data.file=")
        words = *less, "train.epochs=0", "train.steps=4"
        for added in add_cpu, add_both:
            added(name, *words, config=name, file=file)
    for precision, _ in (("float32", 0), *REDUCED):
        add(f"8 steps, {precision}", "train.steps=8", f"train.precision={precision}")
    more = "train.schedule=constant", "train.precision=float64"
    add("not stopped", "train.steps=10", *more)
    for device in "gpu", "cpu":
        add(f"stopped, {device}", "train.steps=5", *more)
        add(f"stopped, {device}: goes on", "train.steps=10", *more, "--resume", device=device)
    for words in WEIGHED:
        add(words, "train.steps=10", "train.precision=float64", *words.split())
        add_cpu(words, "train.steps=10", "train.precision=float64", *words.split())
    for name in MODELS:
        file, model, slices = name.split()
        build = f"model={{build='{ROOT}/tests/mpi/programs/{file}.py:{model}'}}"
        words = build, f"train.slices={slices}", "train.steps=10", "train.precision=float64"
        for added in add_cpu, add_both:
            added(name, *words)
    for cache in ("none", "device") if "FAKE_CUPY_KERNELS" in gpu else ():
        seldom = "train.eval_every=1000", "run.log_every=1000", "train.checkpoint_every=1000"
        steps = "train.steps=30", "train.slices=0"
        words = *steps, *seldom, f"data.cache={cache}"
        add(f"in time, {cache}", *words, "run.capture=off")
        for late in COMPUTATION, COPIES:
            add_both(f"late {late}, {cache}", *words, f"FAKE_CUPY_LATE={late}")
    few = "train.steps=5", "train.precision=float64"
    add("without a bias", *few, "FAKE_CUPY_BIAS=0")
    add_cpu("5 steps", *few)
    add(
        "of another byte order",
        *few,
        "data.valid=0",
        file=swapped(few_digits, folder / "swapped.h5"),
    )
    add_cpu("without rows to validate", *few, "data.valid=0")
    return trainings


def swapped(file, path):
    with h5py.File(file) as there, h5py.File(path, "w") as here:
        here.attrs.update(there.attrs)
        for name in "train/x", "train/y", "test/x", "test/y":
            here[name] = there[name][...].astype(">i4")
    return path


def phi(run):
    """Phi at the end of a run."""
    return learnt(run)["phi"].astype(np.float64)


def learnt(run):
    """What a run has learnt, by name: phi, what its optimizer remembers, and running values."""
    with h5py.File(run.directory / "checkpoint.h5") as file:
        running = {name: array[...] for name, array in file.get("running", {}).items()}
        return {"phi": file["phi"][...], "v": file["v"][...], **running}


def distance(found, expected):
    found, expected = phi(found), phi(expected)
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def sha256(output):
    return output.splitlines()[-1].removeprefix("phi_sha256 ")


PRECISIONS = [("float64", 1e-10), ("float32", 1e-5)]


@pytest.mark.parametrize("precision, most", PRECISIONS)
def test_a_gpu_and_the_cpu_agree(ended, precision, most):
    found = distance(ended(precision), ended(f"{precision}, cpu"))
    assert 0 < found < most  # 0 would be the CPU's own


# What is replayed, and which of them launched kernel by kernel has the same bits.
DIFFER = "train.slices=8", "train.slices=0", "train.grad_clip=0.5", "train.batch_size=110"
SAME = "run.log_every=1", "data.cache=memory", "data.cache=device"
REPLAYED = {how: how for how in DIFFER} | {how: "train.slices=8" for how in SAME}


@pytest.mark.parametrize("how", REPLAYED)
def test_steps_that_are_replayed_have_the_bits_of_eager_ones(ended, how):
    replayed, eager = ended(how), ended(f"{REPLAYED[how]}, eager")
    assert replayed.phi_sha256 == eager.phi_sha256
    assert "kernel by kernel" not in replayed.output
    assert "launched kernel by kernel: run.capture = 'off'" in eager.output


# The models of text, in less rows of less symbols, since each step of a sequence is many launches.
FEW_SYMBOLS = "data.window=8", "train.batch_size=10", "train.slices=2"
# In float32, relus of normalized channels make a difference of rounding a thousand times as large.
FEW_LAYERS = {"cifar10": (*LESS["cifar10"], "model.depth=8", "train.precision=float64")}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_trains_as_on_the_cpu_and_is_replayed(ended, name):
    """The first step is as ever, the second is recorded, the others are replayed."""
    replayed, eager, on_cpu = (ended(name + where) for where in ("", ", eager", ", cpu"))
    assert replayed.phi_sha256 == eager.phi_sha256
    assert ("kernel by kernel" in replayed.output) == (name == "debug")  # which looks for nan
    assert 0 < distance(replayed, on_cpu) < 5e-5  # with Adam, which divides by small numbers


REDUCED = [("tf32", 1e-2), ("bfloat16", 3e-2)]


@pytest.mark.parametrize("precision, most", REDUCED)
def test_reduced_precisions_stay_near_float32_and_keep_it_for_phi(ended, precision, most):
    found = ended(f"8 steps, {precision}")
    assert distance(found, ended("8 steps, float32")) < most
    assert {array.dtype for array in learnt(found).values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("there", ["gpu", "cpu"])
def test_a_run_that_was_stopped_on_a_gpu_goes_on(ended, there):
    whole, resumed = ended("not stopped"), ended(f"stopped, {there}: goes on")
    if there == "gpu":
        assert resumed.phi_sha256 == whole.phi_sha256
    else:
        assert 0 < distance(resumed, whole) < 1e-10


def last(run):
    return json.loads((run.directory / "metrics.jsonl").read_text().splitlines()[-1])


COMPUTATION, COPIES = "1", "2 3 4 5 6 7 8"  # as streams are counted
LATE = [(cache, late) for cache in ("none", "device") for late in (COMPUTATION, COPIES)]


@alone
@pytest.mark.parametrize("cache, late", LATE)
def test_streams_may_be_as_late_as_events_let_them(ended, cache, late):
    """Either what computes or what copies runs only when something waits for it: seldom, here."""
    expected = ended(f"in time, {cache}").phi_sha256
    assert ended(f"late {late}, {cache}").phi_sha256 == expected
    assert ended(f"late {late}, {cache}, eager").phi_sha256 == expected


def test_a_step_is_one_launch_that_waits_for_nothing(simulated, digits, tmp_path):
    """All that the host does is counted, in the steps that are replayed and not logged.

    Beside the graph there is one that brings its x and y, the number of the step, and eta.
    """
    program = [PROGRAMS / "launches.py", DIGITS, f"data.file={digits}", f"run.dir={tmp_path}/run"]
    done = subprocess.run(
        [sys.executable, *map(str, program), "train.epochs=4", "run.device=gpu"],
        env=simulated,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "1 bring, 1 graph"


def passes(what, environment):
    """What programs/passes.py prints."""
    command = [sys.executable, str(PROGRAMS / "passes.py"), what]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_how_many_slices_a_pass_takes_changes_no_bit(gpu):
    """Neither in equal ones nor in others, of no row too, launched and replayed."""
    for model, runs in passes("bits", gpu).items():
        _, expected = runs.popitem()
        assert len({*expected}) == 3
        assert all(learnt == expected for learnt in runs.values()), (model, runs)


def test_a_pass_of_eight_slices_is_little_more_launches_than_one_of_one(simulated):
    for model, (one, eight) in passes("launches", simulated).items():
        assert 0 < one < eight <= 1.5 * one, (model, one, eight)


RESULTS = ROOT / "benchmarks" / "RESULTS.md"


@pytest.mark.parametrize("of", ["images", pytest.param("texts", marks=pytest.mark.slow)])
def test_the_launches_of_a_step_are_those_that_the_page_on_results_has(simulated, tmp_path, of):
    """It says the rows as they should be; the page has the launches of before, too."""
    command = [sys.executable, str(PROGRAMS / "recorded.py"), str(tmp_path), of]
    done = subprocess.run(command, env=simulated, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr
    found, page = json.loads(done.stdout), RESULTS.read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in page if line.startswith("|")]
    before, wrong = {row[0]: row[1:3] for row in rows}, []
    for name, now in found.items():
        row = f"| {' | '.join([name, *before.get(name, '--'), *map(str, now)])} |"
        if row not in page:
            wrong.append(row)
    assert not wrong, "\n".join(wrong)
    assert found.get("a layer of char_transformer", [0])[0] <= 60
    assert found.get("a time step of char_lstm", [0])[0] <= 8


def test_a_time_step_of_a_recurrent_layer_is_few_launches(simulated):
    """Forward and backward together."""
    found = passes("time steps", simulated)
    assert found["char_lstm"] <= 8 and found["char_gru"] <= 11, found


# Models with nodes that know the minibatch, and slices: those that mix its rows can have none.
WEIGHED = ["model.smoothing=0.1 model.class_weights=[1,2,3,1,1,1,0,1,1,1] run.metrics=['top5']"]


@pytest.mark.parametrize("words", WEIGHED)
def test_weights_smoothing_and_metrics_are_those_of_the_cpu(ended, words):
    found, on_cpu = ended(words), ended(f"{words}, cpu")
    assert 0 < distance(found, on_cpu) < 1e-10
    assert "kernel by kernel" not in found.output
    (top5,) = re.findall("test loss.*(top-5 .*),", found.output)
    assert top5 in on_cpu.output


MODELS = ["noise noisy 8", "noise dropped 0", "noise dropped 8", "normalized normalized 0"]


@pytest.mark.parametrize("name", MODELS)
def test_nodes_that_know_the_minibatch_learn_as_on_the_cpu(ended, name):
    """And are evaluated so: draws are new ones, and running values move, in steps replayed too."""
    replayed, eager, on_cpu = (ended(name + where) for where in ("", ", eager", ", cpu"))
    assert replayed.phi_sha256 == eager.phi_sha256 and "kernel by kernel" not in replayed.output
    assert 0 < distance(replayed, on_cpu) < 1e-10
    found, expected = learnt(replayed), learnt(on_cpu)
    assert found.keys() == expected.keys()
    assert len(found) == (6 if name.startswith("normalized") else 2)
    for key, array in found.items():
        np.testing.assert_allclose(array, expected[key], 1e-8, 1e-10)
    assert last(replayed)["test_loss"] == pytest.approx(last(on_cpu)["test_loss"], rel=1e-8)


def test_what_is_tested_on_a_gpu_passes_on_a_simulated_one(simulated):
    tests = Path(__file__).with_name("test_on_gpu.py")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", str(tests)]
    done = subprocess.run(command, env=simulated, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stdout
    counted = done.stdout.splitlines()[-1]
    assert int(counted.split()[0]) > 100 and "passed" in counted and "skipped" not in counted


@alone
def test_products_without_a_bias_of_their_own_have_it_subtracted(ended):
    assert distance(ended("without a bias"), ended("5 steps, cpu")) < 1e-10


# Memory for a pass of one of two slices, also where it is recorded, and not for one of all rows.
WIDE = "data.valid=20", "train.batch_size=192", "model.sizes=[64,16384,10]", "train.steps=4"
WIDE += ("train.slices=2",)
SHORT_OF_MEMORY = {"FAKE_CUPY_BYTES": "98_000_000"}


@alone
@pytest.mark.parametrize("capture", ["auto", "off"])
def test_a_gpu_without_memory_for_a_step_ends_the_run_and_names_the_rows_of_a_pass(
    train, few_digits, capture
):
    """And does not give away what graphs still write, as CuPy's own pools would."""
    how = f"data.file={few_digits}", "train.rows=192", f"run.capture={capture}"
    error = train(*WIDE, *how, status=1, **SHORT_OF_MEMORY)
    *_, line = error.splitlines()
    assert line.startswith("out of memory in a pass: Out of memory") and "train.rows sets" in line
    assert "Traceback" not in error


@pytest.mark.parametrize("capture", ["auto", "off"])
def test_a_loss_that_is_not_finite_ends_a_run_with_the_line_of_the_cpu(train, capture):
    diverges = "model.sizes=[64,128,64,10]", "train.learning_rate=1e9", "--overwrite"
    on_gpu = train(*diverges, f"run.capture={capture}", status=1)
    assert on_gpu == train(*diverges, "run.device=cpu", status=1)
    assert on_gpu.startswith("step 3, epoch 1: the loss is not finite") and on_gpu.count("\n") == 1


@alone
def test_a_pass_takes_no_more_slices_than_there_is_memory_for(train, few_digits):
    """Those that do not fit are tried, and the run is recorded nevertheless."""
    whole = train(*WIDE, f"data.file={few_digits}", "train.rows=192")
    output = train(*WIDE, f"data.file={few_digits}", "--overwrite", **SHORT_OF_MEMORY)
    assert "2 slices, 2 in a pass" in whole and "2 slices, 1 in a pass" in output
    assert "kernel by kernel" not in output
    assert sha256(output) == sha256(whole)


@alone
def test_numbers_of_another_byte_order_are_brought_to_the_gpu_in_its_own(ended):
    found, expected = ended("of another byte order"), ended("without rows to validate, cpu")
    assert distance(found, expected) < 1e-10


def benchmark(simulated, *words):
    """What benchmarks/gpu.py prints of minibatches of one row, PyTorch computing on the CPU."""
    pytest.importorskip("torch", reason="the benchmark compares with PyTorch")
    command = [sys.executable, str(PROGRAMS / "benchmark.py"), "--batches", "1", *words]
    done = subprocess.run(command, env=simulated, capture_output=True, text=True, timeout=LIMIT)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def test_the_benchmark_records_and_times_steps(simulated):
    words = "784-128", "LeNet 6", "LSTM"
    output = benchmark(simulated, "--no-compile", "--tf32", *words)
    for word in words:
        rows = [line for line in output.splitlines() if line.startswith(word) and "B =" in line]
        assert [row.count("nan") for row in rows] == [4, 1], output  # of what is compiled alone


def test_the_benchmark_lists_the_kernels_of_steps(simulated):
    """Those in the graph of a step: of two layers it has five products, as x gets no gradient."""
    output = benchmark(simulated, "--profile", "784-128", "softmax", "transformer")
    assert "transformer 4x128, B = 1, captured" in output
    for name, products in ("softmax 784-10", 2), ("784-128-10", 5):
        ours, theirs = output.split(f"\n\n{name}, B = 1, ")[1:]
        _, *kernels = ours.partition("\n\n")[0].splitlines()
        of_a_step = {kernel: int(count) for _, _, count, kernel in map(str.split, kernels)}
        assert of_a_step["matmul"] == products
        assert of_a_step["negate_pieces"] == of_a_step["momentum"] == 1  # whatever the layers
        title, kernel = theirs.splitlines()[:2]
        assert title.endswith("us a step, 1 kernel of 1.0 us")
        assert kernel.split() == ["1.0", "100.0%", "1", "its", "kernel"]


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
        env=simulated | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=LIMIT
    )
    done = subprocess.run(command, **options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("kernel by kernel") == 1
    assert "no nvmath here" in done.stdout and "cuda12" in done.stdout
    done = subprocess.run([*command, "train.precision=bfloat16", "--overwrite"], **options)
    assert done.returncode == 2 and "cuda12" in done.stderr and done.stderr.count("\n") == 1


BROKEN = """
import sys
from types import SimpleNamespace
from dpedf.device.gpu import acquire
from dpedf.errors import UserError
from nvmath.bindings import cublasLt

class Broken:
    def __init__(self, error):
        self.error = error

    def __getattribute__(self, name):
        raise super().__getattribute__("error")

def load(error):
    sys.modules["nvmath"] = sys.modules["nvmath.bindings"] = Broken(error)

def begin(error):
    def create():
        raise error
    lt = SimpleNamespace(get_version=lambda: 1, create=create)
    sys.modules["nvmath.bindings"] = SimpleNamespace(cublasLt=lt)

def multiply(error):
    def matmul(*arguments):
        raise error
    parts = {name: value for name, value in vars(cublasLt).items() if name[:2] != "__"}
    lt = SimpleNamespace(**parts | {"matmul": matmul})
    sys.modules["nvmath.bindings"] = SimpleNamespace(cublasLt=lt)

errors = [OSError("no such\\nlibrary"), RuntimeError("driver"), TypeError("enum"), KeyError("x")]
for breaks in load, begin, multiply:
    for error in *errors, MemoryError("none left"), AttributeError("cuda.core"):
        breaks(error)
        gpu = acquire(0, "float32", True, print)
        print(gpu.products, gpu.note)
        gpu.close()
    try:
        acquire(0, "bfloat16", True, print)
    except UserError as error:
        print(error)
"""


def test_nvmath_python_may_fail_in_any_way(python, simulated):
    done = python("-c", BROKEN, **simulated)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3 * 7
    for k, line in enumerate(lines):
        assert line.startswith("train.precision = 'bfloat16'" if k % 7 == 6 else "CuPy launched")
        assert line.endswith('expected nvmath-python: pip install -e ".[cuda12]"')
    assert "OSError: no such library," in lines[0] and "AttributeError: cuda.core," in lines[-2]


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
