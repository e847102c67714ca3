"""The watchdog, on ranks and a clock that are made up."""

from types import SimpleNamespace

import pytest

from dpedf.errors import grouped
from dpedf.parallel import watchdog
from dpedf.parallel.watchdog import Watchdog

TIMEOUT = 20


class EndedError(Exception):
    """What ends a job here: by which rank, and why."""


def ended(folder, monkeypatch, *ranks, seconds=200, pause=None):
    """(after how many seconds, by which rank, why) a job of these ranks ends; None if it does not.

    A rank is (its place, whether it waits there, when it is last alive, until when it runs).
    pause: (from, to), when none of them runs, as after Ctrl-Z.
    """

    def end(rank, status, why):
        raise EndedError(rank.rank, why)

    monkeypatch.setattr(watchdog, "end", end)
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: 0.0)
    common = dict(size=len(ranks), hosts=1, timeout=TIMEOUT, words=folder, step=7)
    dogs = [
        Watchdog(SimpleNamespace(rank=rank, last_alive=0.0, **common)) for rank in range(len(ranks))
    ]
    for tenth in range(10 * seconds):
        now = tenth / 10
        for dog, (place, waits, alive, runs) in zip(dogs, ranks, strict=True):
            if now > runs or (pause and pause[0] < now < pause[1]):
                continue
            monkeypatch.setattr(watchdog, "place", lambda here=(place, waits): here)
            dog.ranks.last_alive = min(now, alive)
            try:
                dog.look(now)
            except EndedError as error:
                return now, *error.args
    return None


WAITS = "ranks.py:66 add", True, 5, 1000
STANDS = "model.py:9 forward", False, 5, 1000
STOPPED = "model.py:9 forward", False, 5, 5
WORKS = "evaluate.py:50 evaluate", False, 1000, 1000


@pytest.mark.parametrize("which", [0, 1, 2])
def test_the_rank_that_stands_still_is_named_and_the_step_of_each(tmp_path, monkeypatch, which):
    ranks = [STANDS if rank == which else WAITS for rank in range(3)]
    after, speaker, why = ended(tmp_path, monkeypatch, *ranks)
    assert 25 <= after < 26 and speaker == (which == 0)
    others = grouped("rank", {0, 1, 2} - {which})
    expected = f"rank {which} standing still since step 7 in model.py:9 forward; "
    assert why.endswith(f"{expected}{others} waiting for others since step 7")


def test_a_rank_that_is_stopped_is_named_by_another(tmp_path, monkeypatch):
    after, speaker, why = ended(tmp_path, monkeypatch, STOPPED, WAITS, WAITS)
    assert 25 <= after < 26 and speaker == 1 and "rank 0 not running" in why


def test_ranks_that_all_wait_are_all_named(tmp_path, monkeypatch):
    after, speaker, why = ended(tmp_path, monkeypatch, WAITS, WAITS)
    assert 25 <= after < 26 and speaker == 0
    assert why.endswith("ranks 0-1 waiting for others since step 7 in ranks.py:66 add")


@pytest.mark.parametrize("ranks", [(WAITS, WORKS), (WORKS, WAITS, WAITS), (STANDS, WORKS)], ids=len)
def test_a_job_of_which_one_rank_is_alive_goes_on(tmp_path, monkeypatch, ranks):
    assert ended(tmp_path, monkeypatch, *ranks) is None


def test_a_rank_alone_is_watched_too(tmp_path, monkeypatch):
    after, speaker, why = ended(None, monkeypatch, STANDS)
    assert 25 <= after < 26 and "rank 0 standing still" in why


@pytest.mark.parametrize("there", [False, True], ids=["no folder", "a full disk"])
def test_without_words_the_rank_that_stands_still_speaks_first(tmp_path, monkeypatch, there):
    folder = tmp_path / "no" if there else None
    after, speaker, why = ended(folder, monkeypatch, WAITS, STANDS, WAITS)
    assert 25 <= after < 26 and speaker == 1 and "rank 1 standing still" in why
    after, _, why = ended(folder, monkeypatch, WAITS, STOPPED, WAITS)
    assert 35 <= after < 36 and "without a word" in why


def test_ranks_whose_launcher_has_died_end(tmp_path, monkeypatch):
    """Which MPI would not tell them.  A process without one may outlive its shell."""
    for ranks in [WORKS], [WORKS, WORKS]:
        monkeypatch.setenv("PMI_SIZE", str(len(ranks)))
        monkeypatch.setattr(watchdog.os, "getppid", iter([7] * len(ranks) + [1]).__next__)
        found = ended(tmp_path, monkeypatch, *ranks)
        assert found[2] == "rank 0: the launcher of this job has ended"
    monkeypatch.delenv("PMI_SIZE")
    monkeypatch.setattr(watchdog.os, "getppid", lambda: 1)
    assert ended(tmp_path, monkeypatch, WORKS, seconds=5) is None


def test_what_was_paused_is_watched_anew(tmp_path, monkeypatch):
    after, _, why = ended(tmp_path, monkeypatch, WAITS, STANDS, pause=(10, 100))
    assert 120 <= after < 121 and "rank 1 standing still" in why


def test_ranks_of_several_hosts_leave_their_words_in_the_directory_of_the_run(tmp_path):
    here, run = tmp_path / "here", tmp_path / "run"
    here.mkdir()
    (run / ".ranks").mkdir(parents=True)
    (run / ".ranks" / "9").touch()  # of a job that was killed
    ranks = SimpleNamespace(rank=0, host_rank=0, hosts=1, words=str(here))
    watchdog.leave_words_in(run, ranks)
    assert ranks.words == str(here) and here.exists()
    ranks.hosts = 2
    watchdog.leave_words_in(run, ranks)
    assert ranks.words == str(run / ".ranks") and not here.exists()
    assert list((run / ".ranks").iterdir()) == []
