"""Settings that are legal and change nothing, or not what their user may expect, a line each."""

from dpedf.errors import percent, plural
from dpedf.optim import last_step
from dpedf.run.config import slices
from dpedf.run.own_code import own_file
from dpedf.run.settings.sections import DEFAULTS
from dpedf.run.weights import few

# The settings of [train] that only one schedule has.
OF_SCHEDULE = {"decay_steps": "step", "decay_rate": "step"}
SHARE = 0.1  # of the first step in an average


def pointless(settings, data, ranks):
    """Lines for the user.  data: the open data file.  ranks: how many there are."""
    train, rows = settings.train, len(data.train)
    steps = last_step(train, rows)
    if settings.data.valid and data.stored.has("valid"):
        yield f"data.valid = {settings.data.valid}: {data.path} has a group valid, which is taken"
    elif not len(data.valid):
        yield "data.valid = 0: nothing to validate, so there will be no best.h5"
    yield from of_the_minibatch(train, rows, ranks)
    if steps < train.warmup_steps:
        never = f"train.learning_rate is not reached in {plural(steps, 'step')}"
        yield f"train.warmup_steps = {train.warmup_steps}: {never}"
    for name, schedule in OF_SCHEDULE.items():
        if schedule == train.schedule or own_file(train.schedule):
            continue  # of its own, it reads what it is given, or is refused (rules.py)
        if (found := getattr(train, name)) != DEFAULTS[f"train.{name}"]:
            yield f"train.{name} = {found}: only the schedule {schedule!r} has it"
    if train.schedule == "step" and train.warmup_steps + train.decay_steps >= steps:
        never = f"the learning rate does not fall in {plural(steps, 'step')}"
        yield f"train.decay_steps = {train.decay_steps}: {never}"
    if train.nesterov and not train.momentum and train.optimizer == "sgd":
        yield "train.nesterov = true: without train.momentum it changes nothing"
    if train.average and (share := train.average ** (steps - 1)) > SHARE:
        first = f"{percent(share)} of the average are Phi of the first one"
        yield f"train.average = {train.average}: after {plural(steps, 'step')}, {first}"
    if train.decay != "all" and not train.weight_decay and not own_file(train.optimizer):
        yield f"train.decay = {train.decay!r}: without train.weight_decay it changes nothing"
    if train.eval_every > steps and len(data.valid):
        yield f"train.eval_every = {train.eval_every}: the run ends at step {steps:,}"
    evaluations = -(-steps // (train.eval_every or -(-rows // train.batch_size)))
    if train.patience >= evaluations:
        few = f"the run has {plural(evaluations, 'evaluation')}, too few to end early"
        yield f"train.patience = {train.patience}: {few}"


def codes_as_numbers(build, columns):
    """A line where a model takes the codes of categories for numbers; code of one's own may not."""
    if columns and any(columns.sizes) and build != "tabular" and not own_file(build):
        coded = [i for i, size in enumerate(columns.sizes) if size]
        which, they, them = "columns", "are categories", "them"
        if len(coded) == 1:
            which, they, them = "column", "is of categories", "it"
        what = f"whose codes {build} takes as numbers"
        tabular = f'model.build = "tabular" embeds {them}'
        yield f"{which} {few([columns.name(i) for i in coded])} {they}, {what}; {tabular}"


def of_the_minibatch(train, rows, ranks):
    """Lines on how a minibatch is cut, and whether every rank has a part of it."""
    B, V = min(train.batch_size, rows), slices(train, rows)
    if train.batch_size > rows:
        there = f"there are {plural(rows, 'row')} to learn from, so each minibatch has all of them"
        yield f"train.batch_size = {train.batch_size}: {there}"
    if train.slices > B:
        few = f"the {plural(B, 'row')} of a minibatch make {plural(V, 'slice')}"
        yield f"train.slices = {train.slices}: {few}"
    if not V and ranks > 1:
        yield f"train.slices = 0 on {ranks} ranks: the bits depend on the number of ranks"
    busy = V or B
    if ranks > busy:
        without = ranks - busy
        what = f"{without} of {ranks} ranks get{'s' * (without == 1)} no rows of a minibatch"
        if V and B >= ranks:
            yield f"train.slices = {V}: {what}; with train.slices={ranks} each gets some"
        else:
            yield f"train.batch_size = {train.batch_size}: {what}; fewer ranks do the same"
