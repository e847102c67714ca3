"""The program that draws training curves: what it draws, and what it says."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CURVE = ROOT / "examples" / "curve.py"
STEPS_PER_EPOCH = 7


@pytest.fixture
def evaluations(tmp_path, monkeypatch):
    """evaluations(steps): of a run that was evaluated after these steps, of 7 an epoch."""
    stubs = tmp_path / "stubs" / "matplotlib"
    stubs.mkdir(parents=True)
    (stubs / "__init__.py").write_text("use = print")
    (stubs / "pyplot.py").touch()
    (stubs / "ticker.py").write_text("LogLocator = None")
    monkeypatch.syspath_prepend(tmp_path / "stubs")
    found = runpy.run_path(str(CURVE))["evaluations"]
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)

    def of(steps):
        of_all = {"event": "eval", "steps_per_epoch": STEPS_PER_EPOCH}
        events = [of_all | {"step": n} for n in steps]
        lines = [json.dumps(e) for e in [*events, {"event": "test", "step": steps[-1]}]]
        (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
        return found(tmp_path)[1]

    return of


def test_each_evaluation_of_an_epoch_has_its_own_place(evaluations):
    assert evaluations([7, 14, 21]) == [1, 2, 3]
    assert evaluations([3, 6, 9, 12, 14]) == [3 / 7, 6 / 7, 9 / 7, 12 / 7, 2]
    assert evaluations([3]) == [3 / 7]


def test_without_matplotlib_one_line_says_how_to_install_it(tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError('no matplotlib here')")
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    words = [sys.executable, CURVE, tmp_path]
    ran = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    expected = 'examples/curve.py: no matplotlib here, which draws: pip install -e ".[plot]"\n'
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", expected)
