"""Ranks on two hosts, which are network namespaces of this machine with a cable between them."""

import os
import shutil
import signal
import subprocess
import time
from types import SimpleNamespace

import pytest
from launcher import ENVIRONMENT, LIMIT, PROGRAMS, ROOT, WATCHED, command, mpirun, phi_sha256

HERE, THERE = "10.77.0.1", "10.77.0.2"
# What Hydra runs in place of ssh: SCRIPT [-flags] host command.  Its own host it reaches itself.
SHELL = """#!/bin/bash
while [[ $1 == -* ]]; do shift; done
exec ip netns exec {there} unshare --uts bash -c "hostname there; ${{*:2}}"
"""


def ip(*arguments):
    command = ["ip", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wait_until(condition, seconds=30):
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        time.sleep(0.01)


def wait_for_end(processes):
    wait_until(lambda: not any(os.path.exists(f"/proc/{process}") for process in processes))


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    """Two hosts: start and run jobs on them, and cut the cable."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    version = subprocess.run(["mpirun", "--version"], capture_output=True, env=ENVIRONMENT)
    if b"HYDRA" not in version.stdout:
        pytest.skip("hosts are started as MPICH's mpirun starts them")
    names = here, there = [f"dpedf-{os.getpid()}-{host}" for host in ("here", "there")]
    shell = tmp_path_factory.mktemp("hosts") / "shell"
    shell.write_text(SHELL.format(there=there))
    shell.chmod(0o755)
    # Otherwise MPICH would find the memory that the two hosts have in common.
    environment = ENVIRONMENT | {"UCX_TLS": "tcp,self", "UCX_NET_DEVICES": "cable"}

    def job(ranks, *arguments):
        """The command of a job of so many ranks (here, there)."""
        where = f"{HERE}:{ranks[0]},{THERE}:{ranks[1]}"
        launcher = ["-launcher", "ssh", "-launcher-exec", shell, "-hosts", where]
        mpirun, *rest = command(sum(ranks), *arguments)
        return ["ip", "netns", "exec", here, mpirun, *launcher, *rest]

    def start(ranks, *arguments):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
        return subprocess.Popen(job(ranks, *arguments), env=environment, **pipes)

    def cable(state):
        ip("-n", there, "link", "set", "cable", state)

    try:
        for name in names:
            try:
                ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        peer = "peer", "name", "cable", "netns", there
        ip("link", "add", "cable", "netns", here, "type", "veth", *peer)
        for name, address in zip(names, (HERE, THERE), strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            for device in "lo", "cable":
                ip("-n", name, "link", "set", device, "up")
        for name in names:  # a job that starts earlier finds no way to the other host
            wait_until(lambda name=name: "state UP" in ip("-n", name, "link", "show", "cable"))
        yield SimpleNamespace(start=start, cable=cable)
    finally:
        for name in names:
            if name in ip("netns", "list").split():
                for process in ip("netns", "pids", name).split():
                    os.kill(int(process), signal.SIGKILL)
                ip("netns", "delete", name)


def ended(job, seconds=LIMIT):
    """(stdout, stderr) of a job that has to end in so many seconds."""
    try:
        return job.communicate(timeout=seconds)
    finally:
        job.kill()


def settings(digits, directory, *more):
    digits = ROOT / "configs" / "digits_mlp.toml", f"data.file={digits}", f"run.dir={directory}"
    return ["-m", "dpedf.train", *digits, "train.epochs=3", *more]


@pytest.fixture(scope="module")
def expected(digits, tmp_path_factory):
    """The phi_sha256 of one rank."""
    done = mpirun(1, *settings(digits, tmp_path_factory.mktemp("one") / "run"))
    return phi_sha256(done.stdout)


@pytest.mark.parametrize("ranks", [(2, 2), (3, 1)])
def test_two_hosts_train_to_the_bits_of_one_rank(hosts, digits, tmp_path, expected, ranks):
    job = hosts.start(ranks, *settings(digits, tmp_path / "run", "data.cache=memory"))
    out, err = ended(job)
    assert job.returncode == 0, err
    assert "on 4 ranks, 2 hosts, " in out.splitlines()[0]
    assert phi_sha256(out) == expected


def start_watched(hosts, digits, directory, *more):
    """A job of 1 + 1 ranks that trains without end, and the process of each rank."""
    arguments = settings(digits, directory, *WATCHED, *more)[2:]
    job = hosts.start((1, 1), PROGRAMS / "watched.py", *arguments)
    for line in job.stdout:
        if line.startswith("training"):
            return job, [int(word) for word in line.split()[1:]]
    raise AssertionError(job.communicate())


def test_a_rank_that_is_killed_on_another_host_ends_the_job(hosts, digits, tmp_path):
    job, ranks = start_watched(hosts, digits, tmp_path)
    os.kill(ranks[-1], signal.SIGKILL)
    ended(job, 30)
    wait_for_end(ranks)
    assert job.returncode not in (0, 2, 75)


def test_a_cable_that_stays_cut_ends_the_job_after_the_timeout(hosts, digits, tmp_path):
    job, ranks = start_watched(hosts, digits, tmp_path, "run.timeout=3")
    hosts.cable("down")
    try:
        _, err = ended(job, 3 + 60)
        wait_for_end(ranks)
    finally:
        hosts.cable("up")
    assert job.returncode not in (0, 2, 75) and "3 seconds" in err


def test_a_cable_that_is_cut_for_a_while_changes_no_bit(hosts, digits, tmp_path, expected):
    job = hosts.start((1, 1), *settings(digits, tmp_path / "run", "run.log_every=1"))
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") > 10):
        assert job.poll() is None, job.communicate()
        time.sleep(0.001)
    hosts.cable("down")
    time.sleep(1)
    step = metrics.read_text().count("\n")
    time.sleep(1)
    assert metrics.read_text().count("\n") == step, "the cable is not in use"
    hosts.cable("up")
    out, err = ended(job)
    assert job.returncode == 0, err
    assert phi_sha256(out) == expected
