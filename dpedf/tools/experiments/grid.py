"""A grid of settings, from the words of a command line.

train.learning_rate=[0.01,0.1] names two values, train.learning_rate=0.01..0.3 a range, from which
values are drawn.  A list is one value where the setting is a list: train.betas=[0.9,0.99].
"""

import inspect
import json
import random
import re
from itertools import islice, product
from math import isfinite, prod

from dpedf.errors import UserError
from dpedf.run.build import find
from dpedf.run.config import takes
from dpedf.run.settings.explain import in_toml
from dpedf.run.settings.sections import TABLES, TYPES
from dpedf.run.settings.spelling import readings
from dpedf.run.settings.tree import leaves, shown, shown_key

MOST = 10_000  # runs of a sweep
TRIES = 1000  # draws that bring nothing new, for each run that is asked for
RANGE = re.compile(r"([-+.\w]+?)\.\.([-+.\w]+)")


class Range:
    """The numbers from low to high.

    Where both are above 0, drawn evenly on a logarithmic scale, else evenly; whole numbers, if low
    and high are, else with three digits.
    """

    def __init__(self, low, high):
        self.low, self.high, self.whole = low, high, type(low) is type(high) is int

    def draw(self, u):
        """The value for a number u that is drawn evenly from [0, 1)."""
        low, high = self.low, self.high + self.whole
        value = low * (high / low) ** u if low > 0 else low + u * (high - low)
        value = int(value // 1) if self.whole else float(f"{value:.3g}")
        return min(max(value, self.low), self.high)


def read_grid(words, tree):
    """({key: list of values, or Range}, the other words) of a command line for a config's tree.

    UserError: a list has no values, or a range no numbers.
    """
    grid, rest = {}, []
    for word in words:
        key, text = key_of(word), word.partition("=")[2].strip()
        found = values(key, text, tree)
        if found is None:
            rest.append(word)
        elif [*map(key_of, words)].count(key) > 1:
            raise UserError(f"{shown_key(key)} is given twice, expected all its values in one list")
        else:
            grid[key] = found
    return grid, rest


def key_of(word):
    """train.epochs, of "train.epochs = 3"."""
    return word.partition("=")[0].strip()


def values(key, text, tree):
    """The values or the Range that a text names; None, if it is one value."""
    try:
        found, *others = readings(text)
    except RecursionError:  # config.load says so
        return None
    if "," in text and key in TYPES and not any(takes(key, its) for its in (found, *others)):
        found = next((its for its in (found, *others) if isinstance(its, list)), found)
    if key in TABLES and isinstance(found, dict):
        for name, its in leaves(found):
            if isinstance(its, list):
                expected = f"several as in {shown_key(f'{key}.{name}')}={in_toml(its)}"
                raise UserError(f"{shown_key(key)} = {shown(text)}, expected {expected}")
    if isinstance(found, list) and not is_one_value(key, found, tree):
        if not found:
            raise UserError(f"{shown_key(key)} = [], expected at least one value")
        return [json.loads(its) for its in dict.fromkeys(json.dumps(v, default=str) for v in found)]
    ends = RANGE.fullmatch(text)
    ends = [readings(end)[0] for end in ends.groups()] if ends else []
    if not ends or not all(type(end) in (int, float) for end in ends):
        return None
    if not takes(key, ends[0]):  # such as the name of a file
        return None
    low, high = ends
    if not (isfinite(low) and isfinite(high) and low < high and high - low < 2**63):
        raise UserError(f"{shown_key(key)} = {shown(text)}, expected the lower number first")
    return Range(low, high)


def is_one_value(key, value, tree):
    """Is a list a value of the setting of this name, and not several?"""
    if key in TYPES:
        return takes(key, value)
    model = tree.get("model")
    model, name = model if isinstance(model, dict) else {}, key.removeprefix("model.")
    usual = model.get(name)
    if name not in model and isinstance(model.get("build"), str):
        of = inspect.signature(find(model["build"])).parameters
        usual = of[name].default if name in of else None
    return depth(value) <= depth(usual)


def depth(value):
    """How many lists lie in each other."""
    return 1 + max(map(depth, value), default=0) if isinstance(value, list | tuple) else 0


def points(grid, samples=None, seed=0):
    """The points of a grid, {key: value} each: all of them, or so many drawn, all different.

    Those of a smaller number of samples are the first of a larger one.  UserError: there are not
    so many, or too many.
    """
    ranges = [key for key, its in grid.items() if isinstance(its, Range)]
    if not grid:
        what = "no setting with several values, expected one such as train.learning_rate=[0.01,0.1]"
        raise UserError(what)
    if samples is None and ranges:
        raise UserError(f"{ranges[0]} is a range, expected --samples N, or a list of values")
    size = prod(len(its) for its in grid.values()) if not ranges else None
    if (samples or size) > MOST:
        expected = f"expected at most {MOST:,}" + ", or --samples N of them" * (samples is None)
        raise UserError(f"{samples or size:,} runs, {expected}")
    if samples is None:
        return [dict(zip(grid, point, strict=True)) for point in product(*grid.values())]
    if size is not None and samples > size:
        raise UserError(f"--samples {samples}, expected at most the {size} points of the grid")
    return [*islice(draws(grid, samples, random.Random(str(seed))), samples)]


def draws(grid, samples, drawn):
    """Yield points that are drawn, each once."""
    seen = set()
    for _ in range(TRIES * samples):
        point = {key: one_of(its, drawn.random()) for key, its in grid.items()}
        if (text := json.dumps(point)) not in seen:
            seen.add(text)
            yield point
    raise UserError(f"--samples {samples}, expected at most about {len(seen)}, all that differ")


def one_of(its, u):
    return its.draw(u) if isinstance(its, Range) else its[int(u * len(its))]


def word(key, value):
    """What sets a key to a value on a command line."""
    return f"{key}={in_toml(value)}"
