"""mpirun, as the tests under it start it."""

import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).parent / "programs"
# An MPI from the package index lies beside this Python; otherwise PATH says which to use.
SEARCH = {"PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"}
OPEN_MPI = {  # as root, and with more ranks than cores
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}
ENVIRONMENT = os.environ | SEARCH | OPEN_MPI


def command(n, *arguments):
    return ["mpirun", "-n", str(n), sys.executable, *map(str, arguments)]


def start(n, *arguments, **options):
    """A job of n ranks of `python arguments`, running."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    return subprocess.Popen(command(n, *arguments), **(pipes | {"env": ENVIRONMENT} | options))


def mpirun(n, *arguments, timeout=600, **options):
    """The same, ended: status, stdout, stderr."""
    job = start(n, *arguments, **options)
    try:
        out, err = job.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        job.kill()
        out, err = job.communicate()
        raise AssertionError(f"no end in {timeout} s:\n{out}\n{err}") from None
    return subprocess.CompletedProcess(job.args, job.returncode, out, err)


def train(n, config, *arguments, **options):
    """dpedf.train on n ranks; the status has to be 0.  Its standard output."""
    done = mpirun(n, "-m", "dpedf.train", config, *arguments, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def phi_sha256(output):
    """What a run that came to its end says of its Phi."""
    return next(line.split()[1] for line in output.splitlines() if line.startswith("phi_sha256"))


def learnt(directory, file="checkpoint.h5"):
    """What a run has learnt, by name: phi, and the running values of computed nodes."""
    with h5py.File(directory / file) as there:
        running = {name: array[...] for name, array in there.get("running", {}).items()}
        return {"phi": there["phi"][...], **running}


def assert_equal_up_to_rounding(found, expected):
    """Of what two runs in float64 have learnt."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert np.linalg.norm(found[name] - array) <= 1e-12 * np.linalg.norm(array), name


def ranks_of(job, directory, n):
    """The n processes of a job that trains, by rank or nearly so."""
    while not (directory / "metrics.jsonl").exists():
        assert job.poll() is None, job.communicate()
        time.sleep(0.05)
    time.sleep(0.5)
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/cmdline") as file:
                words = file.read().split("\0")
        except OSError:
            continue  # it has ended meanwhile
        if f"run.dir={directory}" in words and "mpirun" not in words[0] and "-m" in words[:3]:
            found.append(int(process))
    assert len(found) == n
    return sorted(found)
