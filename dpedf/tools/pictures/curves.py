"""The picture of training curves: loss, accuracy and metrics of runs, a panel each."""

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from dpedf.errors import UserError, percent, plural, short
from dpedf.run.config import load
from dpedf.run.measures import TITLES, measured
from dpedf.tools.experiments.differences import differences
from dpedf.tools.experiments.differences import labels as differences_in_words
from dpedf.tools.pictures.grids import legible

# Ten colours that are told apart by everybody: M. A. Petroff, Accessible color sequences for data
# visualization, 2021.
COLORS = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
MOST_SETTINGS = 3  # that name a run
MOST_LISTED = 12  # runs in a legend
LONGEST = 70  # characters of a name
CHARACTERS = 14  # of a legend, in an inch
TRAINING = dict(linestyle=(0, (3, 1.5)), alpha=0.65)
TEST = dict(marker="D", markersize=5, markerfacecolor="white")
HEIGHT, ROW = 3.2, 0.19  # inches: of a row of panels, and of a line of the legend
WIDTHS = 6, 9, 12  # of as many panels in a row
MOST = 8  # panels beside that of the loss
SHARES = "accuracy", "top5"
UNITS = {"seconds": 1, "minutes": 60, "hours": 3600}


def labels(histories):
    """A name for each run: in what its settings differ from the others', or its directory."""
    names = directories(histories)
    try:
        configs = [load(history.run / "config.toml") for history in histories]
    except UserError:  # of an older version, perhaps; its curves are there even so
        return names
    if len({key for settings in differences(configs) for key in settings}) > MOST_SETTINGS:
        return names
    found = differences_in_words(configs)
    return [
        name if not text else text if found.count(text) == 1 else f"{text} ({name})"
        for text, name in zip(found, names, strict=True)
    ]


def directories(histories):
    """The names of the directories of runs, or their paths where names are the same."""
    names = [history.run.resolve().name for history in histories]
    return [
        name if names.count(name) == 1 else str(history.run)
        for name, history in zip(names, histories, strict=True)
    ]


def draw(histories, by):
    """The picture of runs, over "epoch", "step" or "time"."""
    unit, label = 1, by
    if by == "time":
        latest = max(np.nanmax(h.drawn(h.evaluated, "step", by)[0]) for h in histories)
        label = next((u for u, n in UNITS.items() if latest < 120 * n), "hours")
        unit = UNITS[label]
    metrics = drawable(histories, by)
    n = 1 + len(metrics)
    beside = 2 if n == 4 else min(n, len(WIDTHS))
    down = -(-n // beside)
    figure = Figure((WIDTHS[beside - 1], down * HEIGHT), layout="constrained")
    panels = [*figure.subplots(down, beside, squeeze=False, sharex=True).flat]
    for empty in panels[n:]:
        empty.remove()
    panels = panels[:n]
    width = 1.4 if len(histories) <= len(COLORS) else 0.9
    handles = []
    each = zip(histories, colors(len(histories)), labels(histories), strict=True)
    for history, color, name in each:
        style = dict(color=color, linewidth=width)
        plot(panels[0], history.curve("train_loss", by), unit, **style, **TRAINING)
        plot(panels[0], history.curve("valid_loss", by), unit, **style)
        mark(panels[0], history.test("test_loss", by), unit, color)
        for axes, its in zip(panels[1:], metrics, strict=True):
            factor = 100 if its in SHARES else 1
            plot(axes, times(factor, history.curve(f"valid_{its}", by)), unit, **style)
            mark(axes, times(factor, history.test(f"test_{its}", by)), unit, color)
        handles.append(Line2D([], [], **style, label=legible(name, LONGEST) + result(history)))
    for axes, its in zip(panels, ("loss", *metrics), strict=True):
        title = legible(TITLES.get(its, its), LONGEST) + ", %" * (its in SHARES)
        axes.set_title(title, loc="left")
        axes.set_xlabel(label)
        axes.tick_params(labelbottom=True)
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_major_formatter("{x:,.10g}")
    place_ticks(panels, by)
    scale(panels[0])
    legend_of_styles(panels[0], histories)
    legend_of_runs(figure, handles)
    return figure


def colors(n):
    """n colours: as few as there are names for, else a scale from the first run to the last."""
    if n <= len(COLORS):
        return COLORS[:n]
    return colormaps["viridis"](np.linspace(0, 0.95, n))


def drawable(histories, by):
    """What has curves beside the loss: accuracy, metrics, and then the parts of losses."""
    events = [e for h in histories for e in (*h.evaluated, *h.tested)]
    found = [name for e in events for rows in ("valid", "test") for name in measured(rows, e)]
    names = dict.fromkeys(["accuracy", *(name for name in TITLES if name in found), *found])
    return [name for name in names if any(has_points(h, name, by) for h in histories)][:MOST]


def has_points(history, name, by):
    curves = history.curve(f"valid_{name}", by), history.test(f"test_{name}", by)
    return any(np.isfinite(y).any() for _, y in curves)


def times(factor, curve):
    return curve[0], factor * curve[1]


def plot(axes, curve, unit, **style):
    """Draw a curve, with a dot for each point that no line reaches."""
    x, y = curve
    there = np.isfinite(x) & np.isfinite(y)
    beside = np.zeros(len(x) + 1, bool)
    beside[1:-1] = there[1:] & there[:-1]
    alone = np.flatnonzero(there & ~beside[1:] & ~beside[:-1])
    axes.plot(x / unit, y, **style, marker=".", markevery=alone.tolist())


def mark(axes, point, unit, color):
    x, y = point
    axes.plot(x / unit, y, linestyle="", color=color, **TEST, zorder=3)


def result(history):
    """ ": test 98.40 %", where there is one."""
    for what, form in ("accuracy", percent), ("loss", lambda found: f"loss {short(found)}"):
        for found in history.test(f"test_{what}", "step")[1]:
            if np.isfinite(found):
                return f": test {form(found)}"
    return ""


def place_ticks(panels, by):
    """Ticks at whole epochs and steps, and where there is one evaluation, at that alone."""
    x = np.concatenate([line.get_xdata() for axes in panels for line in axes.lines])
    x = np.unique(x[np.isfinite(x)])
    if len(x) == 1:
        panels[0].set_xticks(x)
    elif len(x) and by != "time" and x[-1] - x[0] >= 1:
        panels[0].xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=(1, 2, 5, 10)))


def scale(axes):
    """A logarithmic scale of losses, where they are positive and differ much."""
    drawn = np.concatenate([line.get_ydata() for line in axes.lines])
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) and 0 < 5 * drawn.min() < drawn.max():
        axes.set_yscale("log")
        decades = np.log10(drawn.max()) - np.log10(drawn.min())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
        axes.yaxis.set_minor_locator(LogLocator(subs=()))
        axes.yaxis.set_major_formatter("{x:g}")


def legend_of_styles(axes, histories):
    """What dashed lines, solid ones and marks are, of those that are drawn."""
    looks = {"training": TRAINING}
    if any(np.isfinite(h.curve("valid_loss", "step")[1]).any() for h in histories):
        looks["validation"] = {}
    if any(h.tested for h in histories):
        looks["test"] = {"linestyle": ""} | TEST
    gray = dict(color="0.35", linewidth=1.4)
    handles = [Line2D([], [], **gray, **look, label=name) for name, look in looks.items()]
    axes.legend(handles=handles, frameon=False)


def legend_of_runs(figure, handles):
    """The names of runs, above the panels, in as many columns as there is room for."""
    if (rest := len(handles) - MOST_LISTED) > 0:
        more = Line2D([], [], linestyle="", label=f"and {plural(rest, 'more run')}")
        handles = [*handles[:MOST_LISTED], more]
    longest = max(len(handle.get_label()) for handle in handles)
    room = figure.get_figwidth() * CHARACTERS
    columns = int(max(1, min(len(handles), room // (longest + 5))))
    figure.set_figheight(figure.get_figheight() + ROW * -(-len(handles) // columns))
    place = dict(loc="outside upper center", ncols=columns, frameon=False)
    legend = figure.legend(handles, ["run"] * len(handles), **place)
    for text, handle in zip(legend.get_texts(), handles, strict=True):
        text.set_text(handle.get_label())  # a legend itself leaves out names that begin with _
