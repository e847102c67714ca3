"""Configurations: TOML and overrides to typed, frozen settings."""

from datetime import date, time
from pathlib import Path

import msgspec

from dpedf.errors import UserError, concerning, one_line
from dpedf.run.settings.consistent import expect_consistent
from dpedf.run.settings.explain import expect_known, explained, fits
from dpedf.run.settings.paths import without_tilde
from dpedf.run.settings.sections import DEFAULTS, TABLES, TYPES, Config, WithModel
from dpedf.run.settings.toml import read
from dpedf.run.settings.tree import expect_plain, override, shown, with_whole_names


def load(path, overrides=()):
    """The Config in a TOML file, after overrides such as "train.batch_size=64".

    UserError: no such file, no TOML, an unknown or missing key, a wrong type or value.
    """
    tree = read(path)
    typed = dict(override(tree, word, takes) for word in overrides)
    with concerning(path):
        expect_plain(tree)
        tree = with_whole_names(tree)
        expect_known(tree, typed, TYPES)
    try:
        config, _ = msgspec.convert(tree, Config), msgspec.convert(tree, WithModel)
    except msgspec.ValidationError as error:
        what = explained(str(error), tree, TYPES, typed, DEFAULTS)
        raise UserError(f"{path}: {what}") from None
    if not config.run.dir:
        run = msgspec.structs.replace(config.run, dir=f"runs/{Path(path).stem}")
        config = msgspec.structs.replace(config, run=run)
    with concerning(path):
        expect_complete(config)
        return without_tilde(config)


def decoded(text):
    """The Config in a text that a checkpoint keeps, whoever wrote it.  UserError: there is none."""
    try:
        tree = msgspec.toml.decode(text)
        config, _ = msgspec.convert(tree, Config), msgspec.convert(tree, WithModel)
    except (msgspec.DecodeError, RecursionError) as error:  # a ValidationError too
        raise UserError(f"its settings: {one_line(error)}, expected those of today") from None
    with concerning("its settings"):
        expect_plain(tree)
        expect_complete(config)
    return config


def expect_complete(config):
    """UserError: no model is named, nothing is learnt, or settings contradict each other."""
    build = config.model.get("build")
    if not (isinstance(build, str) and build.isprintable()):
        found = "nothing" if build is None else shown(build)
        raise UserError(f"model.build = {found}, expected the name of a model")
    if not (config.train.epochs or config.train.steps):
        raise UserError("train.epochs = 0, expected at least 1, or train.steps")
    expect_consistent(config.train)


def takes(key, value):
    """Is a value of the type of a key?  A keyword of a model takes any that is no date."""
    table = next((its for its in TABLES if key.startswith(f"{its}.")), None)
    if key not in TYPES and not table:
        return not isinstance(value, (date, time))
    return fits(value, TABLES[table] if table else TYPES[key])


def seconds(duration):
    """The seconds of "90s", "10m" or "2h"; None for a number of steps."""
    if isinstance(duration, int):
        return None
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def slices(train, rows):
    """How many slices a minibatch has: no more than rows.  rows: those to learn from."""
    return min(train.slices, train.batch_size, rows)


def dtype(config):
    """The dtype of Phi and of all values; tf32 and bfloat16 concern products of float32 alone."""
    return "float64" if config.train.precision == "float64" else "float32"


def text(config):
    """A Config as TOML with all defaults, from which load makes it again."""
    return msgspec.toml.encode(config).decode()
