"""Train a config with each of several settings, and list the runs, the best first.

    dpedf sweep configs/mnist.toml "train.learning_rate=[0.03,0.1,0.3]" "seed=[0,1]"
    mpirun -n 8 python -m dpedf sweep configs/mnist.toml "seed=[0,1,2,3]" --each 2

All combinations of the values in lists are trained, or with --samples N so many of them, drawn at
random with the seed of CONFIG.  Then a range may be given too, train.learning_rate=0.01..0.3: a
draw from it is even on a logarithmic scale, if both numbers are above 0, and whole where both are
whole.  A list is a list of values, unless the setting itself is a list:
"model.sizes=[[784,64,10],[784,128,10]]" has two.

Each run lies in runs/NAME-sweep/, or below run.dir, under the settings that tell it apart, and is
the run that dpedf train makes with its settings.  The same command goes on where it was stopped:
finished runs are left alone.  One that fails is reported, and the others go on.  Meanwhile dpedf
runs shows how far they are.
"""

import os
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from dpedf import train
from dpedf.device.threads import share_of_cores
from dpedf.errors import UserError, one_line, plural, print_line
from dpedf.parallel import job
from dpedf.parallel.groups import Group, attempt, shared_out, wait_for_all
from dpedf.parallel.launcher import command
from dpedf.parallel.signals import told
from dpedf.run.command_line import Parser, at_least
from dpedf.run.directory import BEST
from dpedf.run.last_lines import to_evaluate
from dpedf.tools.experiments.past import PastRun, runs_in
from dpedf.tools.experiments.plan import plan
from dpedf.tools.experiments.table import few_digits, loss, name_in, percent, table


def main(words):
    parser = Parser("dpedf sweep", __doc__)
    parser.add_config()
    add = parser.add_argument
    add("--samples", type=at_least(1), metavar="N", help="so many, drawn at random, all different")
    add("--each", type=at_least(1), metavar="N", help="ranks of a run (all: one after another)")
    add("--retry", action="store_true", help="go on with runs that have failed, too")
    args = parser.read(words)
    job.run(sweep, args, words)


def sweep(world, args, words):
    """The status: 0, all runs are finished; 1, some have failed; 75, it was told to stop."""
    job.watch(world)
    each = args.each or world.size
    with world.together():
        if world.size % each:
            raise UserError(f"--each {each}, expected a divisor of the {world.size} ranks")
        given = args.config, args.settings, args.samples, world.alive
        planned = plan(*given) if world.rank == 0 else None
    directory, runs = world.gather(planned)[0]
    todo = [run for run in runs if run.status in ("new", "stopped", *["failed"] * args.retry)]
    world.say(introduction(runs, directory, args.retry, world.size // each, each))
    world.share = share_of_cores(world)
    failed, stopped = train_all(todo, directory, Group(world, each), world)
    failed += [run.name for run in runs if run not in todo and run.status != "finished"]
    if world.rank == 0:
        conclude(directory)
    if stopped:
        world.say(f"stopped; the same command goes on: {command(world, 'sweep', *words)}")
    return train.STOPPED if stopped else int(bool(failed))


def introduction(runs, directory, retry, at_a_time, each):
    """What is there, and what is going to be done."""
    how = f"{at_a_time} at a time, " * (at_a_time > 1)
    lines = [f"{plural(len(runs), 'run')} in {directory}, {how}{plural(each, 'rank')} each"]
    known = {
        "finished": "left alone",
        "stopped": "going on",
        "failed": "going on" if retry else "left alone: --retry goes on with them",
        "live": "in another job, left alone",
        "damaged": "left alone",
    }
    for status, what in known.items():
        if number := sum(run.status == status for run in runs):
            lines.append(f"{number} {status}, {what}")
    return "\n".join(lines)


def train_all(runs, directory, group, world):
    """(names of the runs that failed, was it told to stop?), of the runs of all groups."""
    failed, stop = [], False
    with world.together(), writable(directory):
        folder = TemporaryDirectory(prefix=".sweep-", dir=directory) if world.rank == 0 else None
    for k in shared_out(len(runs), world.gather(folder and folder.name)[0], group):
        stop = group.largest(told.stop)[0] > 0
        if stop:
            break
        status = train_one(runs[k], group)
        stop = status == train.STOPPED
        failed += [runs[k].name] * (status not in (0, train.STOPPED))
    wait_for_all(world)
    if folder:
        folder.cleanup()
    ends = world.gather((failed, stop))
    return sorted({name for names, _ in ends for name in names}), any(stop for _, stop in ends)


def train_one(run, group):
    """The status of a run."""
    if group.rank == 0:
        print_line(f"{run.name}: {'started' if run.status == 'new' else 'going on'}")
    status, why = attempt(train.main, group, [*run.words, "--resume"])
    if group.rank == 0:
        past = PastRun(run.directory)
        at = f"stopped at step {past.step:,}" if status == train.STOPPED else f"failed: {why}"
        print_line(f"{run.name}: {at if status else described(past)}")
    return status


def described(past):
    """What a finished run has reached, in a few words."""
    found = []
    for rows in "valid", "test":
        of_loss, accuracy = getattr(past, f"{rows}_loss"), getattr(past, f"{rows}_accuracy")
        if of_loss is not None:
            correct = "" if accuracy is None else f", accuracy {percent(accuracy)} %"
            found.append(f"{rows} loss {loss(of_loss)}{correct}")
    return "; ".join(["finished", *found, f"{few_digits(past.seconds)} s"])


@contextmanager
def writable(directory):
    """Make a directory.  UserError: it cannot be written."""
    try:
        os.makedirs(directory, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(f"{directory}: {one_line(error)}, expected a writable directory") from None


def conclude(directory):
    """Print the table, and the best of the runs that have kept their best step."""
    runs = runs_in(directory)
    print_line("\n".join(["", *table(runs, directory, "valid_loss")]))
    known = [run for run in runs if run.valid_loss is not None and (run.path / BEST).exists()]
    if known:
        best = min(known, key=lambda run: run.valid_loss)
        evaluate = to_evaluate(best.settings, best.path)
        print_line(f"\nbest: {name_in(directory, best)}; to evaluate it: {evaluate}")
    elif runs:
        print_line(f"\nno run has a {BEST}, so that none is the best one")
