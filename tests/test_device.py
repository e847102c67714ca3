"""What a rank computes on: which GPU, and how many threads of BLAS."""

from types import SimpleNamespace

import pytest
from threaded import me, on_ranks

from dpedf.device import choose, threads


@pytest.mark.parametrize("rank, host_rank", [(0, 0), (5, 1), (9, 3)])
def test_a_rank_takes_the_gpu_of_its_number_on_its_host(monkeypatch, rank, host_rank):
    """Rank 5 may be the second of its host, and GPU 5 another's or none."""
    monkeypatch.setattr(choose, "acquire", lambda number, *more: number)
    ranks = SimpleNamespace(rank=rank, host_rank=host_rank, say=print)
    run = SimpleNamespace(device="gpu", capture="auto")
    settings = SimpleNamespace(run=run, train=SimpleNamespace(precision="float32"))
    assert choose.choose(settings, ranks) == host_rank


BOUND = {  # to cores: the threads of each of 4 ranks
    "all to the same": ([range(8)] * 4, [2, 2, 2, 2]),
    "by pairs": ([range(0, 6), range(0, 6), range(6, 10), range(6, 10)], [3, 3, 2, 2]),
    "each to its own": ([range(k, k + 5) for k in (0, 5, 10, 15)], [5, 5, 5, 5]),
    "to less than there are ranks": ([range(3)] * 4, [1, 1, 1, 1]),
    "on two hosts": ([range(8)] * 4, [4, 4, 4, 4]),
}


def of_ranks(monkeypatch, where, **words):
    """blas_threads on each of 4 ranks, bound as BOUND says."""
    cores, _ = BOUND[where]
    host = SimpleNamespace(gethostname=lambda: me.rank // 2 if "hosts" in where else 0)
    monkeypatch.setattr(threads, "socket", host)
    monkeypatch.setattr(threads, "cores", lambda: list(cores[me.rank]))
    run = SimpleNamespace(threads=words.get("threads", 0))
    settings = SimpleNamespace(run=run, train=SimpleNamespace(slices=words.get("slices", 0)))
    return on_ranks(4, lambda ranks: threads.blas_threads(settings, ranks))


@pytest.mark.parametrize("where", BOUND)
def test_ranks_share_the_cores_that_they_are_bound_to(monkeypatch, where):
    assert of_ranks(monkeypatch, where) == BOUND[where][1]


def test_slices_take_one_thread_and_run_threads_as_many_as_it_says(monkeypatch):
    assert of_ranks(monkeypatch, "all to the same", slices=8) == [1] * 4
    assert of_ranks(monkeypatch, "all to the same", slices=8, threads=3) == [3] * 4
