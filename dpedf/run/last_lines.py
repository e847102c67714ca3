"""The last lines of a run: where things lie, and what to do next."""

import os
import shlex
from importlib.util import find_spec

from dpedf.errors import plural, short
from dpedf.run.directory import BEST, CHECKPOINT
from dpedf.run.own_code import own_file


def kept(training):
    """runs/mnist: checkpoint.h5 (step 2,150), best.h5 (epoch 7, valid loss 0.0682)"""
    saves, files = training.saves, [f"{CHECKPOINT} (step {training.step.number:,})"]
    if saves.best_step:
        files.append(f"{BEST} ({best_time(training)}, valid loss {short(saves.best)})")
    return f"{training.directory.given}: {', '.join(files)}"


def best_time(training):
    """After which epoch or step the best one was saved."""
    step = training.saves.best_step
    epoch, more = divmod(step, training.steps_per_epoch)
    return f"step {step:,}" if more else f"epoch {epoch:,}"


def why_early(training):
    """A line on why a run has ended before its last step, if it has."""
    saves = training.saves
    if saves.out_of_patience and training.step.number < training.last_step:
        since = f"since {best_time(training)}" if saves.best_step else "at all"
        yield f"train.patience = {saves.patience}: no lower valid loss {since}, so it has ended"


def limits(training):
    """The settings by which a finished run has ended: "train.epochs", perhaps with another."""
    train, number = training.settings.train, training.step.number
    steps = "train.steps" if 0 < train.steps <= number else "train.epochs"
    patience = ["train.patience"] * training.saves.out_of_patience
    return " and ".join([steps] * (number >= training.last_step) + patience)


def last_lines(training):
    """What a finished run has left, and the commands that go on from there."""
    run = training.directory.given
    commands = [to_evaluate(training.settings, run)]
    if find_spec("matplotlib"):
        commands.append(shlex.join(["dpedf", "plot", str(run)]))
    if enter := os.environ.get("DPEDF_ENTER"):  # of launch/local.sh: how a shell finds dpedf
        commands.insert(0, enter)
    checked = board = []
    if training.settings.run.check_nan:
        checked = [f"nan: none in {plural(training.step.number, 'step')}"]
    if training.settings.run.tensorboard:
        board = [f"in TensorBoard: {shlex.join(['tensorboard', '--logdir', str(run.parent)])}"]
    return [
        *why_early(training),
        *checked,
        kept(training),
        f"next: {'; '.join(commands)}",
        *board,
    ]


def to_evaluate(settings, run):
    """The command that evaluates a run, which trusts what its user has just trained."""
    trust = ["--trust"] if own_file(settings.model["build"]) else []
    return shlex.join(["dpedf", "evaluate", str(run), *trust])
