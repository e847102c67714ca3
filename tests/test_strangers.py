"""A run that somebody else made: its checkpoint proves to be whole, and may say anything."""

import json
import os
import shutil

import h5py
import msgspec
import numpy as np
import pytest
from damage import prove

from dpedf.data import write
from dpedf.device import CPU
from dpedf.edf import Input
from dpedf.run.build import build
from dpedf.run.outline import outline
from dpedf.run.trained import Trained

CONFIG = """
[data]
file = "rows.h5"

[model]
build = "mlp"
sizes = [4, 3, 2]

[train]
epochs = 1
batch_size = 5
learning_rate = 0.1

[run]
dir = "run"
device = "cpu"
"""


@pytest.fixture(scope="module")
def whole(python, tmp_path_factory):
    """A run of a few steps."""
    folder, random = tmp_path_factory.mktemp("strangers"), np.random.default_rng(0)
    rows = random.normal(size=(20, 4)).astype(np.float32), random.integers(0, 2, 20)
    about = {"name": "rows", "source": "this test", "licence": "none", "classes": ["cat", "dog"]}
    write(folder / "rows.h5", **about, train=rows, test=rows)
    (folder / "a.toml").write_text(CONFIG)
    ran = python("-m", "dpedf.train", "a.toml", cwd=folder)
    assert (ran.returncode, ran.stderr) == (0, "")
    return folder / "run"


@pytest.fixture
def forged(whole, tmp_path):
    """forged(change): the run, with a checkpoint that a function has changed."""

    def forge(change):
        shutil.copy(whole / "checkpoint.h5", tmp_path)
        with h5py.File(tmp_path / "checkpoint.h5", "r+") as file:
            change(file)
        prove(tmp_path / "checkpoint.h5")
        return tmp_path

    return forge


def setting(section, **keys):
    """Sets keys of a section of the settings; None removes one."""

    def change(file):
        tree = msgspec.toml.decode(file.attrs["settings"])
        tree[section] = {k: v for k, v in (tree[section] | keys).items() if v is not None}
        file.attrs["settings"] = msgspec.toml.encode(tree).decode()

    return change


def form(**keys):
    """Sets keys of the form."""

    def change(file):
        file.attrs["form"] = json.dumps(json.loads(file.attrs["form"]) | keys)

    return change


def gzip(file):
    file.create_dataset("zeros", (10**12,), "f8", chunks=(1 << 20,), compression="gzip")


def elsewhere(file):
    os.mkfifo(fifo := f"{file.filename}.fifo")  # who reads it waits for ever
    file.create_dataset("there", (100,), "u1", external=[(fifo, 0, 100)])


def linked(file):
    os.mkfifo(fifo := f"{file.filename}.fifo")
    file["there"] = h5py.ExternalLink(fifo, "/x")


def again_and_again(file):
    file["zeros"] = np.zeros(10_000)
    for k in range(10):
        file[f"zeros{k}"] = file["zeros"]


FORGED = {
    "no model": (setting("model", build=None), "model.build = nothing"),
    "a number for a model": (setting("model", build=3), "model.build"),
    "a model with NUL in its name": (setting("model", build="a\0b.py:x"), "model.build"),
    "a number to freeze": (setting("model", freeze=3), "model.freeze"),
    "nothing to learn": (setting("train", epochs=0), "train.epochs = 0"),
    "brackets": (lambda file: file.attrs.update(settings="a = " + "[" * 30_000), "its settings"),
    "zeros that are not there": (lambda file: file.create_dataset("z", (10**12,), "f8"), "more"),
    "a compressed array": (gzip, "/zeros is no plain array"),
    "numbers in another file": (elsewhere, "/there is no plain array"),
    "a link to another file": (linked, "there is a link"),
    "one array under many names": (again_and_again, "more numbers than bytes"),
    "texts": (lambda file: file.attrs.update(code=["a"] * 9), "attribute code"),
    "a type of no numbers": (form(x_dtype="nonsense"), "x_dtype"),
    "a type of objects": (form(x_dtype="O"), "x_dtype"),
    "a negative size": (form(x_shape=[-1, 8, 8]), "x_shape"),
    "a negative number of classes": (form(classes=-3), "classes"),
    "too few names": (form(names=["a"]), "1 names for 2 classes"),
    "no stored type": (form(stored=""), "stored"),
}


@pytest.mark.parametrize(("change", "said"), FORGED.values(), ids=FORGED)
def test_a_forged_checkpoint_is_one_line(change, said, forged, refused):
    run = forged(change)
    with refused(run / "checkpoint.h5", said):
        Trained(run, CPU())


@pytest.mark.parametrize("freeze", [[], ["Phi1"]])
def test_a_larger_model_than_its_numbers_is_refused_before_it_is_drawn(freeze, forged, refused):
    model = {"build": "mlp", "sizes": [4, 300, 2], "freeze": freeze}
    x, y = Input((4,), np.float32), Input((), int, 2)

    def larger(file):
        setting("model", **model)(file)
        file.attrs["program"] = outline(build(model, x, y)[1])

    found = "Phi1.w is missing" if freeze else "phi is 23 numbers"
    with refused("checkpoint.h5", found, "as in the model"):
        Trained(forged(larger), CPU())


def test_what_is_no_run_and_no_checkpoint_is_answered_with_one_that_is(
    whole, tmp_path, monkeypatch, refused
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole, "runs/mine")
    for run, name, found, expected in (
        ("runs", None, "no checkpoint.h5 in it", "such as runs/mine"),
        ("runs/min", None, "no such directory", "such as runs/mine"),
        ("mine", None, "no such directory", "such as runs/mine"),
        ("runs/mine/checkpoint.h5", None, "a file", "such as runs/mine --checkpoint checkpoint.h5"),
        ("runs/mine", "checkpoint", "no checkpoint", "one of checkpoint.h5"),
        ("runs/mine", "metrics.jsonl", "no checkpoint", "one of checkpoint.h5"),
    ):
        with refused(run, found, expected):
            Trained(run, CPU(), name)


def test_what_was_not_forged_is_opened(forged):
    assert Trained(forged(lambda file: None), CPU()).form.names == ("cat", "dog")
