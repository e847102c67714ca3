"""A table of runs, a row each, as wide as a terminal."""

import shutil
import textwrap
from collections import Counter, namedtuple
from math import inf
from pathlib import Path

from dpedf.errors import columns as columns_of
from dpedf.errors import padded, plural, short, visible
from dpedf.run.measures import TITLES, said
from dpedf.tools.experiments.differences import labels, shown
from dpedf.tools.experiments.past import in_order

STATUSES = "live", "failed", "damaged", "stopped", "finished"  # in the order of their urgency
GAP, BELOW, NARROW = 2, 8, 24  # blanks between columns, before what goes on below; characters
MOST_SAID = 10  # lines below the table

# A column: its heads, and a cell of a run; right: are its cells numbers?
Column = namedtuple("Column", "above head cell right", defaults=[True])


def smallest(run, name):
    value = getattr(run, name)
    return inf if value is None else value


def largest(run, name):
    value = getattr(run, name)
    return inf if value is None else -value


# What runs can be sorted by.  A run without the number comes last.
KEYS = {
    "name": lambda run: 0,
    "model": lambda run: trained(run),
    "steps": lambda run: largest(run, "step"),
    "status": lambda run: STATUSES.index(run.status),
    "valid_loss": lambda run: smallest(run, "valid_loss"),
    "valid_accuracy": lambda run: largest(run, "valid_accuracy"),
    "test_loss": lambda run: smallest(run, "test_loss"),
    "test_accuracy": lambda run: largest(run, "test_accuracy"),
    "seconds": lambda run: smallest(run, "seconds"),
    "ranks": lambda run: smallest(run, "ranks"),
}


def table(runs, directory, sort="name", width=None):
    """The lines of a table of PastRuns below a directory; width: of a line, or the terminal's."""
    width = width or shutil.get_terminal_size((100, 24)).columns
    runs = sorted(runs, key=lambda run: (KEYS[sort](run), in_order(str(run.path))))
    models = Counter(trained(run) for run in runs if run.settings)
    most = next((model for model, number in models.items() if 2 * number > len(runs)), "")
    of = f": {most}{', where no other is named' * (len(models) > 1)}" if most else ""
    yield visible(f"{plural(len(runs), 'run')} in {directory}{of}")
    if not runs:
        return
    names = [visible(name_in(directory, run)) for run in runs]
    more, head = told_apart(runs, names, models, most), "differs"
    shown = columns(runs)
    if sum(widths(shown, runs)) + GAP * len(shown) + max(map(columns_of, names)) > width:
        shown, head = columns(runs, metrics=False), "more"
        each = zip(more, runs, strict=True)
        more = ["; ".join([its] * bool(its) + measured(run)) for its, run in each]
    yield from laid_out(names, shown, runs, more, head, width)
    notes = [f"{name}: {run.note}" for name, run in zip(names, runs, strict=True) if run.note]
    if notes:
        yield ""
    for line in notes[:MOST_SAID]:
        yield from textwrap.wrap(visible(line), max(NARROW, width), subsequent_indent="  ")
    if len(notes) > MOST_SAID:
        yield f"and {len(notes) - MOST_SAID} more"


def name_in(directory, run):
    path = run.path.relative_to(directory)
    return str(path if path.parts else run.path)


def trained(run):
    """ "mlp on mnist": what was trained, and on which data."""
    if run.settings is None:
        return ""
    build = run.settings.model["build"].rpartition("/")[2]
    return shown(f"{build} on {Path(run.settings.data.file).stem}")


def told_apart(runs, names, models, most):
    """For each run, what it trains, if that is not what most do, and how it differs from its like.

    Its like are those of the same model and data.
    """
    found = {}
    for model in models:
        alike = [k for k, run in enumerate(runs) if run.settings and trained(run) == model]
        said = labels([runs[k].settings for k in alike], [names[k] for k in alike])
        prefix = [model] * (model != most)
        found |= {
            k: ", ".join(prefix + [its] * bool(its)) for k, its in zip(alike, said, strict=True)
        }
    return [found.get(k, "") for k in range(len(runs))]


def columns(runs, metrics=True):
    """Those in which there is anything.  metrics: with those of metrics and parts of a loss."""
    every = [
        Column("", "steps", steps),
        Column("", "status", lambda run: run.status, False),
        Column("valid", "loss", lambda run: loss(run.valid_loss)),
        Column("valid", "acc. %", lambda run: percent(run.valid_accuracy)),
        *of_metrics(runs if metrics else [], "valid"),
        Column("test", "loss", lambda run: loss(run.test_loss)),
        Column("test", "acc. %", lambda run: percent(run.test_accuracy)),
        *of_metrics(runs if metrics else [], "test"),
        Column("", "seconds", lambda run: few_digits(run.seconds)),
        Column("", "ranks", lambda run: "" if run.ranks is None else f"{run.ranks}"),
    ]
    return [column for column in every if any(column.cell(run) for run in runs)]


def steps(run):
    """ "1,200/4,300", or "4,300" once they are done."""
    if run.step == run.last_step:
        return f"{run.step:,}"
    return f"{run.step:,}/{'?' if run.last_step is None else f'{run.last_step:,}'}"


def loss(value):
    return "" if value is None else short(value)


def percent(value):
    return "" if value is None else f"{100 * value:.2f}" if abs(value) <= 1 else f"{value:.2e}"


def of_metrics(runs, rows):
    """A column for each of run.metrics, and then for each part of a loss."""
    names = dict.fromkeys(name for run in runs for name in run.measured[rows])
    for name in sorted(names, key=lambda name: name not in TITLES):
        form, title = (percent, "top-5 %") if name == "top5" else (loss, TITLES.get(name, name))
        yield Column(rows, title, lambda run, at=name, form=form: form(run.measured[rows].get(at)))


def measured(run):
    """The same in words, for "valid" and for "test"."""
    return [f"{rows} {', '.join(said(its))}" for rows, its in run.measured.items() if its]


def few_digits(seconds):
    if seconds is None:
        return ""
    return f"{seconds:.1f}" if seconds < 10 else f"{seconds:,.0f}" if seconds < 1e9 else "?"


def cells(columns, runs):
    """The rows of a table: two of heads, then those of runs."""
    heads = [[c.above for c in columns], [c.head for c in columns]]
    return heads + [[c.cell(run) for c in columns] for run in runs]


def widths(columns, runs):
    return [max(map(columns_of, its)) for its in zip(*cells(columns, runs), strict=True)]


def laid_out(names, columns, runs, more, head, width):
    """The lines: figures, names and more on each run, which goes on below where it is long."""
    rows, wide = cells(columns, runs), widths(columns, runs)
    indent, longest = sum(wide) + GAP * len(wide), max([3, *map(columns_of, names)])
    room = width - indent - longest - GAP
    beside = room >= NARROW
    texts = zip(["", "run", *names], ["", head if beside and any(more) else "", *more], strict=True)
    for row, (name, label) in zip(rows, texts, strict=True):
        figures = "".join(
            (" " * (w - columns_of(cell)) + cell if c.right else padded(cell, w)) + " " * GAP
            for cell, c, w in zip(row, columns, wide, strict=True)
        )
        within = room if beside else max(NARROW, width - BELOW)
        wrapped = textwrap.wrap(label, within, break_on_hyphens=False)
        if beside:
            first, *rest = wrapped or [""]
            yield f"{figures}{padded(name, longest + GAP)}{first}".rstrip()
            yield from (" " * (indent + longest + GAP) + line for line in rest)
        else:
            yield f"{figures}{name}".rstrip()
            yield from (" " * BELOW + line for line in wrapped)
