"""dpedf doctor on several ranks, also on a simulated GPU that they share."""

import json
import os

import pytest
from launcher import OPEN_MPI, ROOT, SEARCH, mpirun, start

from dpedf.tools.machine import page

EXAMINED = ROOT / "tests" / "programs" / "examined.py"
DIGITS = ROOT / "configs" / "digits.toml"
LIMIT = 60  # seconds, which only what hangs takes


def test_three_ranks_make_one_report_with_the_bandwidths_of_nccl_tests(digits):
    done = mpirun(3, EXAMINED, LIMIT, DIGITS, "--data", digits, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert [its["rank"] for its in report["facts"]] == [0, 1, 2]
    assert {"rows", "steps"} <= {*report["measured"]}
    for row in report["measured"]["sums"]:
        for way in "run", "library":
            algbw = row["bytes"] / row[way]["seconds"]
            assert row[way]["bytes_per_second"] == pytest.approx(algbw)
            assert row[way]["busbw"] == pytest.approx(algbw * 4 / 3)
    crowded = ["more ranks than cores" in its["what"] for its in report["verdict"]]
    assert any(crowded) == (len(os.sched_getaffinity(0)) < 3)
    page.facts_of(report).index("host           ranks 0-2")


@pytest.mark.parametrize("gpus", [1, 2])
def test_ranks_on_gpus_add_by_nccl_if_each_has_its_own(simulated, gpus):
    environment = simulated | SEARCH | OPEN_MPI | {"FAKE_CUPY_DEVICES": str(gpus)}
    done = mpirun(2, EXAMINED, LIMIT, env=environment)
    assert done.returncode == 0, done.stderr
    assert f"by {['MPI', 'NCCL'][gpus - 1]} itself" in done.stdout
    assert ("ranks 0-1 share the GPU" in done.stdout) == (gpus == 1)
    assert all(len(line) <= 100 and line.isprintable() for line in done.stdout.splitlines())


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
