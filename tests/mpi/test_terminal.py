"""What a user at a terminal sees of a job, whose ranks have pipes of the launcher."""

import re
import subprocess
from functools import partial

import pytest
import terminals
from launcher import ENVIRONMENT, ROOT, command

COLUMNS = 70
CONFIG = ROOT / "configs" / "digits_mlp.toml"
at_a_terminal = partial(terminals.at_a_terminal, columns=COLUMNS, cwd=ROOT, env=ENVIRONMENT)


def screen(shown):
    """The lines that stay, where a carriage return writes over what stands there."""
    lines = []
    for line in shown.split("\n"):
        there = ""
        for part in line.split("\r"):
            there = part + there[len(part) :]
        lines.append(there.rstrip())
    return lines


@pytest.fixture
def job(digits, tmp_path):
    few = "train.epochs=0", "train.steps=40", "train.eval_every=5", "--overwrite"
    words = "-m", "dpedf.train", CONFIG, f"data.file={digits}", f"run.dir={tmp_path}", *few
    return command(2, *words)


def test_under_mpirun_too_a_terminal_shows_a_bar_and_whole_lines_above_it(job):
    shown, _ = at_a_terminal(job)
    lines = screen(shown)
    bars = [line for line in lines if "%|" in line]
    assert len(bars) == 1 and "| 40/40 [" in bars[0] and ", loss " in bars[0]
    assert all(len(part) < COLUMNS for part in re.findall(r"[^\r\n]*%\|[^\r\n]*", shown))
    reports = [line for line in lines if line.startswith("epoch")]
    whole = r"epoch \d, step [\d,]+: loss [\d.]+, valid loss [\d.]+, [\d.]+ %, [\d,]+ rows/s"
    assert max(map(len, reports)) < 80 and len(reports) == 8
    assert all(re.fullmatch(whole, line) for line in reports)
    # the launcher may pass on the last of the bar after the last line
    assert any(re.fullmatch("phi_sha256 [0-9a-f]{64}", line) for line in lines[-4:]), lines


def test_the_bar_keeps_to_the_terminal_where_stdout_is_piped(job):
    shown, out = at_a_terminal(job, stdout=subprocess.PIPE)
    assert "| 40/40 [" in shown and "valid loss" not in shown
    assert out.count("valid loss") == 9 and "\r" not in out and "%|" not in out


def test_no_bar_is_shown_where_a_rank_prints_elsewhere_than_its_launcher(job, tmp_path):
    """A terminal of mpirun is not one of a rank whose stderr is another pipe."""
    launcher, train = job[: job.index("2") + 1], job[job.index("2") + 1 :]
    elsewhere = f'"$@" 2>&1 >/dev/null | cat >{tmp_path}/stderr'
    shown, _ = at_a_terminal([*launcher, "sh", "-c", elsewhere, "sh", *train])
    assert "%|" not in shown and "%|" not in (tmp_path / "stderr").read_text()


LATE = """
import os, time

def late(x, y):
    if os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK")) == "0":
        time.sleep(0.2)
    return 1 / 0
"""


def test_a_fault_that_all_ranks_meet_is_said_once_at_about_the_same_time(job, tmp_path):
    """Its traceback begins in the user's own file."""
    (tmp_path / "mine.py").write_text(LATE)
    build = f"model={{build='{tmp_path}/mine.py:late'}}"
    done = subprocess.run([*job, build], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("Traceback") == 1
    assert re.search(r'Traceback.*\n  File ".*mine.py", line \d+, in late\n', done.stderr)
    assert done.stderr.count("ZeroDivisionError") == 1 and "job.py" not in done.stderr
