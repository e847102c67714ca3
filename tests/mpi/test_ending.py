"""A job ends, whatever becomes of its words, wherever a rank stands still, and as it is told."""

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
from launcher import ENVIRONMENT, LIMIT, PROGRAMS, ROOT, hear_ctrl_c, start_watched

MODEL = PROGRAMS / "faulty.py"


@pytest.fixture
def job(digits, tmp_path):
    """job(n, where, what, *words) starts dpedf.train, which does what at a place on its last rank.

    streams: where each rank prints, in words of the shell.  ready(): has it come to that place?
    """
    started = []

    def start(n, where, what, *words, streams="", **options):
        launcher = ["mpirun", "-n", str(n)] if n > 1 else []
        train = [sys.executable, "-m", "dpedf.train", ROOT / "configs" / "digits_mlp.toml"]
        more = f"data.file={digits}", f"run.dir={tmp_path}/run", f"model.build={MODEL}:faulty"
        shell = ["sh", "-c", f'exec "$@" {streams}', "sh", *map(str, [*train, *more, *words])]
        reached = tmp_path / "reached"
        told = dict(WHERE=where, WHAT=what, WHO=str(n - 1), REACHED=str(reached))
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
        told["PYTHONUNBUFFERED"] = ""  # so that a print of the model's meets its stream later
        environment = options.pop("env", ENVIRONMENT) | told
        alone = {"start_new_session": True, "preexec_fn": hear_ctrl_c}
        options = pipes | {"env": environment} | alone | options
        started.append(subprocess.Popen([*launcher, *shell], **options))
        started[-1].ready = reached.exists
        return started[-1]

    yield start
    for each in started:
        each.kill()


def until_ready(job):
    began = time.monotonic()
    while not job.ready():
        assert job.poll() is None and time.monotonic() - began < LIMIT, job.communicate()
        time.sleep(0.01)


def ours(err):
    """The lines on stderr that are not the launcher's."""
    return [line for line in err.splitlines() if line.startswith(("rank", "no rank", "inter"))]


FULL, CLOSED = "> /dev/full 2>&1", ">&- 2>&-"


@pytest.mark.parametrize("n, streams", [(1, FULL), (1, CLOSED), (2, FULL), (4, CLOSED)])
def test_a_rank_that_fails_ends_the_job_where_nothing_can_be_printed(job, n, streams):
    ended = job(n, "forward", "1 / 0", streams=streams)
    ended.communicate(timeout=LIMIT)
    assert ended.returncode == 1


@pytest.mark.parametrize("n, streams", [(1, "2>&-"), (2, FULL)])
def test_a_rank_that_stands_still_ends_the_job_where_nothing_can_be_printed(job, n, streams):
    ended = job(n, "forward", "time.sleep(1e6)", "run.timeout=2", streams=streams)
    ended.communicate(timeout=LIMIT)
    assert ended.returncode == 1


def test_a_users_error_is_status_2_where_nothing_can_be_printed(job):
    for streams in FULL, CLOSED:
        ended = job(2, "forward", "", "train.batch_size=0", streams=streams)
        ended.communicate(timeout=LIMIT)
        assert ended.returncode == 2


def test_a_run_of_which_the_output_is_lost_comes_to_its_end(job, tmp_path):
    for streams, said in ((CLOSED, 0), ("> /dev/full", 2)):  # by each rank that prints
        ended = job(2, "forward", "print('lost')", "train.steps=30", "--overwrite", streams=streams)
        _, err = ended.communicate(timeout=LIMIT)
        assert ended.returncode == 0 and err.count("\n") == err.count("No space left") == said
        assert '"test"' in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_a_run_whose_output_nobody_reads_any_more_comes_to_its_end_in_silence(job):
    read, write = os.pipe()
    ended = job(1, "forward", "print('lost')", "train.steps=30", stdout=write)
    os.close(write)
    os.close(read)
    assert ended.communicate(timeout=LIMIT)[1] == "" and ended.returncode == 0


def test_a_users_own_print_that_fails_ends_the_job(job):
    ended = job(2, "forward", "raise BrokenPipeError")
    err = ended.communicate(timeout=LIMIT)[1]
    assert ended.returncode == 1 and "rank 1:\nTraceback" in err


STANDS = [
    (1, "import", "time.sleep(1e6)", "standing still before its first step"),
    (1, "forward", "while True: pass", "standing still since step 20"),
    (3, "import", "time.sleep(1e6)", "standing still before its first step"),
    (3, "build", "os.kill(os.getpid(), signal.SIGSTOP)", "not running"),
    (3, "forward", "while True: pass", "standing still since step 20"),
    (3, "forward", "sum(range(10**15))", "not running"),
]


@pytest.mark.parametrize("n, where, what, words", STANDS)
def test_a_rank_that_stands_still_is_named_and_ends_the_job(job, n, where, what, words):
    ended = job(n, where, what, "run.timeout=3")
    err = ended.communicate(timeout=LIMIT)[1]
    assert ended.returncode == 1 and len(ours(err)) == 1, err
    assert f"no rank was alive for 3 seconds: rank {n - 1} {words}" in err
    assert n == 1 or "ranks 0-1 waiting for others" in err


def test_a_rank_that_evaluates_slowly_and_says_so_ends_nothing(job):
    words = "run.timeout=2", "data.valid=1000", "train.steps=30", "train.eval_every=30"
    ended = job(2, "evaluation", "time.sleep(0.8)", *words, env=ENVIRONMENT | {"LABELS": "100"})
    began = time.monotonic()
    err = ended.communicate(timeout=LIMIT)[1]
    assert ended.returncode == 0 and time.monotonic() - began > 4, err  # 5 blocks of 10


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_run_starts_ends_it_with_75_and_touches_nothing(job, tmp_path, n, number):
    ended = job(n, "import", "time.sleep(1)")
    until_ready(ended)
    os.killpg(ended.pid, number)
    out, err = ended.communicate(timeout=LIMIT)
    assert ended.returncode == 75 and err.count("there is nothing to resume") == 1, out + err
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


@pytest.mark.parametrize("n", [1, 3])
def test_ctrl_c_stops_a_run_and_says_how_to_go_on(job, tmp_path, n):
    ended = job(n, "forward", "time.sleep(1)", "train.steps=1000000")
    until_ready(ended)
    os.killpg(ended.pid, signal.SIGINT)  # to all of them, as a terminal does
    out, err = ended.communicate(timeout=LIMIT)
    assert (ended.returncode, err) == (75, "")
    assert (tmp_path / "run" / "checkpoint.h5").exists()
    line = next(line for line in out.splitlines() if line.startswith("stopped at step"))
    launcher = ["mpirun", "-n", str(n), "python", "-m", "dpedf"] if n > 1 else ["dpedf"]
    words = shlex.split(line.partition("--resume: ")[2])
    assert words[: len(launcher)] == launcher and words[-1] == "--resume"
    words = ["-m", "dpedf", *words[len(launcher) :]]
    environment = ENVIRONMENT | dict(WHERE="", WHAT="", WHO="")
    again = [sys.executable, *words[:-1], "train.steps=30", words[-1]]
    done = subprocess.run(again, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "resumed from" in done.stdout


def test_ctrl_c_twice_ends_a_run_with_one_line(job):
    ended = job(1, "forward", "time.sleep(1e6)")
    until_ready(ended)
    for _ in range(2):
        ended.send_signal(signal.SIGINT)
        time.sleep(0.3)
    assert ended.communicate(timeout=LIMIT)[1] == "interrupted twice, which ends the job\n"
    assert ended.returncode == 1


def test_one_rank_that_is_interrupted_twice_ends_all_with_one_line(job):
    """Under MPICH's mpirun a second Ctrl-C reaches no rank: mpirun itself kills them."""
    interrupt = "os.kill(os.getpid(), signal.SIGINT); time.sleep(0.3)"
    ended = job(3, "forward", f"{interrupt}; {interrupt}; time.sleep(1e6)")
    err = ended.communicate(timeout=LIMIT)[1]
    assert ended.returncode == 1 and ours(err) == ["interrupted twice, which ends the job"]
    assert "Traceback" not in err


def test_a_rank_that_waits_for_another_in_mpi_is_interrupted_too(digits, tmp_path):
    """There no handler of Python's runs."""
    model = f"model.build={MODEL}:faulty"
    faults = dict(WHERE="forward", WHAT="time.sleep(1e6)", WHO="1", REACHED=f"{tmp_path}/there")
    settings = (
        ROOT / "configs" / "digits_mlp.toml",
        f"data.file={digits}",
        f"run.dir={tmp_path}/run",
    )
    job, (waits, _) = start_watched(2, *settings, model, env=ENVIRONMENT | faults)
    while not (tmp_path / "there").exists():
        time.sleep(0.01)
    time.sleep(0.5)  # until rank 0 waits for the step of rank 1
    for _ in range(2):
        os.kill(waits, signal.SIGINT)
        time.sleep(0.3)
    err = job.communicate(timeout=LIMIT)[1]
    assert job.returncode == 1 and ours(err) == ["interrupted twice, which ends the job"]


def test_a_program_that_never_comes_to_its_run_ends():
    """Such as one that a library holds while it is imported; here, for a second."""
    code = "from dpedf.parallel.ending import end_later; end_later(1); sum(range(10**15))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 1 and 'File "<string>", line 1' in done.stderr


PLAIN = """
import signal, threading
from dpedf.parallel import job

def main(ranks):
    plain = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    print(plain, [thread.name for thread in threading.enumerate()])

job.run(main)
"""


def test_a_program_of_ones_own_is_neither_watched_nor_deaf_unless_it_asks_for_it():
    done = subprocess.run(
        [sys.executable, "-c", PLAIN], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.stdout == "True ['MainThread']\n"


def test_a_run_in_a_thread_is_one_line():
    code = """
import threading
from dpedf import train
from dpedf.parallel import job
thread = threading.Thread(target=job.run, args=[train.main, ["configs/digits_mlp.toml"]])
thread.start()
thread.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    expected = "a run in a thread, expected the main thread, which alone hears signals"
    assert done.stderr == f"{expected}\n"


def test_sys_exit_in_a_model_is_status_1_and_one_line(job):
    for n in 1, 2:
        ended = job(n, "forward", "sys.exit(0)", "--overwrite")
        err = ended.communicate(timeout=LIMIT)[1]
        assert ended.returncode == 1 and err.count("SystemExit(0) in ") == 1
        assert "Traceback" not in err


def test_a_launchers_variable_that_is_no_number_is_one_line():
    for name in "PMI_SIZE", "OMPI_COMM_WORLD_RANK":
        command = [sys.executable, "-m", "dpedf.train", "--help"]
        environment = {k: v for k, v in ENVIRONMENT.items() if not k.startswith("PMI")}
        options = {"cwd": ROOT, "capture_output": True, "text": True}
        done = subprocess.run(command, env=environment | {name: "abc"}, **options)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f'{name} = "abc", expected') and done.stderr.count("\n") == 1


def test_a_tool_whose_output_nobody_reads_ends_in_silence(digits):
    tool = f'"{sys.executable}" -m dpedf source configs/digits_mlp.toml'
    shell = f'{tool} "data.file={digits}" | true'
    options = {"cwd": ROOT, "env": ENVIRONMENT, "capture_output": True, "text": True}
    assert subprocess.run(["sh", "-c", shell], **options).stderr == ""
