"""docs/recipes.md and docs/runs.md: what they show works, and what a run writes stands there."""

import hashlib
import json
import re
import shlex
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from shipped import ROOT
from test_own_code import as_before  # noqa: F401
from trainings import PROGRAM

from dpedf.device import CPU
from dpedf.edf import Backward, Forward, Input
from dpedf.phi import Phi
from dpedf.run import build
from dpedf.run.build import find
from dpedf.run.directory import FILES
from dpedf.run.resume import hash_of_code
from dpedf.run.trained import Trained

RECIPES, RUNS = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("recipes", "runs"))


@pytest.fixture(scope="module")
def recipes(python, digits, tmp_path_factory):
    """A folder in which everything of docs/recipes.md was done, in its order; what was printed."""
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "data").mkdir()
    shutil.copy(digits, folder / "data" / "digits.h5")
    for name, text in re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", RECIPES, re.DOTALL):
        (folder / name).write_text(text)
    blocks = re.findall(r"```console\n(.*?)```", RECIPES, re.DOTALL)
    lines = [
        shlex.split(line[2:], comments=True) for block in blocks for line in block.splitlines()
    ]
    trainings = [line[2:] for line in lines if line[:2] == ["dpedf", "train"]]
    for program in (line[1:] for line in lines if line[0] == "python"):
        assert python(*program, cwd=folder).returncode == 0
    trainings.append(["lion.toml", "run.dir=whole"])
    assert len(lines) == len(trainings) == 6
    (folder / "runs.json").write_text(json.dumps(trainings))
    done = python(PROGRAM, "runs.json", cwd=folder)
    assert done.stdout.count("status 0") == 6, done.stdout + done.stderr
    return folder


def events(folder, run):
    return [json.loads(line) for line in (folder / run / "metrics.jsonl").open()]


def test_every_recipe_learns(recipes):
    for run in "lion", "weighted", "two", "both":
        *_, last, test = events(recipes, f"runs/{run}")
        assert last["valid_accuracy"] > 0.94 and test["test_accuracy"] > 0.85, run


def test_the_rule_of_the_recipe_goes_on_as_if_it_had_not_stopped(recipes):
    stopped, whole = events(recipes, "runs/lion"), events(recipes, "whole")
    assert stopped[-1] == whole[-1]
    rates = {e["step"]: e["learning_rate"] for e in whole if e["event"] == "train"}
    assert rates[200] == 0.003 / (1 + 179 / 100) ** 0.5  # in the 180th step after the warm-up


def test_the_weights_of_classes_are_those_of_pytorch():
    torch = pytest.importorskip("torch", reason="the reference is PyTorch")
    random, weights, B = np.random.default_rng(0), [0.5, 2.0, 0.0, 1.25], 9
    x, y = Input((5,), np.float64), Input((), int, 4)
    settings = {"build": "mlp", "sizes": [5, 6, 4]}
    _, ell = build.build(settings | {"class_weights": weights}, x, y)
    phi = Phi(ell, 0, np.float64)
    x.value, y.value = random.normal(size=(B, 5)), random.integers(0, 4, B)
    Forward(ell)
    Backward(ell)
    Phis = [torch.tensor(p.value, requires_grad=True) for p in phi.parameters]
    w1, c1, w2, c2 = Phis
    z = torch.relu(torch.tensor(x.value) @ w1 - c1) @ w2 - c2
    loss = torch.nn.CrossEntropyLoss(torch.tensor(weights).double())
    loss(z, torch.tensor(y.value)).backward()
    for p, theirs in zip(phi.parameters, Phis, strict=True):
        np.testing.assert_allclose(p.grad, theirs.grad, rtol=1e-10, atol=1e-14)


def test_two_inputs_lie_side_by_side(recipes):
    with h5py.File(recipes / "data" / "two.h5") as file, h5py.File(recipes / "data/digits.h5") as d:
        image, x = d["train/x"][7].astype(float), file["train/x"][7]
    np.testing.assert_array_equal(x[:64], image.reshape(-1))
    np.testing.assert_array_equal(x[64:], [image[:4].sum(), image[4:].sum()])


def described(title):
    """The words in backticks of the first column of the table below this title."""
    table = re.search(rf"^\| {title}.*\n\| --- .*\n((?:\|.*\n)+)", RUNS, re.MULTILINE)[1]
    return {w for row in table.splitlines() for w in re.findall(r"`(.*?)`", row.split(" | ")[0])}


def test_every_event_and_key_of_metrics_is_described(recipes):
    found, metrics = {}, set()
    for e in [e for run in ("lion", "weighted", "both") for e in events(recipes, f"runs/{run}")]:
        keys = {re.sub("_(?:top5|f1|label|pixels)$", "_NAME", key) for key in e}
        metrics |= e.keys() - keys
        found.setdefault(e["event"], set()).update(keys - {"event"})
    names = "top5", "f1", "label", "pixels"
    assert metrics == {f"{rows}_{name}" for rows in ("valid", "test") for name in names}
    assert {*found} == {*re.findall(r"^\| `(\w+)`: ", RUNS, re.MULTILINE)}
    for kind, keys in found.items():
        assert keys == described(f"`{kind}`: "), kind


def test_every_file_of_a_run_is_described(recipes):
    there = {path.name for path in (recipes / "runs" / "lion").iterdir()}
    assert there <= described("file") == {*FILES, ".lock", "events.out.tfevents.*.dpedf"}


def test_everything_in_a_checkpoint_is_described(recipes):
    for run in "lion", "two":
        for name in "checkpoint.h5", "best.h5":
            with h5py.File(recipes / "runs" / run / name) as file:
                assert {*file.attrs} == described("attributes"), (run, name)
                there = {re.sub(r"^rule\..*", "rule.NAME", key) for key in file}
            assert there <= described("datasets"), (run, name)
    with open(recipes / "runs" / "lion" / "best.h5", "rb") as file:
        head = file.read(512).decode()
    assert re.fullmatch(r"dpedf checkpoint: \d+ bytes follow, SHA-256 [0-9a-f]{64}\n *", head)


def test_the_lines_that_read_a_checkpoint_print_every_parameter(recipes, monkeypatch):
    (code,) = re.findall(r"```python\n(import h5py.*?)```", RUNS, re.DOTALL)
    monkeypatch.chdir(recipes)
    printed = {}
    exec(code.replace("runs/digits", "runs/lion"), {"print": printed.__setitem__})
    shapes = {name: values.shape for name, values in printed.items()}
    assert shapes == {"Phi1.w": (64, 64), "Phi1.b": (64,), "Phi2.w": (64, 10), "Phi2.b": (10,)}
    with h5py.File(recipes / "runs" / "lion" / "best.h5") as file:
        phi = file["phi"][:]
    values = [printed[name].ravel() for name in ("Phi1.w", "Phi1.b", "Phi2.w", "Phi2.b")]
    np.testing.assert_array_equal(phi, np.concatenate(values))


def test_the_test_rows_are_seen_with_the_parameters_of_the_last_step(recipes):
    sha256 = {}
    for name in "checkpoint.h5", "best.h5":
        with h5py.File(recipes / "runs" / "two" / name) as file:
            sha256[name] = hashlib.sha256(file["phi"][:].tobytes()).hexdigest()
    *_, test = events(recipes, "runs/two")
    assert test["phi_sha256"] == sha256["checkpoint.h5"] != sha256["best.h5"]


def test_a_trained_model_is_opened_without_the_code_of_its_rule(recipes, monkeypatch):
    """Which may be somebody else's, and lies where it likes."""
    monkeypatch.chdir(recipes)
    before = (recipes / "mine.py").read_text()
    for text in "raise SystemExit('this was run')", None:
        (recipes / "mine.py").write_text(text) if text else (recipes / "mine.py").unlink()
        trained = Trained("runs/lion", CPU())
        assert trained.settings.train.optimizer == "mine.py:lion" and not trained.notes
    (recipes / "mine.py").write_text(before)


def test_what_lies_beside_a_model_in_its_folder_is_none_of_its_code(recipes, monkeypatch):
    """A rule that is run with it, but not where the trained model is opened."""
    monkeypatch.chdir(recipes)
    with h5py.File("runs/both/best.h5") as file:
        code = file.attrs["code"]
    find("both.py:both")
    assert (
        code == hash_of_code("both.py") == hashlib.sha256(Path("both.py").read_bytes()).hexdigest()
    )
