"""Data files for tests under mpirun."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def digits_in_place(digits, tmp_path):
    """A folder in which data/digits.h5 lies where configs/digits_mlp.toml looks for it."""
    (tmp_path / "data").mkdir()
    shutil.copy(digits, tmp_path / "data" / "digits.h5")
    return tmp_path


@pytest.fixture(scope="session")
def mnist(tmp_path_factory):
    """data/mnist.h5, made from local copies of the four files: this machine may have no network."""
    copies = Path(os.environ.get("DPEDF_SHARED", ROOT.parent / "shared")) / "mnist"
    if not copies.is_dir():
        pytest.skip(f"no copies of MNIST's files in {copies}, which DPEDF_SHARED can name")
    file = tmp_path_factory.mktemp("mnist") / "mnist.h5"
    recipe = [sys.executable, ROOT / "data" / "mnist.py", "--from", copies, "--output", file]
    subprocess.run(recipe, check=True)
    return file
