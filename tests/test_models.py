"""Models: what they build, and what they say where they cannot."""

import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from dpedf import check, models
from dpedf.edf import Backward, CompNodes, Forward, Input, Parameters
from dpedf.kernels.gemm import JOINED
from dpedf.models import MLP, mlp, slides
from dpedf.models.images import conv
from dpedf.ops import Add, Affine, Flatten, LogLoss, Relu, Sigmoid, Softmax, SquareLoss, Tanh
from dpedf.phi import Phi, dense, glorot, he
from dpedf.program import inputs_of, program
from dpedf.run.build import build, find
from dpedf.run.outline import outline


def data(*shape, classes=3, B=5):
    """x and y as a data file gives them, with B rows."""
    random = np.random.default_rng(0)
    x, y = Input(shape, np.float32), Input((), np.uint8, classes)
    x.value = random.normal(size=(B, *shape)).astype(np.float32)
    y.value = random.integers(0, classes, B).astype(np.uint8)
    return x, y


def kinds(ell):
    return [type(n) for n in CompNodes(ell)]


@pytest.mark.parametrize(
    "activation, node, bound",
    [("relu", Relu, he), ("sigmoid", Sigmoid, glorot), ("tanh", Tanh, glorot)],
)
def test_mlp_is_softmax_of_affine_of_activated_layers(activation, node, bound):
    Q, ell = mlp(*data(6), sizes=[6, 5, 4, 3], activation=activation)
    assert kinds(ell) == [Affine, node, Affine, node, Affine, Softmax, LogLoss]
    phi = Phi(ell)
    shapes = {p.name: p.value.shape for p in phi.parameters}
    assert shapes == {
        "Phi1.w": (6, 5),
        "Phi1.b": (5,),
        "Phi2.w": (5, 4),
        "Phi2.b": (4,),
        "Phi3.w": (4, 3),
        "Phi3.b": (3,),
    }
    bounds = [p.bound for p in phi.parameters if hasattr(p, "bound")]
    assert bounds == [bound(6, 5), bound(5, 4), glorot(4, 3)]
    Forward(ell)
    Backward(ell)
    assert Q.value.shape == (5, 3) and ell.value.shape == (5,)
    np.testing.assert_allclose(Q.value.sum(axis=1), 1, rtol=1e-6)
    assert phi.grad.any()


def test_mlp_of_two_sizes_is_softmax_regression():
    Q, ell = mlp(*data(6), sizes=[6, 3])
    assert kinds(ell) == [Affine, Softmax, LogLoss]


def test_slides_has_a_sigmoid_on_the_scores_too():
    Q, ell = slides(*data(6), sizes=[6, 5, 3])
    assert kinds(ell) == [Affine, Sigmoid, Affine, Sigmoid, Softmax, LogLoss]
    Phi(ell)
    Forward(ell)
    assert Q.value.shape == (5, 3) and ell.value.shape == (5,)


@pytest.mark.parametrize("model", [mlp, slides])
def test_images_are_flattened(model):
    x, y = data(2, 3)
    Q, ell = model(x, y, sizes=[6, 3])
    assert kinds(ell)[0] is Flatten
    Phi(ell)
    Forward(ell)
    assert Q.value.shape == (5, 3)


@pytest.mark.parametrize("model", [mlp, slides])
def test_models_take_no_rows(model):
    Q, ell = model(*data(2, 3, B=0), sizes=[6, 4, 3])
    phi = Phi(ell)
    Forward(ell)
    Backward(ell)
    assert Q.value.shape == (0, 3) and ell.value.shape == (0,)
    assert not phi.grad.any()


def test_mlp_of_packages_is_the_slides_procedure():
    x, y = data(6)
    packages = [dense(6, 5), dense(5, 3)]
    L2 = MLP(packages, x)
    Phi(L2)
    Forward(L2)
    L = x.value
    for P in packages:
        L = 1 / (1 + np.exp(-(L @ P.w.value - P.b.value)))
    np.testing.assert_allclose(L2.value, L, rtol=1e-5)


@pytest.fixture
def fails(refused):
    """fails(settings, *words): of this [model] section, a UserError of one line has the words."""

    def built_badly(settings, *words, x=(6,)):
        with refused("model", *words):
            build(settings, *data(*x))

    return built_badly


@pytest.mark.parametrize("build", ["mlp", "slides"])
@pytest.mark.parametrize(
    "sizes",
    [3, "6, 3", [], [6], [6, 0, 3], [6, -1, 3], [6, 2.0, 3], [6, True, 3], [6, "5", 3], {}, None],
)
def test_sizes_have_to_be_positive_numbers(build, sizes, fails):
    found = f".sizes = {sizes!r}, "
    fails({"build": build, "sizes": sizes}, found, "expected a list of two or more positive")


@pytest.mark.parametrize("build", ["mlp", "slides"])
def test_the_first_size_has_to_be_that_of_x(build, fails):
    settings = {"build": build, "sizes": [7, 3]}
    fails(settings, ".sizes[0] = 7, expected 6", "(2, 3)", x=(2, 3))


@pytest.mark.parametrize("build", ["mlp", "slides"])
def test_the_last_size_has_to_be_the_number_of_classes(build, fails):
    fails({"build": build, "sizes": [6, 4]}, ".sizes[-1] = 4, expected 3, the classes")


@pytest.mark.parametrize("activation", ["gelu", "Relu", "", 3, True, ["relu"], {"name": "relu"}])
def test_an_unknown_activation_names_those_there_are(activation, fails):
    settings = {"build": "mlp", "sizes": [6, 3], "activation": activation}
    fails(settings, ".activation = ", activation, "expected one of relu, sigmoid, tanh")


def test_an_unknown_keyword_names_those_there_are(fails):
    settings = {"build": "mlp", "sizes": [6, 3], "width": 5}
    fails(settings, "'width'", "expected", "mlp(x, y, sizes, activation")
    settings = {"build": "slides", "sizes": [6, 3], "activation": "relu"}
    fails(settings, "'activation'", "expected", "slides(x, y, sizes)")


def test_a_missing_keyword_is_named(fails):
    fails({"build": "mlp"}, "'sizes'", "expected", "mlp(x, y, sizes, activation")


@pytest.mark.parametrize("key", ["x", "y"])
def test_x_and_y_are_no_keywords(key, fails):
    fails({"build": "mlp", "sizes": [6, 3], key: 1}, f"'{key}'")


@pytest.mark.parametrize("name", ["lstm", "layers", "built", "Softmax", "prod", "MLP", ""])
def test_an_unknown_model_names_those_there_are(name, fails):
    found = f'.build = "{name}"'
    fails({"build": name, "sizes": [6, 3]}, found, "mlp, nineties", "path/to/file.py:procedure")


def test_a_known_model_is_built():
    Q, ell = build({"build": "mlp", "sizes": [6, 3], "activation": "tanh"}, *data(6))
    assert kinds(ell) == [Affine, Softmax, LogLoss]
    assert find("slides") is slides


MINE = """
from dpedf.ops import Affine, LogLoss, Softmax
from dpedf.phi import dense

def mine(x, y, scale=1.0):
    if scale < 0:
        raise ValueError(f"scale = {scale}, expected at least 0")
    Q = Softmax(Affine(dense(x.shape[0], y.classes), x) * scale)
    return Q, LogLoss(Q, y)

def other(a, b):
    pass

thing = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def test_a_procedure_of_a_file_is_built_with_its_keywords(file):
    x, y = data(6)
    Q, ell = build({"build": f"{file}:mine", "scale": 0.0}, x, y)
    Phi(ell)
    Forward(ell)
    np.testing.assert_allclose(Q.value, 1 / 3, rtol=1e-6)


def test_the_errors_of_a_procedure_of_a_file_are_the_users(file, fails):
    fails({"build": f"{file}:mine", "scale": -1.0}, "scale = -1.0, expected at least 0")
    fails({"build": f"{file}:mine", "sizes": [6, 3]}, "'sizes'", "mine(x, y, scale=1.0)")


@pytest.mark.parametrize("procedure", ["nothing", "thing", "other", "Affine", ""])
def test_what_is_no_model_in_a_file_is_refused(file, procedure, fails):
    build = f"{file}:{procedure}"
    fails({"build": build}, f'.build = "{build}"', "expected a procedure of (x, y, ...)")


def test_a_file_that_is_not_there_is_named(tmp_path, fails):
    build = f"{tmp_path}/none.py:mine"
    fails({"build": build}, f'.build = "{build}"', "no file", "expected path/to/file.py")


def test_a_file_that_is_no_python_is_refused(tmp_path, fails):
    (tmp_path / "notes.txt").write_text(MINE)
    build = f"{tmp_path}/notes.txt:mine"
    fails({"build": build}, f'.build = "{build}"', "expected path/to/file.py")


def test_a_file_may_define_dataclasses(file):
    file.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Sizes:\n"
        "    hidden: int = 5\n" + MINE
    )
    Q, ell = build({"build": f"{file}:mine"}, *data(6))
    assert kinds(ell)[0] is Affine


# Convolutional, recurrent and attention networks


def images(*shape, classes=10):
    return Input(shape, np.float32), Input((), np.intp, classes)


def text(T=5, classes=7):
    return Input((T,), np.intp, classes), Input((T,), np.intp, classes)


@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28), (3, 32, 20)])
def test_lenet_takes_images_of_any_size_and_channels(shape):
    x, y = images(*shape, classes=4)
    Q, ell = build({"build": "lenet", "channels": [2, 3], "hidden": [5]}, x, y)
    assert Q.value.shape == (0, 4)
    first = Parameters(ell)[0].value.shape
    assert first == (2, shape[0] if len(shape) == 3 else 1, 5, 5)


def test_lenet_5_has_the_parameters_of_1998_with_a_dense_second_convolution():
    """156 and 2,416 of the convolutions, then 48,120, 10,164 and 850."""
    Q, ell = build({"build": "lenet"}, *images(28, 28))
    assert Phi(ell).value.size == 156 + 2416 + 48120 + 10164 + 850


@pytest.mark.parametrize("shape", [(8, 8), (3, 9, 7), (1, 32, 32)])
def test_convnet_takes_images_of_any_size_and_channels(shape):
    Q, ell = build({"build": "convnet", "channels": [2, 3, 4], "hidden": 5}, *images(*shape))
    (I, H, W), found = (1, *shape)[-3:], [p.value.shape for p in Parameters(ell)]
    assert Q.value.shape == (0, 10) and len(found) == 10
    assert found[0] == (2, I, 3, 3) and found[6] == (4 * (H // 2) * (W // 2), 5)


@pytest.mark.parametrize("shape", [(784,), (2, 3, 4, 5), (28, 28, 3)])
def test_convnet_refuses_what_is_no_image(shape, refused):
    with refused("convnet", f"x is {shape}", "expected"):
        build({"build": "convnet"}, *images(*shape))


@pytest.mark.parametrize("shape", [(784,), (2, 3, 4, 5), (10, 10)])
def test_lenet_refuses_what_is_no_image(shape, refused):
    with refused("model", "expected"):
        build({"build": "lenet", "padding": 0}, *images(*shape))


@pytest.mark.parametrize("shape", [(28, 28, 3), (32, 20, 1), (64, 64, 4)])
def test_lenet_says_that_channels_come_first(shape, refused):
    with refused("lenet", f"x is {shape}, expected (I, H, W), the channels first"):
        build({"build": "lenet"}, *images(*shape))


def test_an_autoencoder_has_one_matrix_a_layer_for_both_ways():
    x, y = images(4, 3)
    output, ell = build({"build": "autoencoder", "sizes": [12, 5, 2]}, x, y)
    shapes = {p.value.shape for p in Parameters(ell)}
    assert shapes == {(12, 5), (5, 2), (5,), (2,), (12,)}
    assert output.value.shape == (0, 12) and y not in program(ell).inputs


@pytest.mark.parametrize("sizes", [[11, 2], [12], 12, [12, 0]])
def test_an_autoencoder_refuses_sizes_that_are_none(sizes, refused):
    with refused("model.sizes", "expected"):
        build({"build": "autoencoder", "sizes": sizes}, *images(4, 3))


@pytest.mark.parametrize("name", ["char_lstm", "char_gru", "char_transformer"])
def test_a_model_of_language_looks_at_no_symbol_to_come(name):
    x, y = text(T=6)
    Q, ell = build({"build": name}, x, y)
    Phi(ell, seed=3, dtype=np.float64)
    y.value = np.zeros((1, 6), int)
    x.value = np.array([[1, 2, 3, 4, 5, 6]])
    Forward(ell)
    before = Q.value.copy()
    x.value = np.array([[1, 2, 3, 0, 0, 0]])
    Forward(ell)
    assert (Q.value[:, :3] == before[:, :3]).all() and (Q.value[:, 3:] != before[:, 3:]).any()
    check.gradients(ell, samples=2)


@pytest.mark.parametrize("name", ["char_lstm", "char_gru", "char_transformer"])
def test_a_model_of_language_takes_a_text(name, refused):
    with refused("model.build", "expected a text"):
        build({"build": name}, *images(5))


def test_the_transformer_has_one_matrix_for_symbols_and_scores():
    Q, ell = build({"build": "char_transformer", "layers": 1, "width": 8, "heads": 2}, *text())
    shapes = [p.value.shape for p in Parameters(ell)]
    assert shapes.count((7, 8)) == 1 and (8, 7) not in shapes


def test_heads_that_do_not_divide_the_width_are_refused(refused):
    with refused("model", "Attention", "expected a multiple of 3 heads"):
        build({"build": "char_transformer", "heads": 3}, *text())


def test_pytorchs_lstm_computes_the_same():
    torch = pytest.importorskip("torch", reason="the reference is PyTorch")
    x, y = text()
    Q, ell = build({"build": "char_lstm", "embedding": 4, "hidden": 3}, x, y)
    phi = Phi(ell, dtype=np.float64)
    W, w, b, u, scores, c = (torch.tensor(p.value) for p in by_use(phi))
    theirs = torch.nn.LSTM(4, 3, batch_first=True, dtype=torch.float64)
    order = [*range(6), *range(9, 12), *range(6, 9)]  # theirs: i, f, g, o
    with torch.no_grad():
        theirs.weight_ih_l0[:], theirs.weight_hh_l0[:] = w.T[order], u.T[order]
        theirs.bias_ih_l0[:], theirs.bias_hh_l0[:] = -b[order], 0
    x.value = np.random.default_rng(0).integers(0, 7, (2, 5))
    y.value = x.value
    Forward(ell)
    h = theirs(W[torch.tensor(x.value)])[0]
    expected = (h @ scores - c).softmax(-1).detach()
    np.testing.assert_allclose(Q.value, expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["char_lstm", "char_gru"])
def test_gradients_add_up_over_more_steps_than_are_joined(name):
    x, y = text(T=2 * JOINED + 3)
    Q, ell = build({"build": name, "embedding": 3, "hidden": 2}, x, y)
    Phi(ell, dtype=np.float64)
    x.value, y.value = np.random.default_rng(0).integers(0, 7, (2, 3, *x.shape))
    check.gradients(ell, samples=4)


def test_pytorchs_lstm_has_the_same_gradients_after_many_steps():
    torch = pytest.importorskip("torch", reason="the reference is PyTorch")
    T = 2 * JOINED + 3
    x, y = text(T)
    Q, ell = build({"build": "char_lstm", "embedding": 4, "hidden": 3}, x, y)
    phi = Phi(ell, dtype=np.float64)
    x.value, y.value = np.random.default_rng(0).integers(0, 7, (2, 5, T))
    Forward(ell)
    Backward(ell)
    W, w, b, u, scores, c = ours = [torch.tensor(p.value) for p in by_use(phi)]
    for tensor in ours:
        tensor.requires_grad_()
    h = state = torch.zeros(5, 3, dtype=torch.float64)
    outputs = []
    for t in range(T):  # torch.nn.LSTM written out, since its weights are in another order
        i, f, o, g = (W[torch.tensor(x.value[:, t])] @ w - b + h @ u).chunk(4, 1)
        state = f.sigmoid() * state + i.sigmoid() * g.tanh()
        h = o.sigmoid() * state.tanh()
        outputs.append(h @ scores - c)
    losses = torch.stack(outputs, 1).log_softmax(-1)
    picked = torch.gather(losses, 2, torch.tensor(y.value).unsqueeze(2))
    (-picked.mean()).backward()
    for p, tensor in zip(by_use(phi), ours, strict=True):
        np.testing.assert_allclose(p.grad, tensor.grad, rtol=1e-9, atol=1e-13)


def test_pytorchs_gru_computes_the_same_and_has_the_same_gradients_after_many_steps():
    torch = pytest.importorskip("torch", reason="the reference is PyTorch")
    T = 2 * JOINED + 3
    x, y = text(T)
    Q, ell = build({"build": "char_gru", "embedding": 4, "hidden": 3}, x, y)
    phi = Phi(ell, dtype=np.float64)
    x.value, y.value = np.random.default_rng(0).integers(0, 7, (2, 5, T))
    named = {p.value.shape: p for p in phi.parameters if p.value.ndim == 2}
    symbols, w, u, last = (named[shape] for shape in [(7, 4), (4, 9), (3, 9), (3, 7)])
    theirs = torch.nn.GRU(4, 3, batch_first=True, dtype=torch.float64)
    pairs = [(w, theirs.weight_ih_l0), (u, theirs.weight_hh_l0)]  # of gates in our order: r, u, n
    biases = [(w.package.b, theirs.bias_ih_l0), (u.package.b, theirs.bias_hh_l0)]
    for p, _ in biases:
        p.value[...] = np.random.default_rng(1).normal(size=9)
    with torch.no_grad():
        for p, tensor in pairs:
            tensor[:] = torch.tensor(p.value.T)
        for p, tensor in biases:
            tensor[:] = torch.tensor(-p.value)
    Forward(ell)
    Backward(ell)
    rows = torch.tensor(symbols.value[x.value])
    scores = theirs(rows)[0] @ torch.tensor(last.value) - torch.tensor(last.package.b.value)
    losses = scores.log_softmax(-1)
    (-torch.gather(losses, 2, torch.tensor(y.value).unsqueeze(2)).mean()).backward()
    np.testing.assert_allclose(Q.value, scores.softmax(-1).detach(), rtol=1e-12)
    for p, tensor in pairs:
        np.testing.assert_allclose(p.grad, tensor.grad.T, rtol=1e-9, atol=1e-13)
    for p, tensor in biases:
        np.testing.assert_allclose(p.grad, -tensor.grad, rtol=1e-9, atol=1e-13)


# Initial values


def bounds(ell):
    """Of the uniform draws of a model's parameters, by shape."""
    return {p.value.shape: p.bound for p in Parameters(ell) if hasattr(p, "bound")}


def test_a_convolution_begins_as_a_layer_of_all_that_its_window_sees():
    """He et al., 2015: a variance of 2 / (I size**2)."""
    for I, J, size in (1, 6, 5), (6, 16, 5), (3, 4, 1):
        Phi = conv(I, J, size)
        assert Phi.w.value.shape == (J, I, size, size) and not Phi.b.value.any()
        assert Phi.w.bound**2 / 3 == pytest.approx(2 / (I * size**2))
    Q, ell = build({"build": "lenet"}, *images(28, 28))
    assert bounds(ell)[16, 6, 5, 5] == pytest.approx((6 / 150) ** 0.5)
    assert conv(3, 4, 5, glorot).w.bound == pytest.approx((6 / (7 * 25)) ** 0.5)


@pytest.mark.parametrize("name, gates", [("char_lstm", 4), ("char_gru", 3)])
def test_a_recurrent_layer_begins_within_one_over_the_root_of_its_size(name, gates):
    Q, ell = build({"build": name, "embedding": 5, "hidden": 16}, *text())
    found = bounds(ell)
    assert found.pop((5, 16 * gates)) == found.pop((16, 16 * gates)) == 0.25  # PyTorch's
    assert found == {(7, 5): 1, (16, 7): glorot(16, 7)}


def test_an_lstm_begins_with_gates_of_memory_that_are_more_open_than_shut():
    Q, ell = build({"build": "char_lstm", "embedding": 5, "hidden": 16}, *text())
    (b,) = (p.value for p in Phi(ell).parameters if p.value.shape == (64,))
    before = 1 / (1 + np.exp(b))  # sigmoid(-b): what each gate lets through at first
    assert before[16:32] == pytest.approx(1 / (1 + np.exp(-1)))
    assert (before[:16] == 0.5).all() and (before[32:] == 0.5).all()


def test_a_transformer_begins_with_smaller_weights_for_what_layers_add_to_their_sum():
    """A standard deviation of 0.02, over the root of the 2 layers summands: Radford et al."""
    Q, ell = build({"build": "char_transformer", "layers": 8, "width": 12, "heads": 2}, *text())
    deviations = [p.bound / 3**0.5 for p in Parameters(ell) if hasattr(p, "bound")]
    assert sorted(deviations) == pytest.approx([0.02 / 4] * 16 + [0.02] * (8 * 4 + 2))
    adds = [n for n in CompNodes(ell) if isinstance(n, Add)][1:]
    for add in adds:
        affine = next(n for n in inputs_of(add) if isinstance(n, Affine))
        assert affine.Phi.w.bound == min(p.bound for p in Parameters(ell) if hasattr(p, "bound"))
    assert len(adds) == 16


def by_use(phi):
    """The parameters of char_lstm: W, then w, b, u of the memory, then those of the scores."""
    named = {p.name: p for p in phi.parameters}
    (symbols,) = [p for p in phi.parameters if "." not in p.name]
    memory = next(name[:-2] for name in named if name.endswith(".u"))
    last = next(n[:-2] for n in named if n.endswith(".w") and n[:-2] != memory)
    keys = f"{memory}.w", f"{memory}.b", f"{memory}.u", f"{last}.w", f"{last}.b"
    return [symbols, *(named[key] for key in keys)]


def test_logistic_regression_ends_at_the_only_optimum(python, tmp_path):
    """That of the log loss and the same penalty, which Newton's method finds."""
    root = Path(__file__).resolve().parents[1]
    assert python(root / "data" / "parity.py", "--output", tmp_path / "p.h5").returncode == 0
    settings = f"data.file={tmp_path}/p.h5", f"run.dir={tmp_path}/run", "train.precision=float64"
    done = python("-m", "dpedf.train", root / "configs" / "logistic.toml", *settings)
    assert done.returncode == 0, done.stderr
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])

    def rows(group):
        with h5py.File(tmp_path / "p.h5") as file:
            x = file[f"{group}/x"][...].reshape(-1, 64) / 16
            return np.c_[x, -np.ones(len(x))], file[f"{group}/y"][...]

    (x, y), (held, label), w = rows("train"), rows("test"), np.zeros(65)
    for _ in range(30):
        p = 1 / (1 + np.exp(-x @ w))
        gradient = x.T @ (p - y) / len(y) + 7e-4 * w
        w -= np.linalg.solve((x.T * (p * (1 - p))) @ x / len(y) + 7e-4 * np.eye(65), gradient)
    scores = held @ w
    expected = np.logaddexp(0, np.where(label == 1, -scores, scores)).mean()
    assert last["test_loss"] == pytest.approx(expected, rel=0.005)
    assert last["test_accuracy"] == pytest.approx(((scores > 0) == label).mean(), abs=0.005)


@pytest.mark.parametrize(
    "settings",
    [
        {"build": "char_transformer", "heads": 0},
        {"build": "char_transformer", "width": 12.5},
        {"build": "char_transformer", "layers": "x"},
        {"build": "char_lstm", "hidden": 0},
        {"build": "char_gru", "embedding": -1},
        {"build": "lenet", "channels": [0, 2]},
        {"build": "lenet", "channels": [6]},
        {"build": "lenet", "hidden": 7.5},
        {"build": "nineties", "hidden": "x"},
        {"build": "convnet", "channels": 3},
        {"build": "convnet", "dropout": 1},
        {"build": "convnet", "dropout": "half"},
    ],
    ids=str,
)
def test_a_keyword_that_cannot_be_is_one_line(settings, refused):
    inputs = text() if settings["build"].startswith("char") else images(28, 28)
    with refused("model", "expected"):
        build(settings, *inputs)


def test_a_classifier_of_numbers_is_one_line(refused):
    with refused("model.build", "expected labels"):
        build({"build": "nineties", "hidden": 5}, Input((28, 28)), Input(()))


@pytest.mark.parametrize("name", ["lenet", "convnet", "resnet"])
def test_a_model_of_images_is_a_regression_where_y_has_numbers(name):
    Q, ell = build({"build": name}, Input((28, 28)), Input((3,)))
    assert Q.value.shape == (0, 3) and kinds(ell)[-1] is SquareLoss


def test_a_model_that_returns_something_else_is_one_line(tmp_path, refused):
    mine = "from dpedf.ops import Flatten\n\n\ndef net(x, y):\n    return {}\n"
    returns = {"Flatten(x)": "Flatten", "(Flatten(x), 1.0)": "(Flatten, float)", "None": "None"}
    returns |= {"object()": "object", "(x,)": "(Input,)", "[x, y]": "list"}
    for returned, kind in returns.items():
        (tmp_path / "mine.py").write_text(mine.format(returned))
        with refused(f"model.build returned {kind}, expected two nodes"):
            build({"build": f"{tmp_path}/mine.py:net"}, *images(3))


# The SHA-256 of the outlines that checkpoints of earlier versions have, its first digits.
OUTLINES = {
    "lenet": ("6636beabcb15", (2, 16, 16), {}),
    "convnet": ("26937d17913d", (2, 16, 16), {}),
    "mlp": ("4f00e1ef2228", (12,), {"sizes": [12, 8, 10]}),
    "autoencoder": ("4f30bf910ec8", (12,), {"sizes": [12, 4]}),
    "resnet": ("0d6b0d898f21", (3, 16, 16), {"depth": 8}),
    "vae": ("9724bc5e528b", (12,), {"sizes": [12, 8], "latent": 2}),
    "tabular": ("1c43cbe81974", (4,), {"hidden": [8]}),
    "char_lstm": ("892f2e40ac7c", (3,), {"embedding": 4, "hidden": 4}),
    "char_gru": ("bc8c59bd63df", (3,), {"embedding": 4, "hidden": 4}),
    "char_transformer": ("a17d4b04d5bf", (3,), {"layers": 1, "heads": 2, "width": 4}),
}


@pytest.mark.parametrize("name", OUTLINES)
def test_checkpoints_of_earlier_versions_have_the_same_outline(name):
    expected, shape, keywords = OUTLINES[name]
    text = name.startswith("char_")
    x = Input(shape, np.int64, 10) if text else Input(shape, np.float32)
    ell = getattr(models, name)(x, Input(shape if text else (), np.int64, 10), **keywords)[1]
    Phi(ell)
    found = outline(ell)
    assert hashlib.sha256(found.encode()).hexdigest().startswith(expected), found
