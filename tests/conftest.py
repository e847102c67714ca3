"""What tests share: the data set of digits, Python on this tree, and how an error reads."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import h5py
import pytest
from emulator import compiler
from hypothesis import settings

from dpedf.device.choose import GRANTS
from dpedf.errors import UserError

ROOT = Path(__file__).resolve().parents[1]

# A limit of time only ends what hangs: how long a test takes says how busy the machine is.
settings.register_profile("dpedf", deadline=None)
settings.load_profile("dpedf")

# Launchers and schedulers speak to a process through these; here, the tests alone do.
SPOKEN = "PMI", "OMPI_", "PRTE_", "SLURM_", "CUDA_VISIBLE_DEVICES"


@pytest.fixture(scope="session")
def environment():
    """The variables of a process of its own, which imports this tree."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(SPOKEN)}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return inherited | {"PYTHONPATH": path}


@pytest.fixture(scope="session")
def python(environment):
    """python(*arguments) runs Python to its end; variables are added to its environment."""

    def run(*arguments, cwd=None, **variables):
        command = [sys.executable, *map(str, arguments)]
        streams = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
        return subprocess.run(command, cwd=cwd, env=environment | variables, timeout=600, **streams)

    return run


@pytest.fixture(scope="session")
def digits(python, tmp_path_factory):
    """data/digits.h5, as its recipe writes it."""
    file = tmp_path_factory.mktemp("digits") / "digits.h5"
    assert python(ROOT / "data" / "digits.py", "--output", file).returncode == 0
    return file


@pytest.fixture(scope="session")
def few_digits(digits, tmp_path_factory):
    """250 of its rows, and 50 to test: a simulated GPU takes its time for each."""
    file = tmp_path_factory.mktemp("few_digits") / "digits.h5"
    with h5py.File(digits) as whole, h5py.File(file, "w") as few:
        few.attrs.update(whole.attrs)
        for name, rows in ("train", 250), ("test", 50):
            few[f"{name}/x"], few[f"{name}/y"] = (whole[f"{name}/{v}"][:rows] for v in "xy")
    return file


@pytest.fixture(scope="session")
def refused():
    """with refused(where, *words): a UserError of one line names where, and beside it the words."""

    @contextmanager
    def expect(where, *words):
        with pytest.raises(UserError) as caught:
            yield
        line = str(caught.value)
        assert "\n" not in line and str(where) in line
        for word in words:
            assert str(word) in line.replace(str(where), "", 1)

    return expect


# In a view of the file systems of its own, so that what it mounts goes when it ends.
ON_A_SMALL_DISK = """
mount -t tmpfs -o size=200k tmpfs . && cd "$PWD" && "$@"
status=$?
cp -a . "$PWD.kept"
exit $status
"""


@pytest.fixture
def on_a_small_disk(environment, tmp_path):
    """on_a_small_disk(*arguments) runs Python in a folder of 200 kB; (what came of it, a copy)."""
    alone = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    folder = tmp_path / "disk"
    folder.mkdir()
    options = {"capture_output": True, "text": True, "timeout": 600, "cwd": folder}

    def run(*command):
        shell = [*alone, "sh", "-c", ON_A_SMALL_DISK, "sh", *map(str, command)]
        return subprocess.run(shell, env=environment, **options)

    if not shutil.which("unshare") or run("true").returncode:
        pytest.skip("needs root, or a kernel that lets users mount a tmpfs")
    shutil.rmtree(f"{folder}.kept")
    return lambda *arguments: (run(sys.executable, *arguments), tmp_path / "disk.kept")


FAKE = Path(__file__).parent / "fake"
PROBE = "from dpedf.device.gpu import acquire; acquire(0, 'float32', True, print)"


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """The variables of a process that finds an NVIDIA driver, which knows its version alone."""
    if compiler() is None:
        pytest.skip("a simulated GPU takes a C++ compiler")
    folder = tmp_path_factory.mktemp("driver")
    source, library = FAKE / "libcuda.c", folder / "libcuda.so.1"
    subprocess.run([compiler(), "-x", "c", "-shared", "-fPIC", source, "-o", library], check=True)
    return {"LD_LIBRARY_PATH": f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}"}


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Where kernels that were compiled for the CPU lie: one folder for all workers of xdist."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "kernels"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def simulated(environment, driver, compiled):
    """The variables of a process for which there is a GPU, simulated by tests/fake."""
    path = os.pathsep.join([str(FAKE), environment["PYTHONPATH"]])
    return environment | driver | {"PYTHONPATH": path, "FAKE_CUPY_KERNELS": str(compiled)}


@pytest.fixture(scope="session")
def real(python, environment):
    """The same, where there is a GPU; otherwise the test is skipped with the reason."""
    granted = environment | {name: os.environ[name] for name in GRANTS if name in os.environ}
    probe = python("-c", PROBE, **granted)
    if probe.returncode:
        pytest.skip(probe.stderr.splitlines()[-1])
    return granted


@pytest.fixture(scope="session", params=["simulated", pytest.param("real", marks=pytest.mark.gpu)])
def gpu(request):
    """The variables of a process that has a GPU, simulated or real."""
    return request.getfixturevalue(request.param)
