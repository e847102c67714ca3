"""dpedf doctor: what it finds, what it says of it, and that it ends whatever is missing."""

import json
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
from conftest import ROOT
from emulator import compiler
from launcher import mpirun

from dpedf.tools import doctor
from dpedf.tools.machine import diagnosis, facts, measure, measured, page

GPU = {
    **{"name": None, "place": None, "products": "NumPy", "asked": True, "granted": []},
    **{"cuda": None, "driver": None, "seen": 0, "cupy": None, "nccl": None, "nvmath": None},
    "why_none": "no NVIDIA driver (libcuda.so.1); with one, pip install",
}
MPI = {
    **{"library": "MPICH 4.3.0", "path": "/usr/lib/libmpi.so.12", "package": None},
    **{"mpirun": "/usr/bin/mpirun", "cuda_aware": False},
}
CORES = {"usable": [0, 1, 2, 3], "machine": 4, "load": 0.1, "bindable": True, "quotas": []}
A100 = {"name": "A100", "cuda": 12, "cupy": "13.4.1", "why_none": None}


def healthy(n=2, hosts=1):
    """The report on n ranks of each host, on 4 cores, of which nothing is to be mended."""
    facts = []
    for rank in range(n * hosts):
        its = {
            **{"rank": rank, "host": f"node{rank // n}", "mpi4py": "4.1.0", "scheduler": None},
            **{"os": "Linux", "python": "3.13", "dpedf": "1", "numpy": "2", "h5py": "3"},
            **{"hdf5": "2", "host_rank": rank % n, "blas": ["openblas"], "also_set": []},
            "cores": {
                "usable": [0, 1, 2, 3],
                "machine": 4,
                "load": 0.1,
                "bindable": True,
                "quotas": [],
            },
            "threads": {"count": 1, "why": "the default"},
            "variables": {"PMI_SIZE": str(n * hosts), "PMI_RANK": str(rank)},
            "shared_memory": {"folder": "/dev/shm", "size": 1 << 33, "free": 1 << 33},
        }
        facts.append(deepcopy(its | {"gpu": GPU, "mpi": MPI}))
    rows = {"file": "data/x.h5", "cache": "none", "bytes": 1 << 20, "warm": 1.0}
    rates = {"seconds": 1e-3, "bytes_per_second": 5e9, "busbw": 5e9}
    return {
        **{"ranks": n * hosts, "hosts": hosts, "launched": n * hosts, "facts": facts},
        **{
            "command": "dpedf doctor",
            "config": None,
            "busy": None,
            "notes": [],
            "library": "MPI",
        },
        "measured": {
            "copies": {"bytes": 1 << 25, "bytes_per_second": 1e10},
            "sums": [{"bytes": 1 << 24, "run": rates, "library": rates}],
            "products": [{"n": 1024, "alone": 5e10, "each": 5e10}],
            "rows": rows | {"rows": 100, "fits_in_memory": True, "rows_per_second": 1e6},
            "steps": {"rows": 64, "seconds": 1e-3, "rows_per_second": 1e4},
        },
        "verdict": [],
    }


def every(report, **changes):
    """Change the facts of all ranks: {group: {key: value}}, or {key: value}."""
    for its in report["facts"]:
        for key, change in changes.items():
            its[key] = its[key] | deepcopy(change) if isinstance(change, dict) else change


def found(report):
    return [(its["what"], its["command"]) for its in diagnosis.judge(report)]


@pytest.mark.parametrize("n, hosts", [(1, 1), (2, 1), (4, 1), (3, 2)])
def test_nothing_is_mended_where_all_is_well(n, hosts):
    assert found(healthy(n, hosts)) == []
    assert page.verdict_of(healthy(n, hosts)) == ""


def another_launcher(report):
    report.update(ranks=1, launched=4, facts=report["facts"][:1])
    report["facts"][0]["variables"] = {"PMI_SIZE": "4", "PMI_RANK": "0"}


def another_launcher_of_slurm(report):
    another_launcher(report)
    every(report, mpi={"library": "Open MPI v5.0.6"})
    report["facts"][0]["variables"] = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"}


def no_library(report):
    report.update(ranks=1, launched=1, facts=report["facts"][:1])
    every(report, mpi={"library": None})


def no_mpi4py(report):
    no_library(report)
    every(report, mpi4py=None)


def no_library_on_a_cluster(report):
    no_library(report)
    every(report, scheduler="PBS_JOBID")


def wheel_under_a_scheduler(report):
    every(report, scheduler="SLURM_JOB_ID", mpi={"package": "mpich 5.0.2"})


def gpus_without_cupy(report):
    every(report, gpu={"cuda": 12, "why_none": "ModuleNotFoundError: No module named 'cupy'"})


def gpu_that_fails(report):
    why = "CUDARuntimeError: cudaErrorECCUncorrectable; it needs: pip install"
    report["facts"][1]["gpu"] |= {"cuda": 12, "cupy": "13.4.1", "why_none": why}


def granted_without_a_driver(report):
    every(report, gpu={"granted": ["CUDA_VISIBLE_DEVICES"]})


def shared_gpu(report):
    every(report, gpu=A100 | {"place": "node0 0000:01:00.0"})


def oversubscribed_blas(report):
    every(report, threads={"count": 4})


def more_ranks_than_cores(report):
    every(report, cores={"usable": [0], "machine": 1})


def more_ranks_than_a_quota(report):
    every(report, cores={"quotas": [["1:2", 1.0]]})


def all_bound_to_one_core(report):
    every(report, cores={"usable": [2]})


def little_shared_memory(report):
    every(report, shared_memory={"size": 1 << 24, "free": 1 << 23})


def rows_that_do_not_fit(report):
    report["measured"]["rows"] |= {"cache": "memory", "bytes": 1 << 34}


def no_file(report):
    why = "data/x.h5: no such file, make it with: python data/x.py"
    report["measured"]["rows"] = {"why": why, "file": "data/x.h5"}


def slow_rows(report):
    report["measured"]["rows"]["rows_per_second"] = 1e3


def slow_sums(report):
    report["measured"]["sums"][0]["library"]["busbw"] = 1e8


SICK = {  # what is wrong, and words of what is said of it and of the command
    another_launcher: ("PMI_SIZE = 4, but MPICH 4.3.0 sees one rank", "/usr/bin/mpirun -n 4"),
    another_launcher_of_slurm: ("SLURM_STEP_NUM_TASKS = 4", "srun --mpi=pmix -n 4"),
    no_library: ("no MPI library", 'pip install -e ".[mpich]"'),
    no_mpi4py: ("mpi4py is not installed", "pip install mpi4py"),
    no_library_on_a_cluster: ("no MPI library", "module load mpi"),
    wheel_under_a_scheduler: ("SLURM_JOB_ID is set, but", "pip uninstall mpich && module load"),
    gpus_without_cupy: ("no GPU can be used on ranks 0-1: Module", 'pip install -e ".[cuda12]"'),
    gpu_that_fails: ("can be used on rank 1: CUDARuntimeError", "nvidia-smi"),
    granted_without_a_driver: ("CUDA_VISIBLE_DEVICES grants a GPU", "nvidia-smi"),
    shared_gpu: ("ranks 0-1 share the GPU node0 0000:01:00.0", "mpirun -n 1 python"),
    oversubscribed_blas: ("BLAS is oversubscribed: 2 ranks of 4 threads", "run.threads=2"),
    more_ranks_than_cores: ("2 ranks on the 1 core of node0", "mpirun -n 1 python"),
    more_ranks_than_a_quota: ("2 ranks on the 1 core of node0", "mpirun -n 1 python"),
    all_bound_to_one_core: ("to which they are bound", "mpirun -bind-to none -n 2"),
    little_shared_memory: ("/dev/shm has 8 MiB free", "mount -o remount"),
    rows_that_do_not_fit: ("data.cache = memory keeps all rows there", "mount -o remount"),
    no_file: ("data/x.h5: no such file", "python data/x.py"),
    slow_rows: ("1,000 rows/s, but the steps would take 10,000", "data.cache=memory"),
    slow_sums: ("MPI seems to use no shared memory", "env | grep"),
}


@pytest.mark.parametrize("break_it", SICK, ids=lambda break_it: break_it.__name__)
def test_what_is_wrong_is_said_alone_with_the_command_that_mends_it(break_it):
    report = healthy()
    break_it(report)
    (verdict,) = found(report)
    for words, text in zip(SICK[break_it], verdict, strict=True):
        assert words in text


def test_what_weighs_more_comes_first():
    report = healthy(4)
    for break_it in slow_rows, more_ranks_than_cores, shared_gpu, wheel_under_a_scheduler:
        break_it(report)
    firsts = "SLURM_JOB_ID", "ranks 0-3 share", "there are more ranks", "the data file"
    for (what, _), first in zip(found(report), firsts, strict=True):
        assert what.startswith(first)
    lines = page.verdict_of(report | {"verdict": diagnosis.judge(report)}).splitlines()
    assert lines[1] == "To mend first:" and lines.count("Then:") == 3


def hidden_gpus(report):
    """CUDA_VISIBLE_DEVICES is empty, which somebody wanted."""
    why = "CUDARuntimeError: cudaErrorNoDevice: no CUDA-capable device is detected"
    every(report, gpu={"cuda": 12, "cupy": "13.4.1", "why_none": why})


def gpus_that_nobody_asked_for(report):
    every(report, gpu={"cuda": 12, "asked": False, "why_none": "run.device = 'cpu'"})


def a_gpu_each(report):
    for rank, its in enumerate(report["facts"]):
        its["gpu"] |= A100 | {"place": f"node0 0000:0{rank}:00.0"}
    slow_sums(report)  # of MPI, to which a GPU is no neighbour


def a_wheel_at_home(report):
    every(report, mpi={"package": "mpich 5.0.2"})


def a_core_each(report):
    for rank, its in enumerate(report["facts"]):
        its["cores"]["usable"] = [rank]


def cold_rows(report):
    """A run reads them once, before its first step."""
    slow_rows(report)
    report["measured"]["rows"]["warm"] = 0.5


def slow_rows_of_no_model(report):
    slow_rows(report)
    del report["measured"]["steps"]


FINE = (hidden_gpus, gpus_that_nobody_asked_for, a_gpu_each, a_wheel_at_home, a_core_each)


@pytest.mark.parametrize("change", [*FINE, cold_rows, slow_rows_of_no_model])
def test_what_is_no_fault_is_not_said(change):
    report = healthy()
    change(report)
    assert found(report) == []


def test_what_is_measured_on_a_busy_machine_is_not_judged():
    report = healthy()
    slow_rows(report)
    slow_sums(report)
    assert len(found(report)) == 2 and diagnosis.busy(report) is None
    every(report, cores={"load": 3.0})
    report["busy"] = diagnosis.busy(report)
    assert "load 3.0 on the 4 cores of node0" in page.facts_of(report) and found(report) == []


def test_sums_between_hosts_or_on_crowded_cores_are_not_called_slow():
    apart, crowded = healthy(1, hosts=2), healthy()
    for report in apart, crowded:
        slow_sums(report)
    more_ranks_than_cores(crowded)
    assert found(apart) == [] and len(found(crowded)) == 1


def test_the_page_says_once_what_is_the_same_and_fits_in_its_width():
    report = healthy(12) | {"notes": ["a note " * 30]}
    every(report, python="x" * 200)
    report["facts"][3]["variables"]["OMP_NUM_THREADS"] = "7"
    text = page.facts_of(report)
    rows = [measured.MEASURED[name](its, report) for name, its in report["measured"].items()]
    for line in "\n".join([text, *rows]).splitlines():
        assert len(line) <= page.WIDTH and line.isprintable()
    assert "host           ranks 0-11  " in text and text.count("MPICH") == 1
    assert "ranks 0-2, 4-11" in text and "OMP_NUM_THREADS = 7" in text


def test_a_path_names_no_user(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    for path, shown in ("/home/ada/env", "~/env"), ("/home/adam/env", "/home/adam/env"):
        assert facts.short(path) == shown


def test_sizes_and_times_read_well():
    assert [page.in_bytes(n) for n in (0, 999, 4096, 1 << 20, 1000 << 20, 3 << 40)] == [
        *("0 bytes", "999 bytes", "4 KiB", "1 MiB", "0.977 GiB", "3 TiB"),
    ]
    assert [measured.in_seconds(t) for t in (2e-7, 1.5e-3, 12)] == ["0.2 us", "1.5 ms", "12 s"]


def test_a_file_that_was_just_written_is_in_memory_and_what_is_no_file_is_not_known(tmp_path):
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    os.mkfifo(tmp_path / "fifo")
    assert measure.share_in_memory(tmp_path / "file") in (None, 1)
    for name in "fifo", "nothing":
        assert measure.share_in_memory(tmp_path / name) is None


QUICK = (Path(__file__).parent / "programs" / "examined.py").read_text()
LIMIT = 60


def test_a_config_is_measured_and_nothing_but_the_page_is_printed(python, digits):
    config, settings = ROOT / "configs" / "digits.toml", ["model.channels=4,8", "train.rows=32"]
    done = python("-c", QUICK, LIMIT, settings[0], config, "--data", digits, settings[1])
    assert (done.returncode, done.stderr) == (0, "")
    labels = [line[:22].rstrip() for line in done.stdout.splitlines()]
    for label in "rows of the file", "steps of training", "copies in memory", "sums over ranks":
        assert labels.count(label) == 1
    assert done.stdout.startswith("dpedf doctor: 1 rank on 1 host\n")
    assert ("Nothing to mend." in done.stdout) != ("To mend first:" in done.stdout)


# A library prints, as NCCL does.
TALKING = """
import os
from dpedf.tools.machine import measure
quiet = measure.copies
measure.copies = lambda *its: (os.write(1, b"NCCL INFO"), quiet(*its))[1]
"""


def test_json_is_one_object_with_the_same_facts(python, digits):
    done = python("-c", TALKING + QUICK, LIMIT, "--json", "--data", digits, NCCL_DEBUG="INFO\x1b")
    report = json.loads(done.stdout)
    assert done.returncode == 0 and done.stdout.count("\n") == 1
    assert report["measured"]["rows"]["rows"] == 1437 and "steps" not in report["measured"]
    assert report["facts"][0]["also_set"] == ["NCCL_DEBUG"] and "INFO" in done.stderr
    rates = (
        report["measured"]["copies"],
        report["measured"]["rows"],
        *report["measured"]["products"],
    )
    assert all(number > 0 for its in rates for number in its.values() if type(number) is float)
    assert page.facts_of(report)


# Python without what only Linux has, on which no file of /proc can be read.
POORER = """
import ctypes, os, pathlib
os.__dict__.pop("sched_getaffinity", None)
os.__dict__.pop("RWF_NOWAIT", None)
from dpedf.device import cgroups
cgroups.ROOT = pathlib.Path("/nowhere")
"""


def test_what_is_missing_is_said_in_the_page(python, tmp_path):
    missing = {"MPI4PY_LIBMPI": "/nowhere/libmpi.so", "OMP_NUM_THREADS": "2\x1b[2J"}
    done = python("-c", POORER + QUICK, LIMIT, "--data", tmp_path / "x.h5", **missing)
    assert (done.returncode, done.stderr) == (0, "")
    for words in (
        *("MPI library    none was found", "binding        this system binds no process"),
        *("none with one rank", f"{tmp_path}/x.h5: no such file", "unset MPI4PY_LIBMPI"),
    ):
        assert words in done.stdout.replace("\n" + 22 * " ", "")
    assert "OMP_NUM_THREADS = 2\\x1b[2J" in done.stdout
    assert all(line.isprintable() for line in done.stdout.splitlines())
    assert (
        "/nowhere/libmpi.so cannot be loaded"
        in done.stdout.split("To mend first:")[1].splitlines()[1]
    )


def test_under_another_launcher_all_is_said(python):
    done = python("-c", QUICK, LIMIT, PMI_SIZE="2", PMI_RANK="0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "PMI_SIZE = 2, but " in done.stdout and "copies in memory" in done.stdout


def test_wrong_words_are_a_users_error(refused):
    for words in ["--jason"], ["nix.toml"], [str(ROOT / "configs/digits.toml"), "train.slice=3"]:
        with refused(words[-1].partition("=")[0]):
            doctor.main(words)
    with refused("CONFIG"):
        doctor.main(["seed=3"])


@pytest.mark.parametrize("shell", ['"$@" | head -n 1', '"$@" --json >&-'])
def test_nobody_has_to_read_it(environment, shell):
    quick = [sys.executable, "-c", QUICK, str(LIMIT)]
    command = ["bash", "-o", "pipefail", "-c", shell, "bash", *quick]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


STANDS_STILL = "#include <unistd.h>\n__attribute__((constructor)) static void still() { %s; }"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """library(what): one that does this when it is loaded."""
    if compiler() is None:
        pytest.skip("a library takes a C++ compiler")

    def make(what):
        file = tmp_path_factory.mktemp("library") / "libcuda.so.1"
        command = [compiler(), "-x", "c", "-shared", "-fPIC", "-", "-o", file]
        subprocess.run(command, input=STANDS_STILL % what, text=True, check=True)
        return file

    return make


def test_an_mpi_that_does_not_start_leaves_what_is_known(python, library):
    """It holds Python's lock meanwhile, as MPI_Init does."""
    spoken = {"MPI4PY_LIBMPI": str(library("for (;;) pause()")), "PMI_SIZE": "1", "PMI_RANK": "0"}
    done = python("-c", QUICK, 1, **spoken)
    assert (done.returncode, done.stderr) == (1, "starting MPI did not end in 1 seconds\n")
    assert "MPI has not started" in done.stdout and "PMI_SIZE = 1" in done.stdout
    assert "mpirun" in done.stdout.splitlines()[-1]


def test_an_mpi_that_ends_the_process_is_named_by_each_and_described_by_one(python, library):
    spoken = {"MPI4PY_LIBMPI": str(library("_exit(3)")), "PMI_SIZE": "2", "PMI_RANK": "1"}
    done = python("-c", QUICK, LIMIT, **spoken)
    assert done.returncode == 3 and done.stdout == ""
    assert done.stderr.startswith("rank 1 (")
    assert done.stderr.endswith("): this process ended while starting MPI\n")


def test_a_driver_that_stands_still_is_named(python, library):
    folder = library("for (;;) pause()").parent
    done = python("-c", QUICK, 1, "--json", LD_LIBRARY_PATH=str(folder))
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"] == done.stderr.strip()
    assert done.stderr == "looking for a GPU did not end in 1 seconds\n"


RAISES = """
import os
from dpedf import models
from dpedf.edf import CompNode

class Raises(CompNode):
    def __init__(self, x):
        self.x, self.calls = x, 0
    def forward(self):
        self.value, self.calls = self.x.value, self.calls + 1
        rank = os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK"))
        if self.calls > 3 and rank == "1":
            raise TypeError("a fault of this test")
    def backward(self):
        self.x.addgrad(self.grad)

def raising(x, y, sizes, activation="relu"):
    Q, ell = models.mlp(x, y, sizes, activation)
    return Q, Raises(ell)
"""


def test_what_is_known_is_printed_where_a_model_raises_on_one_rank(digits, tmp_path):
    (tmp_path / "model.py").write_text(RAISES)
    settings = f"data.file={digits}", f"model.build={tmp_path}/model.py:raising"
    done = mpirun(2, "-m", "dpedf", "doctor", "configs/digits_mlp.toml", *settings, "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1 and "a fault of this test" in report["error"]
    assert report["ranks"] == 2 and report["measured"]["products"]
