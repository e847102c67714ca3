"""The runs of a sweep: where they lie, what they train, and what is left to do."""

import os
from collections import namedtuple
from pathlib import Path

from dpedf.device import CPU
from dpedf.errors import UserError, concerning
from dpedf.run import config
from dpedf.run.settings.toml import read
from dpedf.run.settings.tree import override
from dpedf.run.setup import assemble
from dpedf.tools.experiments.differences import differences, in_a_name, short_names
from dpedf.tools.experiments.grid import key_of, points, read_grid, word
from dpedf.tools.experiments.past import PastRun, holds_run

LONGEST = 100  # characters of a name

# A run: its name, its directory, the words of its command line, and what is there already: a
# status of PastRun, or "new".
Planned = namedtuple("Planned", "name directory words status")


def plan(path, words, samples=None, alive=lambda: None):
    """(directory, the Planned runs) of a sweep of a config.

    UserError: there is no such config, or one of the runs would be refused.
    """
    tree = read(path)
    grid, rest = read_grid(words, tree)
    for its in rest:
        override(tree, its, config.takes)
    if "run.dir" in grid:
        raise UserError("run.dir has several values, expected one: a directory for all runs")
    chosen = points(grid, samples, tree.get("seed", 0))
    commands = [[*rest, *(word(key, value) for key, value in point.items())] for point in chosen]
    configs = []
    for command in commands:
        configs.append(config.load(path, command))
        alive()
    expect_models(path, configs, alive)
    directory = configs[0].run.dir
    if "run.dir" not in map(key_of, rest):
        directory += "-sweep"
    names, runs, taken = short_names(grid), [], set()
    for point, command, settings in zip(chosen, commands, configs, strict=True):
        readable = ",".join(in_a_name(names[key], value) for key, value in point.items())
        name, status = free_name(directory, readable[:LONGEST], settings, taken)
        taken.add(name)
        where = os.path.join(directory, name)
        runs.append(Planned(name, where, [str(path), *command, word("run.dir", where)], status))
        alive()
    return directory, runs


def expect_models(path, configs, alive):
    """UserError: what a config trains cannot be built, or does not fit its data."""
    met = set()
    for settings in configs:
        what = repr((settings.data, settings.model, config.dtype(settings)))
        if what not in met:
            with concerning(path):
                assemble(settings, CPU())
        met.add(what)
        alive()


def free_name(directory, name, settings, taken):
    """(name, status) of the run with these settings, perhaps an earlier one.

    Where a run with other settings lies under its name, it is name-2, and so on.
    """
    number = 1
    while True:
        here = f"{name}-{number}" if number > 1 else name
        number += 1
        if here in taken:
            continue
        path = Path(directory, here)
        if not holds_run(path):
            return here, "new"
        past = PastRun(path)
        if past.settings and not any(differences([past.settings, settings])):
            return here, past.status
