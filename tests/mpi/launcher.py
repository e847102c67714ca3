"""mpirun, as the tests under it start it."""

import os
import signal
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


LIMIT = 300  # seconds: nothing that does not hang takes so long, on the busiest machine


def hear_ctrl_c():
    """In a process that starts: a shell ignores SIGINT for what it runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def command(n, *arguments):
    return ["mpirun", "-n", str(n), sys.executable, *map(str, arguments)]


def start(n, *arguments, **options):
    """A job of n ranks of `python arguments`, running."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    options = pipes | {"env": ENVIRONMENT, "preexec_fn": hear_ctrl_c} | options
    return subprocess.Popen(command(n, *arguments), **options)


def mpirun(n, *arguments, timeout=LIMIT, **options):
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


WATCHED = "data.valid=0", "train.checkpoint_every=1000000", "train.epochs=1000000"


def start_watched(n, config, *arguments, **options):
    """A job that trains without end, or a disk to wait for, and the process of each rank."""
    job = start(n, PROGRAMS / "watched.py", config, *arguments, *WATCHED, **options)
    for line in job.stdout:
        if line.startswith("training"):
            return job, [int(word) for word in line.split()[1:]]
    raise AssertionError(job.communicate())


def assert_timeout_ends(n, config, *arguments, limit=LIMIT, **options):
    """Of n ranks one is stopped."""
    job, ranks = start_watched(n, config, *arguments, "run.timeout=3", **options)
    began = time.monotonic()
    os.kill(ranks[-1], signal.SIGSTOP)
    _, err = job.communicate(timeout=3 + LIMIT)
    assert time.monotonic() - began < 3 + limit
    assert f"rank {n - 1} not running" in err, err
    assert job.returncode not in (0, 2, 75) and "no rank was alive for 3 seconds" in err
