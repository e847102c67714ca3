"""The numbers of a data file, in words: those of x, of targets, and of the columns of a table."""

from itertools import islice
from textwrap import wrap

import numpy as np

from dpedf.data.scaling import SCALING
from dpedf.data.split import gathered
from dpedf.data.tabular import OTHER
from dpedf.errors import columns as wide_as
from dpedf.errors import padded, plural, visible
from dpedf.run.scores import WIDTH, called, cut

SEEN = 1 << 21  # bytes of rows, at most, of which range and mean are computed
MANY = 24  # classes or columns, at most, that are listed


def of_rows(data, split):
    """Yield what the numbers of x are in a group, and those of y that are no labels."""
    n, x, stored, seen = len(split), split.x, data.stored, sampled(split, split.x)
    scaling = {key: np.asarray(stored.attribute(key, its)) for key, its in SCALING.items()}
    said = [f"{key} {ends(its)}" for key, its in scaling.items() if (its != SCALING[key]).any()]
    if not (x.scaling or data.columns):  # otherwise rows are scaled as they are read
        yield from entry("x", spread(seen, n))
    if said:
        yield from entry("scaled", ", ".join(said))
    if said and not data.columns:
        inputs = seen if x.scaling else seen.astype(data.dtype) * data.scale + data.shift
        yield from entry("inputs", spread(inputs, n))
    if data.targets:
        yield from of_targets(data.targets, sampled(split, split.y), n)
    if data.columns:
        yield from [""] * bool(said or data.targets)
        yield from of_columns(data.columns, seen, x.scaling)
        if len(seen) < n:
            yield f"(of {plural(len(seen), 'row')} of {n:,})"


def of_targets(targets, y, n):
    """Yield what these rows of targets are, of n, and how they are called and were standardised."""
    yield from entry("targets", spread(y, n))
    for i, name in enumerate(targets.names or [""] * len(targets.std)):
        said = [name] * bool(name)
        if targets.std:
            said.append(f"standardised by mean {targets.mean[i]:g} and std {targets.std[i]:g}")
        yield from entry("", visible(", ".join(said)))


def of_columns(columns, x, scaling):
    """Yield a line for each column of a table: its numbers, of these rows, or its categories."""
    x, names, I = x.astype(np.float64), iter(columns.categories), len(columns.sizes)
    if scaling:  # back to what is stored
        scale, mean, std = scaling
        x = (x * std + mean) / scale
    labels = called(min(I, MANY), [columns.name(i) for i in range(min(I, MANY))], 30)
    title = plural(I, "column")
    wide = 2 + max(len(title), *map(wide_as, labels))
    yield padded(title, wide) + "".join(f"{word:>11}" for word in ("mean", "std", "low", "high"))
    for label, size, its in zip(labels, columns.sizes, x.T, strict=False):
        if size:
            said = of_categories([*islice(names, size * bool(columns.categories))], size)
        else:
            numbers = its.mean(), its.std(), its.min(), its.max()
            said = "".join(f"{number:>11.4g}" for number in numbers)
        yield cut(padded(label, wide) + said, WIDTH)
    if I > MANY:
        yield f"and {I - MANY:,} more"


def of_categories(names, size):
    """2 categories and (other): no, yes"""
    other = names[:1] == [OTHER]
    n = size - other
    said = f"{n:,} categor{'y' if n == 1 else 'ies'}" + f" and {OTHER}" * other
    return visible(said + f": {', '.join(names[other:MANY])}" * bool(names))


def sampled(split, rows):
    """Rows of a group, evenly spaced, as few as fit into SEEN bytes."""
    size = max(1, int(np.prod(rows.shape[1:])) * rows.dtype.itemsize)
    most = min(len(split), max(1, SEEN // size))
    return gathered(rows, split.numbers[np.linspace(0, len(split) - 1, most).astype(int)])


def spread(x, of):
    """The range, the mean and the standard deviation of rows, of so many."""
    x = x.astype(np.float64)
    those = "" if len(x) == of else f" ({plural(len(x), 'row')} of {of:,})"
    return f"{ends(x)}, mean {x.mean():.4g}, standard deviation {x.std():.4g}{those}"


def ends(numbers):
    """The smallest and the largest of numbers, or the only one."""
    low, high = float(numbers.min()), float(numbers.max())
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def entry(key, text):
    """Yield a line for what is said of a key, or several."""
    indent = " " * 10
    yield from wrap(text, WIDTH, initial_indent=f"{key:10}", subsequent_indent=indent) or [key]
