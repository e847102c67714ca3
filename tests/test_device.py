"""What a rank computes on: which GPU, and how many threads of BLAS."""

from types import SimpleNamespace

import pytest
from threaded import me, on_ranks

from dpedf.data import memory
from dpedf.device import cgroups, choose, threads
from dpedf.parallel.ranks import Ranks


@pytest.mark.parametrize("rank, host_rank", [(0, 0), (5, 1), (9, 3)])
def test_a_rank_takes_the_gpu_of_its_number_on_its_host(monkeypatch, rank, host_rank):
    """Rank 5 may be the second of its host, and GPU 5 another's or none."""
    monkeypatch.setattr(choose, "acquire", lambda number, *more: number)
    ranks = SimpleNamespace(rank=rank, local_rank=host_rank, say=print)
    run = SimpleNamespace(device="gpu", capture="auto")
    settings = SimpleNamespace(run=run, train=SimpleNamespace(precision="float32"))
    assert choose.choose(settings, ranks) == host_rank


BOUND = {  # to cores: the share of each of 4 ranks
    "all to the same": ([range(8)] * 4, [2, 2, 2, 2]),
    "by pairs": ([range(0, 6), range(0, 6), range(6, 10), range(6, 10)], [3, 3, 2, 2]),
    "each to its own": ([range(k, k + 5) for k in (0, 5, 10, 15)], [5, 5, 5, 5]),
    "to less than there are ranks": ([range(3)] * 4, [1, 1, 1, 1]),
    "on two hosts": ([range(8)] * 4, [4, 4, 4, 4]),
}
VARIABLES = {*threads.OTHERS, "OPENBLAS_NUM_THREADS"}


def of_ranks(monkeypatch, where, slices=0, set_to=0, **variables):
    """blas_threads on each of 4 ranks, bound as BOUND says, with environment variables."""
    cores, _ = BOUND[where]
    host = SimpleNamespace(gethostname=lambda: me.rank // 2 if "hosts" in where else 0)
    monkeypatch.setattr(threads, "socket", host)
    monkeypatch.setattr(threads, "cores", lambda: list(cores[me.rank]))
    environment(monkeypatch, **variables)
    run, train = SimpleNamespace(threads=set_to), SimpleNamespace(slices=slices)
    settings = SimpleNamespace(run=run, train=train)
    return on_ranks(4, lambda ranks: threads.blas_threads(settings, ranks))


def environment(monkeypatch, **variables):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("where", BOUND)
def test_ranks_share_the_cores_that_they_are_bound_to(monkeypatch, where):
    found = of_ranks(monkeypatch, where, OMP_NUM_THREADS="1000")
    assert [n for n, _ in found] == BOUND[where][1]
    cores = f"{found[0][0]} core{'s' * (found[0][0] > 1)}"
    assert found[0][1] == f"OMP_NUM_THREADS = 1000, but its share is {cores}"


def test_one_thread_is_the_default_and_run_threads_wins(monkeypatch):
    assert of_ranks(monkeypatch, "each to its own") == [(1, "the default")] * 4
    asked = {"OMP_NUM_THREADS": "2"}
    assert of_ranks(monkeypatch, "each to its own", **asked) == [(2, "OMP_NUM_THREADS = 2")] * 4
    for slices in 0, 8:
        won = of_ranks(monkeypatch, "all to the same", slices, 3, **asked)
        assert won == [(3, "run.threads")] * 4


def test_with_slices_the_environment_changes_no_bits_and_the_reason_is_said(monkeypatch):
    (n, why), *_ = of_ranks(monkeypatch, "each to its own", slices=8, OMP_NUM_THREADS="4")
    assert n == 1 and "not OMP_NUM_THREADS = 4" in why and "run.threads" in why
    assert of_ranks(monkeypatch, "each to its own", slices=8, OMP_NUM_THREADS="1")[0][0] == 1


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"OMP_NUM_THREADS": "3"}, ("OMP_NUM_THREADS", 3)),
        ({"OMP_NUM_THREADS": "2,1"}, ("OMP_NUM_THREADS", 2)),
        ({"OMP_NUM_THREADS": " 2 "}, ("OMP_NUM_THREADS", 2)),
        *(({"OMP_NUM_THREADS": word}, (None, 0)) for word in ("", "0", "abc", "-1", ",2")),
        ({"OMP_NUM_THREADS": "9" * 5000}, ("OMP_NUM_THREADS", 999_999_999)),
        ({"MKL_NUM_THREADS": "5"}, ("MKL_NUM_THREADS", 5)),
        ({"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "3"}, ("OPENBLAS_NUM_THREADS", 2)),
        ({"OPENBLAS_NUM_THREADS": "0", "OMP_NUM_THREADS": "3"}, ("OMP_NUM_THREADS", 3)),
        ({"MKL_NUM_THREADS": "2", "OMP_NUM_THREADS": "3"}, ("OMP_NUM_THREADS", 3)),
    ],
)
def test_the_environment_asks_as_openblas_reads_it(monkeypatch, variables, found):
    """MKL's variable is heeded where OpenBLAS is at hand, but after those that OpenBLAS reads."""
    openblas = {"user_api": "blas", "internal_api": "openblas"}
    monkeypatch.setattr(threads, "threadpool_info", lambda: [openblas])
    environment(monkeypatch, **variables)
    assert threads.from_environment() == found


CGROUPS = {  # /proc/self/cgroup, the files below /sys/fs/cgroup, and the share of one rank
    "version 2, in a container": ("0::/", {"cpu.max": "200000 100000"}, 2),
    "no limit": ("0::/", {"cpu.max": "max 100000"}, 8),
    "half a core": ("0::/", {"cpu.max": "50000 100000"}, 1),
    "two and a half": ("0::/", {"cpu.max": "250000 100000"}, 2),
    "a limit further out": (
        "0::/job.slice/one.scope",
        {"job.slice/cpu.max": "300000 100000", "job.slice/one.scope/cpu.max": "max 100000"},
        3,
    ),
    "a limit further in": (
        "0::/job/step",
        {"job/cpu.max": "500000 100000", "job/step/cpu.max": "100000 50000"},
        2,
    ),
    "a neighbour's": ("0::/job", {"job/cpu.max": "max 100000", "other/cpu.max": "1 1"}, 8),
    "version 1, in a container that reads its path on the host": (
        "12:memory:/docker/3f\n4:cpu,cpuacct:/docker/3f\n0::/",
        {"cpu,cpuacct/cpu.cfs_quota_us": "400000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
        4,
    ),
    "version 1, no limit": (
        "4:cpu:/",
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
        8,
    ),
    "version 2 beside version 1": (
        "5:memory:/a\n0::/a",
        {"unified/a/cpu.max": "100000 100000", "memory/a/memory.limit_in_bytes": "1"},
        1,
    ),
    "out of sight": ("0::/../outside", {"cpu.max": "600000 100000"}, 6),
    "none at all": ("", {}, 8),
    "a period of 0": ("0::/", {"cpu.max": "200000 0"}, 8),
    "more digits than a float has": ("0::/", {"cpu.max": f"{'9' * 400} 100000"}, 8),
    "lines that are none": ("\nhello\n1:\n0::/a:b", {"a:b/cpu.max": "200000 100000"}, 2),
}


def write_cgroups(root, of_process, files):
    files = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in ({"proc/self/cgroup": of_process} | files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n" if text else "")


@pytest.mark.parametrize("where", CGROUPS)
def test_a_quota_of_a_cgroup_counts_as_cores(monkeypatch, tmp_path, where):
    of_process, files, share = CGROUPS[where]
    write_cgroups(tmp_path, of_process, files)
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    monkeypatch.setattr(threads, "cores", lambda: [*range(8)])
    assert threads.share_of_cores(Ranks()) == share


def test_ranks_of_a_host_share_a_quota_though_each_has_its_cores(monkeypatch, tmp_path):
    write_cgroups(tmp_path, "0::/", {"cpu.max": "800000 100000"})
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    found = of_ranks(monkeypatch, "each to its own", OMP_NUM_THREADS="5")
    assert [n for n, _ in found] == [2] * 4


def test_a_limit_of_memory_further_out_counts(monkeypatch, tmp_path):
    files = {"job/memory.max": "4096", "job/step/memory.max": "max"}
    write_cgroups(tmp_path, "0::/job/step", files)
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    assert memory.available() == 4096
