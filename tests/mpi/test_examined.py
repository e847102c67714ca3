"""dpedf doctor on several ranks, also on a simulated GPU that they share."""

import json
import os

import pytest
from launcher import OPEN_MPI, ROOT, SEARCH, mpirun, start

EXAMINED = ROOT / "tests" / "programs" / "examined.py"
DIGITS = ROOT / "configs" / "digits.toml"
LIMIT = 60  # seconds, which only what hangs takes


def test_three_ranks_are_examined_and_rank_0_prints_one_page(digits):
    done = mpirun(3, EXAMINED, LIMIT, DIGITS, "--data", digits)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("dpedf doctor: 3 ranks on 1 host") == 1
    assert all(len(line) <= 100 and line.isprintable() for line in done.stdout.splitlines())
    for words in "host           ranks 0-2", "in a tree, as a run with slices", "by MPI itself":
        assert words in done.stdout
    few = len(os.sched_getaffinity(0)) < 3
    assert ("more ranks than cores: 3 ranks on" in done.stdout) == few


def test_the_bandwidth_of_sums_is_that_of_nccl_tests_also_for_ranks_that_share_a_gpu(simulated):
    environment = simulated | SEARCH | OPEN_MPI | {"NCCL_DEBUG": "INFO"}
    done = mpirun(3, EXAMINED, LIMIT, "--json", env=environment | {"FAKE_CUPY_DEVICES": "2"})
    report = json.loads(done.stdout)
    assert done.returncode == 0 and len(report["facts"]) == report["ranks"] == 3
    assert [its["bytes"] for its in report["measured"]["sums"]] == [4, 1000, 1 << 20]
    for row in report["measured"]["sums"]:
        algbw = row["bytes"] / row["library"]["seconds"]
        assert row["library"]["bytes_per_second"] == pytest.approx(algbw)
        assert row["library"]["busbw"] == pytest.approx(algbw * 4 / 3)
    assert any("share the GPU" in its["what"] for its in report["verdict"])


def test_sums_are_also_those_of_nccl(simulated):
    environment = simulated | SEARCH | OPEN_MPI | {"FAKE_CUPY_DEVICES": "2"}
    done = mpirun(2, EXAMINED, LIMIT, env=environment)
    assert done.returncode == 0 and "by NCCL itself" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["--json"]])
@pytest.mark.parametrize("stopped", [0, 2])
def test_a_rank_that_was_stopped_is_named(words, stopped):
    job = start(3, ROOT / "tests" / "programs" / "stopped.py", stopped, 5, *words)
    out, err = job.communicate(timeout=LIMIT)
    assert job.returncode != 0
    assert f"rank {stopped} (" in err and "a signal has stopped this rank" in err, err
    if words:
        assert "did not end in" in json.loads(out.splitlines()[0])["error"]
    else:
        assert out.startswith("dpedf doctor: 3 ranks")
