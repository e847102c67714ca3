"""Runs of dpedf.train that tests read: all of them in one job for each number of ranks."""

import json
from collections import namedtuple
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "programs" / "trainings.py"
Ended = namedtuple("Ended", "output directory phi_sha256")


class Trainings:
    """trainings(name, n) is how a run of n ranks ended.

    add(ranks, name, config, *words) before the first call says what is to be run.  A job of n ranks
    starts with the first call that asks for one, and runs all that were added for n, in order.
    launch(n, *arguments) runs Python on n ranks to its end.  A run has a directory of its own; one
    named "a: more" has that of a.
    """

    def __init__(self, folder, launch):
        self.folder, self.launch, self.runs = folder, launch, []
        self.ended, self.jobs = {}, {}  # by the number of ranks

    def add(self, ranks, name, config, *words):
        self.runs.append((ranks, name, [str(config), *map(str, words)]))

    def __call__(self, name, n=1):
        if n not in self.ended:
            self.ended[n] = self.train(n)
        if name not in self.ended[n]:
            said = self.jobs[n].stdout + self.jobs[n].stderr
            pytest.fail(f"{name} on {n} ranks did not come to its end:\n{said}")
        return self.ended[n][name]

    def train(self, n):
        """{name: how it ended}, of all runs for n ranks that came to their end."""
        runs = [(name, words) for ranks, name, words in self.runs if n in ranks]
        folders = {name: self.folder / str(n) / name.split(": ")[0] for name, _ in runs}
        lines = [[*words, f"run.dir={folders[name]}"] for name, words in runs]
        path = self.folder / f"{n}.json"
        path.write_text(json.dumps(lines))
        done = self.jobs[n] = self.launch(n, PROGRAM, path)
        ended = {}
        for k, (name, _) in enumerate(runs):
            output = done.stdout.partition(f"run {k}\n")[2].partition(f"\nrun {k + 1}\n")[0]
            lines = output.splitlines()
            if lines[-1:] == ["status 0"]:
                sha256 = lines[-2].removeprefix("phi_sha256 ")
                ended[name] = Ended(output, folders[name], sha256)
        return ended
