"""Models in a user's own file: what they import beside it, and what a run knows of that."""

import importlib
import os
import pickle
import random
import sys
import sysconfig
import types
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from dpedf.edf import Input
from dpedf.parallel.ranks import Ranks
from dpedf.run import own_code
from dpedf.run.build import build, find
from dpedf.run.own_code import sources
from dpedf.run.resume import hash_of_code
from dpedf.run.setup import Setup

ROOT = Path(__file__).resolve().parents[1]
MODEL = """
from dpedf.ops import Affine, LogLoss, Softmax
from dpedf.phi import dense

def model(x, y):
    Q = Softmax(Affine(dense(x.shape[0], y.classes), x))
    return Q, LogLoss(Q, y)
"""


@pytest.fixture(autouse=True)
def as_before():
    """Afterwards, modules, folders and what is known of them are those from before."""
    modules, folders = dict(sys.modules), [*sys.path]
    yield
    sys.path[:] = folders
    for name in sys.modules.keys() - modules.keys():
        del sys.modules[name]
    own_code.located.clear()
    own_code.neighbours.clear()


def write(folder, **files):
    """Files of Python in a folder, by their names without .py; the folder."""
    for name, text in files.items():
        path = folder / f"{name.replace('__of__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


def data():
    return Input((6,), np.float32), Input((), np.intp, 3)


def test_a_model_imports_its_neighbours_as_a_program_does(tmp_path):
    late = "    import late\n    assert late.here == 2\n    return built(x, y)\n"
    write(
        tmp_path / "my nets, číslo 1.2",
        model="from layers import model as built\nfrom more.deep import here\n"
        f"def model(x, y):\n    assert here == 1\n{late}",
        layers=MODEL,
        late="here = 2",
        more__of____init__="",
        more__of__deep="here = 1",
    )
    Q, ell = build({"build": f"{tmp_path}/my nets, číslo 1.2/model.py:model"}, *data())
    assert Q.value.shape == (0, 3)
    assert pickle.loads(pickle.dumps(sys.modules["layers"].model)) is sys.modules["layers"].model


def test_two_models_have_each_its_own_neighbour_of_one_name(tmp_path):
    for which in "one", "two":
        text = "import layers\ndef model(x, y):\n    import layers as late\n"
        write(
            tmp_path / which,
            model=f"{text}    return layers.here, late.here\n",
            layers=f"here = '{which}'",
        )
    one, two = (find(f"{tmp_path}/{which}/model.py:model") for which in ("one", "two"))
    assert (one.__globals__["layers"].here, two.__globals__["layers"].here) == ("one", "two")
    for which in "one", "two", "one":
        with own_code.beside(f"{tmp_path}/{which}/model.py"):
            found = {"one": one, "two": two}[which](None, None)
        assert found == (which, which)
    for model in one, two:
        assert pickle.loads(pickle.dumps(model)) is model


def test_neighbours_may_lie_in_a_folder_that_is_no_package(tmp_path):
    for which in "one", "two":
        write(
            tmp_path / which,
            model="import layers.block\nfrom calendar import month\ndef model(x, y):\n"
            "    import layers.block as late\n    return layers.block.here, late.here\n",
            layers__of__block=f"here = '{which}'",
            calendar__of__other="",
        )
    files = [f"{tmp_path}/{which}/model.py" for which in ("one", "two")]
    models = [find(f"{file}:model") for file in files]
    for k in 0, 1, 0, 1:
        with own_code.beside(files[k]):
            assert models[k](None, None) == (("one", "two")[k],) * 2
        assert f"{tmp_path}/{('one', 'two')[k]}/layers/block.py" in map(str, sources(files[k]))
    assert len(sources(files[0])) == 2


def test_a_neighbour_that_was_changed_since_is_read_again_but_not_one_of_the_program(
    tmp_path, monkeypatch
):
    text = "import layers, kept\ndef model(x, y): return layers.here, kept.here"
    write(tmp_path, model=text, layers="here = 1", kept="here = 1")
    monkeypatch.syspath_prepend(tmp_path)
    kept = importlib.import_module("kept")
    for now in 1, 2, 3:
        write(tmp_path, layers=f"here = {now}")
        model = find(f"{tmp_path}/model.py:model")
        with own_code.beside(f"{tmp_path}/model.py"):
            assert model(None, None) == (now, 1)
        assert sys.modules["kept"] is kept and sys.modules["layers"].here == now
        assert len(sources(f"{tmp_path}/model.py")) == 3
    assert not list(tmp_path.glob("__pycache__/layers*"))  # which is of the second, not the text


def test_a_node_imports_a_neighbour_as_late_as_it_likes(tmp_path):
    write(tmp_path, model="def model(x, y):\n    import late\n    return late", late="", random="")
    model = find(f"{tmp_path}/model.py:model")
    assert Path(model(None, None).__file__) == tmp_path / "late.py"
    assert importlib.import_module("random") is random


def test_a_python_below_the_folder_of_a_model_is_none_of_its_neighbours(tmp_path, monkeypatch):
    write(tmp_path, model="import calendar\ndef model(x, y): return calendar", calendar="")
    for place in sysconfig.get_path("stdlib"), "lib/site-packages":
        below = tmp_path / "env" / Path(place).name / "calendar.py"
        away = types.ModuleType("calendar")
        away.__file__ = str(below)
        monkeypatch.setitem(sys.modules, "calendar", away)
        found = find(f"{tmp_path}/model.py:model")(None, None)
        assert Path(found.__file__) == tmp_path / "calendar.py"
        assert sys.modules["calendar"] is away
        assert below not in sources(f"{tmp_path}/model.py")


def test_a_neighbour_named_as_a_module_of_python_hides_it_from_the_model_alone(tmp_path):
    text = "import random, os, check\nfrom dpedf import check as other\ndef model(x, y): pass\n"
    write(tmp_path, model=text, random="mine = True", os="mine = True", check="mine = True")
    its = find(f"{tmp_path}/model.py:model").__globals__
    assert its["random"].mine and its["check"].mine and not hasattr(its["other"], "mine")
    assert its["os"] is sys.modules["os"]  # of which Python itself has one, before any program
    assert sys.modules["random"] is random


def test_a_change_of_a_neighbour_is_a_change_of_the_code(tmp_path):
    for other in "one", "two":
        write(tmp_path / other, model="import layers, random", layers="", random="", unused="")
        with pytest.raises(ValueError, match="expected a procedure"):
            find(f"{tmp_path}/{other}/model.py:model")
    file = f"{tmp_path}/two/model.py"
    before = hash_of_code(file)
    write(tmp_path / "two", unused="changed = 1")
    write(tmp_path / "one", layers="changed = 1")
    assert hash_of_code(file) == before
    for changed in "layers", "random", "model":
        write(tmp_path / "two", **{changed: f"import {changed}"})
        assert hash_of_code(file) not in (before, "")
        before = hash_of_code(file)


def test_the_code_is_known_wherever_the_model_goes(tmp_path, monkeypatch):
    monkeypatch.chdir(write(tmp_path / "a", model=f"import os\nos.chdir('..')\n{MODEL}"))
    find("model.py:model")
    assert hash_of_code("model.py") == hash_of_code(f"{tmp_path}/a/model.py")


def test_a_run_stays_in_its_folder_though_its_model_goes_to_another(
    tmp_path, monkeypatch, digits, refused
):
    model = f"import os\n{MODEL.replace('    Q', '    os.chdir(os.pardir)' + chr(10) + '    Q')}"
    text = model.replace("(x.shape[0], y", "(64, y").replace(", x))", ", Reshape(x, (64,))))")
    monkeypatch.chdir(write(tmp_path / "a", model=text.replace("Affine,", "Affine, Reshape,")))
    config = (ROOT / "configs" / "digits_mlp.toml").read_text()
    (tmp_path / "a" / "c.toml").write_text(config.replace("data/digits.h5", str(digits)))
    words = "c.toml", "model={build='model.py:model'}"
    with closing((first := Setup(words, Ranks())).directory.lock):
        assert os.getcwd() == str(tmp_path)
        monkeypatch.chdir(tmp_path / "a")
        with refused(f"{first.directory.given}: a live job"):
            Setup(words, Ranks())
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a" / "runs" / "c" / ".lock").exists()


WRONG = {  # the files, and what the line says
    "no Python": ({"model": "x = 1\ndef model(x, y)\n    pass"}, ["model.py, line 2", "':'"]),
    "an indent": ({"model": "def model(x, y):\nreturn 1"}, ["model.py, line 2", "indented"]),
    "a neighbour": ({"model": "import b", "b": "\n\nx ="}, ["b.py, line 3", "expected Python"]),
    "NUL": ({"model": "\0"}, ["model.py, line 1", "null bytes"]),
    "no such": ({"model": "\nimport nowhere_at_all"}, ["model.py, line 2", "'nowhere_at_all'"]),
    "no such name": ({"model": "from b import c", "b": ""}, ["model.py, line 1", "'c'", "beside"]),
    "a package's": (
        {"model": "from . import b", "b": ""},
        ["model.py, line 1", "relative import", "expected `import b`, without the dot"],
    ),
    "a name of a package's": (
        {"model": "\nfrom .b import c", "b": ""},
        ["model.py, line 2", "expected `from b import c`, without the dot"],
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_imported_is_one_line_with_file_and_line(tmp_path, what, refused):
    files, (where, *words) = WRONG[what]
    write(tmp_path, **files)
    with refused(f"{tmp_path}/{where}", *words):
        find(f"{tmp_path}/model.py:model")


def test_a_byte_order_mark_is_none_of_the_code(tmp_path):
    write(tmp_path, model=f"\ufeff{MODEL}")
    assert callable(find(f"{tmp_path}/model.py:model"))
