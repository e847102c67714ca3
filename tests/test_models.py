"""Models: what they build, and what they say where they cannot."""

import numpy as np
import pytest

from dpedf import build
from dpedf.build import built
from dpedf.edf import Backward, CompNodes, Forward, Input
from dpedf.models import MLP, mlp, slides
from dpedf.ops import Affine, Flatten, LogLoss, Relu, Sigmoid, Softmax, Tanh
from dpedf.phi import Phi, affine, glorot, he


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
    packages = [affine(6, 5), affine(5, 3)]
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
            built(settings, *data(*x))

    return built_badly


@pytest.mark.parametrize("build", ["mlp", "slides"])
@pytest.mark.parametrize(
    "sizes",
    [3, "6, 3", [], [6], [6, 0, 3], [6, -1, 3], [6, 2.0, 3], [6, True, 3], [6, "5", 3], {}, None],
)
def test_sizes_have_to_be_positive_numbers(build, sizes, fails):
    found = f".sizes = {sizes}, "
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
    Q, ell = built({"build": "mlp", "sizes": [6, 3], "activation": "tanh"}, *data(6))
    assert kinds(ell) == [Affine, Softmax, LogLoss]
    assert build.found("slides") is slides


MINE = """
from dpedf.ops import Affine, LogLoss, Softmax
from dpedf.phi import affine

def mine(x, y, scale=1.0):
    if scale < 0:
        raise ValueError(f"scale = {scale}, expected at least 0")
    Q = Softmax(Affine(affine(x.shape[0], y.classes), x) * scale)
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
    Q, ell = built({"build": f"{file}:mine", "scale": 0.0}, x, y)
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
    Q, ell = built({"build": f"{file}:mine"}, *data(6))
    assert kinds(ell)[0] is Affine
