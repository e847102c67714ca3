"""dpedf export and model.weights: the same numbers in PyTorch, and back; and model.freeze."""

import hashlib
import json
import re
import sys
from collections import OrderedDict
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from launcher import mpirun
from shipped import settings_of
from trainings import Trainings

from dpedf.__main__ import run
from dpedf.device import CPU
from dpedf.edf import Backward, CompNode, Forward, Input, Package, Parameter
from dpedf.errors import UserError
from dpedf.kernels import conv as kernels_conv
from dpedf.models import autoencoder, char_gru, char_lstm, char_transformer, mlp
from dpedf.models.images import conv
from dpedf.ops import (
    Affine,
    BatchNorm,
    Conv2D,
    Flatten,
    GRUCell,
    LSTMCell,
    RMSNorm,
    Slice,
    Sum,
    Zeros,
)
from dpedf.phi import Phi, Uniform, dense
from dpedf.run import config
from dpedf.run.build import build, freeze
from dpedf.run.checkpoint import read
from dpedf.run.trained import Trained
from dpedf.run.weights import exported, of_checkpoint, start_from
from dpedf.tools.export import notes

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "pytorch.md").read_text()
PROGRAMS = dict(re.findall(r"`configs/(\w+)\.toml`[^`]*```python\n(.*?)```", PAGE, re.DOTALL))
JOB = ROOT / "tests" / "programs" / "trainings.py"
SMALL = "train.batch_size=12", "train.slices=0", "train.rows=12", "run.device=cpu"
SHIPPED = "mnist", "lenet", "digits", "char_lstm", "char_transformer"

safetensors = pytest.importorskip("safetensors.numpy", reason="needs safetensors")


@pytest.fixture(scope="module")
def trained(python, tmp_path_factory):
    """{config: a folder with its run of two steps, in float64, and model.safetensors}"""
    root, runs = tmp_path_factory.mktemp("trained"), []
    for name in SHIPPED:
        less = ["train.epochs=0", "train.steps=2", "train.precision=float64", *SMALL]
        less += ["data.window=8"] * (name == "char_lstm")
        words = *settings_of(name, root / name, rows=200), *less
        runs.append([str(ROOT / "configs" / f"{name}.toml"), *words])
    (root / "runs.json").write_text(json.dumps(runs))
    ran = python(JOB, root / "runs.json")
    assert ran.stdout.count("status 0") == len(SHIPPED), ran.stdout + ran.stderr
    for name in SHIPPED:
        assert run("export", f"{root}/{name}/run", f"{root}/{name}/model.safetensors") == 0
    return {name: root / name for name in SHIPPED}


@pytest.fixture
def torch():
    """PyTorch, in float64."""
    torch = pytest.importorskip("torch", reason="the reference is PyTorch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch
    torch.set_default_dtype(before)


def made(model, x, y=None, **keywords):
    """(output, ell, Phi) of a model in float64, its numbers drawn from -1..1."""
    Q, ell = model(x, y, **keywords)
    phi, random = Phi(ell, 0, np.float64), np.random.default_rng(0)
    for array in phi.value, *phi.state.values():
        array[...] = random.uniform(-1, 1, array.shape)
    for name, array in phi.state.items():
        array[...] = np.abs(array) + 0.1 if "variance" in name else array
    return Q, ell, phi


def loaded(torch, module, ell, step=7):
    """The module with the arrays of a program, whose names have to be the module's."""
    arrays = exported(ell, step)
    module.load_state_dict({key: torch.tensor(array) for key, array in arrays.items()})
    return module.eval()


# What is exported computes the same in PyTorch.


def test_the_page_has_a_program_for_each_kind_of_model():
    assert [*PROGRAMS] == [*SHIPPED]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_programs_of_the_page_compute_what_dpedf_does(
    name, trained, torch, tmp_path, monkeypatch
):
    monkeypatch.chdir(trained[name])
    its = {}
    exec(PROGRAMS[name], its)
    model, random = Trained("run", CPU()), np.random.default_rng(1)
    x = random.random((5, *model.x.shape))
    if model.x.classes:
        x = random.integers(model.x.classes, size=(5, *model.x.shape))
    model.x.value = x.astype(model.x.dtype)
    Forward(model.Q)
    with torch.no_grad():
        found = its["model"](torch.tensor(model.x.value)).softmax(-1)
    np.testing.assert_allclose(found, model.Q.value, rtol=1e-11, atol=1e-14)
    assert np.ptp(model.Q.value) > 1e-3


def test_a_gru_is_pytorchs(torch):
    x, y = Input((6,), np.intp, 5), Input((6,), np.intp, 5)
    Q, ell, _ = made(char_gru, x, y, embedding=4, hidden=3)
    nn = torch.nn
    layers = {"Phi1": nn.Embedding(5, 4), "Phi2": nn.GRU(4, 3, batch_first=True)}
    its = loaded(torch, nn.ModuleDict(layers | {"Phi4": nn.Linear(3, 5)}), ell)
    x.value = np.random.default_rng(1).integers(5, size=(2, 6))
    Forward(Q)
    with torch.no_grad():
        h, _ = its["Phi2"](its["Phi1"](torch.tensor(x.value)))
        np.testing.assert_allclose(its["Phi4"](h).softmax(-1), Q.value, rtol=1e-12)


def test_a_gru_without_biases_is_pytorchs(torch):
    x, J = Input((2, 4), float), 3
    w, u = Uniform((4, 3 * J), 1), Uniform((J, 3 * J), 1)
    P, h = Package("gru", w=w, u=u), Zeros(x, J)
    for t in range(2):
        h = GRUCell(Slice(x @ P.w, t), h @ P.u, h)
    ell = Sum(h)
    Phi(ell, 0, np.float64)
    gru = torch.nn.GRU(4, J, bias=False, batch_first=True)
    its = loaded(torch, torch.nn.ModuleDict({"gru": gru}), ell)["gru"]
    x.value = np.random.default_rng(1).normal(size=(5, 2, 4))
    Forward(ell)
    with torch.no_grad():
        expected, _ = its(torch.tensor(x.value))
    np.testing.assert_allclose(expected[:, -1], h.value, rtol=1e-12)


def normalized(x, y):
    """Strided convolutions, BatchNorm of channels and of units, RMSNorm, and a product alone."""

    def norm(name, J):
        return Package(name, w=Parameter(np.ones(J)), b=Parameter(np.zeros(J)))

    z = BatchNorm(norm("channels", 4), Conv2D(conv(3, 4, 3, name="c"), x, stride=2, padding=1))
    z = BatchNorm(norm("units", 5), Affine(dense(36, 5, name="d"), Flatten(z)))
    z = RMSNorm(Package("rms", w=Parameter(np.ones(5))).w, z)
    Q = z @ Package("last", w=Uniform((5, 2), 1)).w
    return Q, Sum(Q)


def test_two_layers_in_one_product_are_no_lstm_of_pytorchs():
    """Its blocks of gates are not those of one layer."""
    x, J = Input((2,), float), 3
    P, u = dense(2, 8 * J), Uniform((J, 4 * J), 1)
    z = Affine(P, x)
    for part in slice(0, 4 * J), slice(4 * J, None):
        s = LSTMCell(Slice(z, part), Zeros(x, J) @ u, Zeros(x, 2 * J))
    ell = Sum(s)
    Phi(ell, 0, np.float64)
    assert np.array_equal(exported(ell, 0)["Phi1.weight"], P.w.value.T)


def test_normalization_has_pytorchs_running_values_and_signs(torch):
    x = Input((3, 6, 5), float)
    Q, ell, _ = made(normalized, x)
    nn = torch.nn
    layers = {
        **{"c": nn.Conv2d(3, 4, 3, stride=2, padding=1), "channels": nn.BatchNorm2d(4)},
        **{"flat": nn.Flatten(), "d": nn.Linear(36, 5), "units": nn.BatchNorm1d(5)},
        **{"rms": nn.RMSNorm(5, eps=1e-5), "last": nn.Linear(5, 2, bias=False)},
    }
    its = loaded(torch, nn.Sequential(OrderedDict(layers)), ell)
    x.value = np.random.default_rng(1).normal(size=(4, 3, 6, 5))
    Forward(Q)
    with torch.no_grad():
        np.testing.assert_allclose(its(torch.tensor(x.value)), Q.value, rtol=1e-10)
    assert its.units.num_batches_tracked == 7


def tied():
    """(ell, Phi) of an autoencoder, whose decoder has the encoder's weights, transposed."""
    x = Input((6,), float)
    return made(autoencoder, x, None, sizes=[6, 4, 2])[1:]


def test_what_is_used_twice_is_written_once_and_a_line_says_so():
    ell, phi = tied()
    arrays = exported(ell, 0)
    keys = ["Phi1.weight", "Phi1.bias", "Phi2.weight", "Phi2.bias", "Phi3.bias", "Phi4.bias"]
    assert sorted(arrays) == sorted(keys)
    w = {p.name: p.value for p in phi.parameters}["Phi1.w"]
    assert np.array_equal(arrays["Phi1.weight"], w.T)
    line = "Phi1.w (by Affine and Transpose), Phi2.w (by Affine and Transpose)"
    assert notes(ell) == {"used in several ways": line}


class Scaled(CompNode):
    """y[b,i] = x[b,i] w[i]"""

    def __init__(self, Phi, x):
        self.Phi, self.x = Phi, x

    def forward(self):
        self.value = self.x.value * self.Phi.w.value

    def backward(self):
        """Nobody trains here."""


def test_what_a_node_of_ones_own_takes_is_written_as_it_is():
    P = Package("mine", w=Parameter(np.arange(1.0, 4)), gain=Parameter(np.float64(2)))
    ell = Sum(Scaled(P, Affine(dense(3, 3), Input((3,), float))) * P.gain)
    Phi(ell, 0, np.float64)
    arrays = exported(ell, 0)
    assert [*arrays] == ["mine.w", "mine.gain", "Phi2.weight", "Phi2.bias"]
    assert arrays["mine.w"].tolist() == [1, 2, 3] and arrays["mine.gain"] == 2
    assert [*notes(ell).values()] == ["mine.w, mine.gain", "mine.gain (by Multiply and Scaled)"]


# The way back.


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("file", ["model.safetensors", "run/best.h5"])
def test_what_was_exported_and_a_checkpoint_bring_every_bit_back(name, file, trained):
    model = Trained(trained[name] / "run", CPU())
    ell = build(model.settings.model, *model.form.inputs())[1]
    phi = Phi(ell, 1, np.float64)
    assert phi.sha256() != model.phi.sha256()
    assert start_from(trained[name] / file, ell)[1] == []
    assert phi.sha256() == model.phi.sha256()
    with safetensors.safe_open(trained[name] / "model.safetensors", "np") as its:
        assert its.metadata()["phi_sha256"] == phi.sha256() and its.metadata()["step"] == "2"


def test_a_last_layer_is_left_out_as_the_page_says(trained, torch, monkeypatch):
    monkeypatch.chdir(trained["mnist"])
    exec(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[-1], {})
    model = Trained("run", CPU())
    ell = build(model.settings.model | {"freeze": ["Phi1"]}, *model.form.inputs())[1]
    phi = Phi(ell, 1, np.float64)
    assert start_from("body.safetensors", ell)[1] == ["Phi3"]
    its = {p.name: p.value for p in model.phi.parameters}
    equal = {p.name: np.array_equal(p.value, its[p.name]) for p in phi.parameters[:-1]}
    assert equal == {"Phi2.w": True, "Phi2.b": True, "Phi3.w": False}
    assert np.array_equal(phi.state["Phi1.w"], its["Phi1.w"])


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_signs_of_zeros_and_running_values_come_back_too(zero, tmp_path):
    x, text = Input((3, 6, 5), float), Input((6,), np.intp, 5)
    for model, its, more in (normalized, x, {}), (char_lstm, text, {"embedding": 2, "hidden": 3}):
        _, ell, phi = made(model, its, text, **more)
        phi.value[...] *= np.random.default_rng(2).random(phi.value.shape) < 0.5
        phi.value[phi.value == 0] = zero
        before = [a.tobytes() for a in (phi.value, *phi.state.values())]
        safetensors.save_file(exported(ell, 3), tmp_path / "a.safetensors")
        for array in phi.value, *phi.state.values():
            array[...] = 5
        start_from(tmp_path / "a.safetensors", ell)
        assert [a.tobytes() for a in (phi.value, *phi.state.values())] == before


def test_both_biases_of_an_lstm_from_pytorch_count(torch, tmp_path):
    x = Input((6,), np.intp, 5)
    Q, ell, phi = made(char_lstm, x, x, embedding=4, hidden=3)
    lstm, arrays = torch.nn.LSTM(4, 3, batch_first=True), exported(ell, 0)
    assert notes(ell) == {}
    theirs = {f"Phi2.{key}": its.detach().numpy() for key, its in lstm.named_parameters()}
    safetensors.save_file(arrays | theirs, tmp_path / "a.safetensors")
    start_from(tmp_path / "a.safetensors", ell)
    x.value = np.random.default_rng(1).integers(5, size=(2, 6))
    Forward(Q)
    with torch.no_grad():
        h, _ = lstm(torch.tensor(arrays["Phi1.weight"][x.value]))
        w, b = (torch.tensor(arrays[f"Phi3.{key}"]) for key in ("weight", "bias"))
        np.testing.assert_allclose((h @ w.T + b).softmax(-1), Q.value, rtol=1e-12)


@pytest.fixture
def files(tmp_path):
    """files(**changes): (ell, Phi, a file of its arrays with these changes; None: without it)."""
    x, y = Input((4,), np.float32), Input((), np.intp, 3)
    ell = mlp(x, y, sizes=[4, 5, 3])[1]
    phi = Phi(ell, 0)

    def write(changes):
        arrays = {key: array + np.float32(1) for key, array in exported(ell, 0).items()} | changes
        arrays = {key: array for key, array in arrays.items() if array is not None}
        safetensors.save_file(arrays, tmp_path / "a.safetensors")
        return ell, phi, tmp_path / "a.safetensors"

    return write


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"Phi1.bias": None}, ["missing: Phi1.bias"]),
        ({"Phi9.w": np.ones(2)}, ["not in the model: Phi9.w"]),
        ({"Phi2.bias": None, "b": np.ones(3)}, ["not in the model: b", "; expected Phi2.bias"]),
        ({"Phi2.bias": np.ones(4)}, ["Phi2.bias (4,), expected (3,)"]),
        ({"Phi2.bias": np.ones(3, int)}, ["no floats: Phi2.bias"]),
        ({"Phi2.bias": np.array([1, np.nan, 1])}, ["Phi2.bias is not finite"]),
        ({"Phi2.bias": np.array([1, 1e300, 1])}, ["Phi2.bias is not finite", "float32"]),
        (
            {"Phi1.bias": None, "a": np.ones(1), "Phi1.weight": np.ones((4, 5))},
            ["not in the model: a", "missing: Phi1.bias", "Phi1.weight (4, 5), expected (5, 4)"],
        ),
        ({f"Phi{k}.{w}": None for k in (1, 2) for w in ("weight", "bias")}, ["nothing"]),
    ],
    ids=str,
)
def test_values_of_another_model_are_refused_in_one_line(changes, words, files, refused):
    ell, phi, file = files(changes)
    before = phi.sha256()
    with refused(file, *words):
        start_from(file, ell)
    assert phi.sha256() == before or "finite" in words[0]


def test_a_layer_that_is_not_in_the_file_starts_afresh(files):
    ell, phi, file = files({"Phi2.weight": None, "Phi2.bias": None})
    before = phi.value.copy()
    assert start_from(file, ell)[1] == ["Phi2"]
    changed = phi.value != before
    assert changed[: 4 * 5].all() and not changed[4 * 5 + 5 :].any()


@pytest.mark.parametrize(
    "content", [b"", b"PK\3\4", b"a" * 9, b"dpedf checkpoint: ", b"\xff" * 99], ids=str
)
def test_a_file_that_holds_no_weights_is_refused_in_one_line(content, files, tmp_path, refused):
    (tmp_path / "b").write_bytes(content)
    for name, words in ("b", []), ("c", ["No such file"]), (".", ["directory"]):
        with refused(tmp_path / name, "expected", *words):
            start_from(tmp_path / name, files({})[0])


def test_where_safetensors_is_missing_a_line_says_what_to_install(monkeypatch, tmp_path, files):
    ell, _, file = files({})
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for use in (lambda: start_from(file, ell)), (lambda: run("export", "r", "a.safetensors")):
        with pytest.raises(UserError, match=r'safetensors.*pip install -e "\.\[export\]"'):
            use()


def test_export_refuses_what_it_cannot_write(trained, capsys):
    with pytest.raises(UserError, match=r"expected a name that ends in \.safetensors"):
        run("export", str(trained["mnist"] / "run"), str(trained["mnist"] / "run/checkpoint.h5"))
    with pytest.raises(UserError, match="no such directory"):
        run("export", str(trained["mnist"] / "walk"), "a.safetensors")
    with pytest.raises(UserError, match="no directory .*nowhere, expected one"):
        run("export", str(trained["mnist"] / "run"), f"{trained['mnist']}/nowhere/a.safetensors")
    with pytest.raises(UserError, match="a.safetensors: a directory"):
        (trained["mnist"] / "a.safetensors").mkdir()
        run("export", str(trained["mnist"] / "run"), f"{trained['mnist']}/a.safetensors")


# Packages that stay as they are.


@pytest.mark.parametrize(
    "names, words",
    [
        (["Phi3"], ["no Phi3", "expected one of Phi1, Phi2"]),
        (["Phi1.c"], ["no Phi1.c", "expected Phi1."]),
        (["Phi"], ["no Phi,"]),
        (["Phi1", "Phi2"], ["all"]),
    ],
    ids=str,
)
def test_to_freeze_what_is_not_there_or_all_is_refused(names, words, refused):
    x, y = Input((4,), np.float32), Input((), np.intp, 3)
    with refused("model.freeze", *words):
        freeze(mlp(x, y, sizes=[4, 5, 3])[1], names)


@pytest.mark.parametrize(
    "word, words",
    [
        ("model.freeze=3", ["model.freeze = 3", "a list"]),
        ("model.freeze=[1]", ["model.freeze[0] = 1", "text"]),
        ("model.freeze=['']", ["model.freeze[0] = ''", "at least 1 character"]),
        ("model.weights=~nobody-here/a", ["model.weights", "another user"]),
    ],
)
def test_both_keys_are_checked_as_any_other(word, words, tmp_path, refused):
    (tmp_path / "a.toml").write_text(CONFIG.format(data="a.h5"))
    with refused(tmp_path / "a.toml", *words):
        config.load(tmp_path / "a.toml", [word])
    (tmp_path / "a.toml").write_text(CONFIG.format(data="a.h5").replace("sizes", "weights"))
    with refused(tmp_path / "a.toml", "model.weights = [64, 16, 10], expected text"):
        config.load(tmp_path / "a.toml")


def test_the_file_of_weights_may_lie_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "a.toml").write_text(CONFIG.format(data="a.h5"))
    word = "model.weights=~/a.safetensors"
    assert config.load(tmp_path / "a.toml", [word]).model["weights"] == "/home/me/a.safetensors"


def test_a_name_freezes_a_package_or_one_parameter():
    x, y = Input((4,), np.float32), Input((), np.intp, 3)
    ell = build({"build": "mlp", "sizes": [4, 5, 3], "freeze": ["Phi2", "Phi1.b"]}, x, y)[1]
    phi, whole = Phi(ell, 3), Phi(build({"build": "mlp", "sizes": [4, 5, 3]}, x, y)[1], 3)
    assert [p.name for p in phi.parameters] == ["Phi1.w"]
    assert {*phi.state} == {"Phi1.b", "Phi2.w", "Phi2.b"}
    for p in whole.parameters[1:]:
        assert np.array_equal(phi.state[p.name], p.value)
    assert np.array_equal(phi.value, whole.value[:20])


NUMBERS, SYMBOLS = Input((6,), float), Input((4,), np.intp, 5)
MODELS = {
    "mlp": (mlp, NUMBERS, {"sizes": [6, 4, 4, 5]}),
    "autoencoder": (autoencoder, NUMBERS, {"sizes": [6, 4, 2]}),
    "normalized": (normalized, Input((3, 6, 5), float), {}),
    "char_lstm": (char_lstm, SYMBOLS, {"embedding": 2, "hidden": 3}),
    "char_gru": (char_gru, SYMBOLS, {"embedding": 2, "hidden": 3}),
    "char_transformer": (char_transformer, SYMBOLS, {"layers": 1, "heads": 2, "width": 4}),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_is_not_frozen_has_the_gradient_that_it_would_have(name):
    model, x, keywords = MODELS[name]
    y = SYMBOLS if x is SYMBOLS else Input((), np.intp, 5)
    random = np.random.default_rng(1)
    x.value, y.value = (
        random.integers(5, size=(4, *i.shape)) if i.classes else random.random((4, *i.shape))
        for i in (x, y)
    )

    def gradients(*frozen):
        """{name: gradient}, of those that are not frozen."""
        _, ell = model(x, y, **keywords)
        Phi(ell)  # which names them
        freeze(ell, frozen)
        phi = Phi(ell, 3, np.float64)
        Forward(ell, train=True)
        Backward(ell, keep=False)
        return {p.name: p.grad.copy() for p in phi.parameters}

    whole = gradients()
    for frozen in whole:
        some = gradients(frozen)
        assert {*some} == {*whole} - {frozen}
        for other, gradient in some.items():
            assert np.array_equal(gradient, whole[other]), (frozen, other)


CONFIG = """
[data]
file = "{data}"
valid = 50
[model]
build = "mlp"
sizes = [64, 16, 10]
[train]
steps = 6
batch_size = 32
slices = 4
rows = 32
learning_rate = 0.05
precision = "float64"
"""
FREEZE = 'model.freeze=["Phi1", "Phi2.b"]'
FROZEN = "Phi1.w", "Phi1.b", "Phi2.b"
ADAMW = "train.optimizer=adamw", "train.weight_decay=0.1", "train.grad_clip=0.5"


def of_run(run):
    """{name: array} of the parameters in the newest checkpoint of a run."""
    return of_checkpoint(read(run.directory / "checkpoint.h5"))


@pytest.fixture(scope="module")
def tuned(few_digits, python, request, tmp_path_factory):
    """tuned(name, n): how one of these runs ended, after `first` all from its weights."""
    folder = tmp_path_factory.mktemp("tuned")
    config, start = folder / "tuned.toml", folder / "1" / "first" / "best.h5"
    config.write_text(CONFIG.format(data=few_digits))

    def launch(n, *words):
        if n == "gpu":
            return python(*words, **request.getfixturevalue("simulated"))
        return python(*words) if n == 1 else mpirun(n, *words)

    trainings = Trainings(folder, launch)
    tune = [FREEZE, f"model.weights={start}", *ADAMW]

    def add(ranks, name, *words, device="cpu"):
        trainings.add(ranks, name, config, f"run.device={device}", *words)

    add([1], "first", "seed=1")
    add([1, 2], "tuned", *tune)
    add([1], "8 steps", *tune, "train.steps=8")
    add([1], "checked", *tune, "run.check_gradients=true")
    add(["gpu"], "bfloat16", *tune[:2], "train.precision=bfloat16", device="gpu")
    trainings("first")
    return trainings


def test_what_is_frozen_keeps_its_bits_whatever_the_optimizer_does(tuned):
    before, after = of_run(tuned("first")), of_run(tuned("tuned"))
    assert {*before} == {*after} == {"Phi1.w", "Phi1.b", "Phi2.w", "Phi2.b"}
    for name, array in after.items():
        assert np.array_equal(array, before[name]) == (name in FROZEN), name
    said = tuned("tuned").output
    assert "mlp: 160 parameters" in said
    assert "Phi1.w, Phi1.b, Phi2.b: 1,050 numbers frozen" in said
    assert re.search(r"starts from .*best\.h5, SHA-256 [0-9a-f]{12}\.\.\.", said)


def test_two_ranks_fine_tune_to_the_bits_of_one(tuned):
    assert tuned("tuned", 2).phi_sha256 == tuned("tuned").phi_sha256
    for name, array in of_run(tuned("tuned", 2)).items():
        assert np.array_equal(array, of_run(tuned("tuned"))[name])


def test_gradients_are_checked_with_what_is_frozen(tuned):
    assert tuned("checked").phi_sha256 == tuned("tuned").phi_sha256


def test_what_is_frozen_stays_so_on_a_gpu(tuned):
    before, after = of_run(tuned("first")), of_run(tuned("bfloat16", "gpu"))
    moved = np.abs(after.pop("Phi2.w") - before["Phi2.w"]).max()
    assert 1e-3 < moved < 1 and {*after} == {*FROZEN}
    for name, array in after.items():
        assert np.array_equal(array, before[name].astype(np.float32)), name


def test_a_run_goes_on_without_the_file_that_it_started_from(tuned, python, tmp_path):
    start = tuned("first").directory / "best.h5"
    words = FREEZE, f"model.weights={start}", *ADAMW, "run.device=cpu", "--resume"
    resume = [tuned.folder / "tuned.toml", f"run.dir={tmp_path}/run", "train.steps=8"]
    copytree(tuned("tuned").directory, tmp_path / "run")
    start.rename(tmp_path / "away")
    try:
        other = python("-m", "dpedf.train", *resume, "model.freeze=['Phi1']", *words[1:])
        assert (other.returncode, other.stderr.count("\n")) == (2, 1)
        assert "model.freeze = ['Phi1'], expected ['Phi1', 'Phi2.b']" in other.stderr
        done = python("-m", "dpedf.train", *resume, *words)
        assert (done.returncode, done.stderr) == (0, "")
    finally:
        (tmp_path / "away").rename(start)
    assert done.stdout.splitlines()[-1] == f"phi_sha256 {tuned('8 steps').phi_sha256}"
    sha256 = hashlib.sha256(start.read_bytes()).hexdigest()
    assert read(tmp_path / "run" / "checkpoint.h5")["rest"]["weights"] == sha256


def test_a_tuned_model_is_exported_and_started_from_as_a_whole(tuned, tmp_path):
    run("export", str(tuned("tuned").directory), f"{tmp_path}/a.safetensors")
    x, y = Input((64,), float), Input((), np.intp, 10)
    expected = of_checkpoint(read(tuned("tuned").directory / "best.h5"))
    for file in tmp_path / "a.safetensors", tuned("tuned").directory / "best.h5":
        ell = mlp(x, y, sizes=[64, 16, 10])[1]
        phi = Phi(ell, 0, np.float64)
        start_from(file, ell)
        for p in phi.parameters:
            assert np.array_equal(p.value, expected[p.name])


def test_the_listing_of_a_step_has_no_gradient_of_what_is_frozen(tuned, python):
    ran = python("-m", "dpedf", "source", tuned.folder / "tuned.toml", FREEZE)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Phi1.w" in ran.stdout and "Phi2.w.grad" in ran.stdout
    assert not re.search(r"(Phi1\.w|Phi1\.b|Phi2\.b)\.grad", ran.stdout)


def test_a_frozen_convolution_between_others_costs_no_product_for_its_gradient(monkeypatch):
    x, made = Input((1, 6, 6), float), []
    x.value = np.random.default_rng(0).random((2, 1, 6, 6))
    z = Conv2D(conv(2, 2, 3, name="middle"), Conv2D(conv(1, 2, 3, name="first"), x))
    ell = Sum(z)
    Phi(ell)
    freeze(ell, ["middle"])
    phi = Phi(ell, 0, np.float64)
    product = kernels_conv.product
    monkeypatch.setattr(kernels_conv, "product", lambda *a, **k: made.append(1) or product(*a, **k))
    Forward(ell, train=True)
    before = len(made)
    Backward(ell)
    assert len(made) - before == 2 and phi.grad.any()  # x.grad of one, and W.grad of the other
