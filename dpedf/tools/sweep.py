"""Train with each of several settings, and list the runs, best first.

    dpedf sweep configs/mnist.toml "train.learning_rate=[0.03,0.1,0.3]"
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
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from dpedf import train
from dpedf.data.disk import replace
from dpedf.device.threads import share_of_cores
from dpedf.errors import UserError, figures, one_line, plural, print_line
from dpedf.parallel import job
from dpedf.parallel.groups import Group, attempt, shared_out, wait_for_all
from dpedf.parallel.launcher import command
from dpedf.parallel.signals import told
from dpedf.parallel.signs import Life, new_folder
from dpedf.run import config
from dpedf.run.command_line import Parser, at_least
from dpedf.run.directory import BEST, FAILURE
from dpedf.run.last_lines import to_evaluate
from dpedf.tools.experiments.past import PastRun, in_order, runs_in
from dpedf.tools.experiments.plan import plan
from dpedf.tools.experiments.table import few_digits, name_in, table

LEFT_ALONE = {
    "finished": "finished by another job meanwhile, left alone",
    "live": "in another job, left alone",
}


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
    """The status: 0, no run has failed; 1, some have; 75, it was told to stop."""
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
    if world.rank == 0:
        conclude(directory, failed)
    if stopped:
        world.say(f"stopped; the same command goes on: {command(world, 'sweep', *words)}")
    failed |= {run.name: "" for run in runs if run.status in ("failed", "damaged")}
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
    """({name: why}, of the runs that failed; was it told to stop?), of the runs of all groups."""
    failed, stop = {}, False
    with world.together(), writable(directory):
        folder = new_folder(directory) if world.rank == 0 else None
    place = world.gather(folder and folder.name)[0]
    told.file = os.path.join(place, "stop")
    if runs:
        world.timeout = settings_of(runs[0]).run.timeout
    life = Life(place, world)
    life.start()
    for k in shared_out(len(runs), place, group):
        stop = group.largest(told.stop)[0] > 0
        if not stop:
            status, why = train_one(runs[k], group)
            stop = status == train.STOPPED
            failed |= {runs[k].name: why} if why else {}
        if stop:
            tell_the_others()
            break
    life.watches = world.size > 1
    wait_for_all(world)
    life.ended.set()
    if folder:
        folder.cleanup()
    ends = world.gather((failed, stop))
    return {name: why for of, _ in ends for name, why in of.items()}, any(stop for _, stop in ends)


def tell_the_others():
    """Tell the other groups to stop."""
    with suppress(OSError):  # a full disk: they are told only by a signal of their own
        Path(told.file).touch()


def train_one(run, group):
    """(status, why) of a run; why it failed, on the first rank of its group."""
    leads = group.rank == 0
    meanwhile = group.gather(leads and PastRun(run.directory).status)[0]
    if meanwhile in LEFT_ALONE:
        if leads:
            print_line(f"{run.name}: {LEFT_ALONE[meanwhile]}")
        return 0, ""
    if leads:
        print_line(f"{run.name}: {'started' if run.status == 'new' else 'going on'}")
    words = [*run.words, "--resume"]
    status, why = attempt(train.main, group, words, partial(leave_behind, run))
    if leads:
        past, failed = PastRun(run.directory), status not in (0, train.STOPPED)
        if failed and past.status == "live":  # another job was faster
            failed, said = False, LEFT_ALONE["live"]
        elif failed:
            said = f"failed: {why}"
            leave_behind(run, why)
        else:
            said = f"stopped at step {past.step:,}" if status else described(past)
        print_line(f"{run.name}: {said}")
    return status, why if leads and failed else ""


def leave_behind(run, why):
    """Leave in the directory of a run why it failed, as a run does by itself once it has begun."""
    config_file, failure = (Path(run.directory, name) for name in ("config.toml", FAILURE))
    with suppress(OSError):  # a full disk, say
        os.makedirs(run.directory, exist_ok=True)
        if not config_file.exists():
            replace(config_file, config.text(settings_of(run)).encode())
        replace(failure, f"{why}\n".encode(errors="backslashreplace"))


def settings_of(run):
    path, *words = run.words
    return config.load(path, words)


def described(past):
    """What a finished run has reached, in a few words."""
    found = []
    for rows in "valid", "test":
        of_loss, accuracy = getattr(past, f"{rows}_loss"), getattr(past, f"{rows}_accuracy")
        if of_loss is not None:
            found.append(figures(rows, of_loss, accuracy))
    return "; ".join(["finished", *found, f"{few_digits(past.seconds)} s"])


@contextmanager
def writable(directory):
    """Make a directory.  UserError: it cannot be written."""
    try:
        os.makedirs(directory, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(f"{directory}: {one_line(error)}, expected a writable directory") from None


def conclude(directory, failed):
    """Print the table, and the best of the runs that have kept their best step.

    failed: {name: why} of runs that failed, of which some may not have left why, on a full disk.
    """
    runs = runs_in(directory)
    print_line("\n".join(["", *table(runs, directory, "valid_loss")]))
    missing = failed.keys() - {name_in(directory, run) for run in runs if run.status == "failed"}
    lines = [f"{name}: failed: {failed[name]}" for name in missing]
    if lines:
        print_line("\n".join(["", *sorted(lines, key=in_order)]))
    known = [run for run in runs if run.valid_loss is not None and (run.path / BEST).exists()]
    if known:
        best = min(known, key=lambda run: run.valid_loss)
        evaluate = to_evaluate(best.settings, best.path)
        print_line(f"\nbest: {name_in(directory, best)}; to evaluate it: {evaluate}")
    elif runs:
        print_line(f"\nno run has a {BEST}, so that none is the best one")
