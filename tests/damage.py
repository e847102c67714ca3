"""Damage to files, and what became of runs that met it."""

import json
import re
import subprocess
import sys
from collections import namedtuple

from trainings import PROGRAM as TRAININGS

from dpedf.run.checkpoint import HEAD, proof

LIMIT = 900  # seconds for runs in one process: only what hangs takes so long
Run = namedtuple("Run", "status said")


def damaged(content, random):
    """A copy of some bytes, of which some were changed, cut off, lost or overwritten by others."""
    content, n = bytearray(content), len(content)
    kind, at, size = random.choice(["flip", "flip", "cut", "lose", "mix"]), random.randrange(n), 512
    if kind == "flip":
        for _ in range(random.choice([1, 1, 2, 8])):
            content[random.randrange(n)] ^= 1 << random.randrange(8)
    elif kind == "cut":
        del content[at:]
    elif kind == "lose":
        content[at : at + size] = bytes(min(size, n - at))
    else:
        other = random.randrange(n)
        content[at : at + size] = content[other : other + size]
    return bytes(content)


def prove(checkpoint):
    """Give a checkpoint that was changed the proof that it is whole."""
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(proof(content) + content[HEAD:])


def ended(commands, environment, cwd):
    """The Run of dpedf.train with each of these command lines, on one rank.

    They run one after another in one process, or in a few, where an error ends the process.
    """
    runs, file = [], cwd / "commands.json"
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    while len(runs) < len(commands):
        file.write_text(json.dumps([[*map(str, words)] for words in commands[len(runs) :]]))
        command = [sys.executable, TRAININGS, file]
        job = subprocess.run(command, cwd=cwd, env=environment, timeout=LIMIT, **streams)
        for said in re.split(r"^run \d+\n", job.stdout, flags=re.MULTILINE)[1:]:
            last = re.search(r"^status (\d+)\n\Z", said, flags=re.MULTILINE)
            status = int(last[1]) if last else job.returncode
            runs.append(Run(status, said[: last.start()] if last else said))
    return runs


def expect_one_line(run):
    """Of a run that was refused, or that could not go on: no traceback, and one line at its end."""
    assert run.status in (1, 2) and "Traceback" not in run.said, run
    assert run.said.replace("\n", "").isprintable(), run
    if run.status == 2:
        assert run.said.count("\n") == 1, run
