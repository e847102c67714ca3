"""dpedf runs without what macOS lacks."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

# Python without what only Linux and glibc have.
POORER = """
import ctypes, os

del os.sched_getaffinity

class Library(ctypes.CDLL):
    def __getattr__(self, name):
        if name == "mallopt":
            raise AttributeError(name)
        return super().__getattr__(name)

ctypes.CDLL = Library
"""


def test_training_needs_no_affinity_of_cores_and_no_mallopt(python, digits, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(POORER)
    words = "-m", "dpedf.train", ROOT / "configs" / "digits_mlp.toml", f"data.file={digits}"
    short = "train.epochs=0", "train.steps=20", "train.slices=0", f"run.dir={tmp_path}/run"
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    poorer = python(*words, *short, PYTHONPATH=path)
    assert poorer.returncode == 0, poorer.stderr
    assert "1 BLAS thread" in poorer.stdout
    names = "import ctypes, os; print(hasattr(os, 'sched_getaffinity'), ctypes.CDLL.__name__)"
    assert python("-c", names, PYTHONPATH=path).stdout == "False Library\n"


def test_python_without_docstrings_is_refused_and_without_asserts_is_not(python):
    code = "import dpedf; print(dpedf.__version__)"
    assert python("-O", "-c", code).returncode == 0
    refused = python("-OO", "-c", code)
    assert refused.returncode == 1 and "use -O" in refused.stderr.splitlines()[-1]


# What macOS has as well.
TOOLS = "bash", "basename", "cat", "cmp", "dirname", "env", "readlink", "sed", "sh"


@pytest.fixture
def clone(tmp_path):
    """The tree in a folder whose .venv passes on to this Python, and a PATH of few tools."""
    folder, tools = tmp_path / "a tree", tmp_path / "tools"
    (folder / ".venv" / "bin").mkdir(parents=True)
    tools.mkdir()
    for name in "launch", "configs", "data", "dpedf":
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.h5"))
    for name in "", "-mpich":
        shutil.copy(ROOT / "pyproject.toml", folder / f".venv/installed{name}")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / ".venv" / "whole").write_text(f"{folder}\n")
    mpirun = shutil.which("mpirun") or pytest.skip("needs mpirun")
    for name, program in ("python", sys.executable), ("mpirun", mpirun):
        wrapper = folder / ".venv" / "bin" / name
        wrapper.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}" exec {program} "$@"\n')
        wrapper.chmod(0o755)
    for name in TOOLS:
        (tools / name).symlink_to(shutil.which(name))
    return folder, {"PATH": str(tools), "HOME": str(tmp_path)}


@pytest.mark.parametrize("where", ["the root", "another folder", "a link"])
def test_the_launch_script_needs_no_realpath_flock_or_timeout(clone, where, tmp_path):
    folder, environment = clone
    script, config = folder / "launch" / "local.sh", folder / "configs" / "digits.toml"
    here = folder if where == "the root" else tmp_path
    if where == "a link":
        (tmp_path / "train").symlink_to(os.path.relpath(script, tmp_path))
        script, environment = tmp_path / "train", environment | {"CDPATH": str(folder)}
    command = ["bash", os.path.relpath(script, here), "-n", "2", os.path.relpath(config, here)]
    done = subprocess.run(
        [*command, "train.epochs=1"],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (
        "not found" not in done.stderr
        and "mpirun -n 2 python -m dpedf.train configs/digits.toml" in done.stderr
    )
    assert "phi_sha256" in done.stdout and (folder / "runs" / "digits" / "checkpoint.h5").exists()
