"""Configurations: TOML and overrides to typed, frozen settings."""

import os
from datetime import date, time
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, TypedDict

import msgspec
from msgspec import Meta

from dpedf.errors import UserError, concerning
from dpedf.run.consistent import expect_consistent
from dpedf.run.explain import explained
from dpedf.run.tree import expect_plain, override, read, shown, shown_key

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Bucket = Annotated[int, Meta(ge=64)]
Rate = Annotated[float, Meta(ge=0, le=1e9)]
Time = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,8}[smh]\Z")]
Fraction = Annotated[float, Meta(ge=0, lt=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Small = Annotated[float, Meta(gt=0, le=1e9)]
Above = Annotated[float, Meta(gt=0)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Name = Annotated[str, Meta(min_length=1)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of a config file.  Beside the type of each setting stands what it means."""


class DataSection(Section):
    file: Annotated[Name, "the data file, in HDF5"]
    valid: Annotated[
        Count, "rows held out of train, by seed, where the file has no valid group"
    ] = 0
    window: Annotated[Count, "symbols in a row of a text; 0: the file holds other rows"] = 0
    stride: Annotated[Count, "symbols from one training row to the next; 0: data.window"] = 0
    cache: Annotated[
        Literal["none", "memory", "device"], "where all rows are kept; none: they are streamed"
    ] = "none"


class TrainSection(Section):
    batch_size: Annotated[Positive, "rows of a minibatch, all ranks together"]
    learning_rate: Annotated[Rate, "eta, at its largest"]
    epochs: Annotated[Count, "how often all rows are learnt from; 0: train.steps alone counts"] = 0
    steps: Annotated[Count, "of the run, which ends at epochs or steps, whichever is first"] = 0
    slices: Annotated[
        Count, "of a minibatch, whose number alone decides the bits; 0: a rank is one"
    ] = 8
    rows: Annotated[Count, "in a pass, at most; 0: a trial finds out how many"] = 0
    optimizer: Annotated[Literal["sgd", "adam", "adamw", "rmsprop"], "the update rule"] = "sgd"
    momentum: Annotated[Fraction, "of sgd and rmsprop"] = 0.0
    nesterov: Annotated[bool, "Nesterov's momentum, of sgd"] = False
    betas: Annotated[tuple[Fraction, Fraction], "of adam and adamw"] = (0.9, 0.999)
    smoothing: Annotated[Fraction, "of the squares that rmsprop averages"] = 0.99
    epsilon: Annotated[Small, "of adam, adamw and rmsprop"] = 1e-8
    weight_decay: Annotated[Rate, "added to the gradient, but with adamw decoupled from it"] = 0.0
    grad_clip: Annotated[Rate, "the longest gradient, after the sum over ranks; 0: any"] = 0.0
    schedule: Annotated[Literal["constant", "step", "cosine"], "of the learning rate"] = "constant"
    min_learning_rate: Annotated[Rate, 'where the schedule "cosine" ends'] = 0.0
    warmup_steps: Annotated[Count, "in which the learning rate rises, before the schedule"] = 0
    decay_steps: Annotated[
        Positive, 'of the schedule "step", after each of which the rate falls'
    ] = 1000
    decay_rate: Annotated[Share, 'by which the schedule "step" multiplies the rate'] = 0.1
    precision: Annotated[
        Literal["float32", "float64", "tf32", "bfloat16"], "of numbers; the last two on a GPU"
    ] = "float32"
    eval_every: Annotated[Count, "steps between evaluations; 0: at every epoch"] = 0
    checkpoint_every: Annotated[
        Positive | Time, 'steps between checkpoints, or a time such as "10m"'
    ] = 1000


class RunSection(Section):
    dir: Annotated[str, "where the run is kept; empty: runs/<name of the config>"] = ""
    device: Annotated[
        Literal["auto", "cpu", "gpu"], "what computes; auto: a GPU that works, else the CPU"
    ] = "auto"
    capture: Annotated[
        Literal["auto", "off"], "auto: on a GPU, record a step as a CUDA graph, if possible"
    ] = "auto"
    allreduce: Annotated[
        Literal["auto", "whole", "buckets"], "how gradients are summed; auto: as a trial finds"
    ] = "auto"
    bucket: Annotated[Bucket, 'numbers that "buckets" sum over ranks at a time'] = 1 << 18
    threads: Annotated[Count, "of BLAS in a rank; 0: OMP_NUM_THREADS without slices, else 1"] = 0
    log_every: Annotated[Positive, 'steps between events "train" of metrics.jsonl'] = 100
    timeout: Annotated[Above, "seconds without a step that end the job"] = 600.0
    check_every: Annotated[
        Count, "steps after which ranks are compared; 0: at checkpoints alone"
    ] = 1000
    check_gradients: Annotated[bool, "by finite differences, before the first step"] = False
    check_nan: Annotated[bool, "after every node"] = False


class Config(Section):
    data: DataSection
    model: dict
    train: TrainSection
    seed: Annotated[
        Seed, "of the initial values, the order of rows, and whatever else is drawn"
    ] = 0
    run: RunSection = RunSection()


# Any other key of [model] is a keyword of the model.
OF_EVERY_MODEL = {
    "build": Annotated[str, "a model of dpedf.models, or path/to/file.py:procedure"],
    "weights": Annotated[str, "a file of safetensors, or a checkpoint, to start from; empty: none"],
    "freeze": Annotated[list[Name], "packages, or parameters, that stay as they start"],
}
OfEveryModel = TypedDict("OfEveryModel", OF_EVERY_MODEL, total=False)


class WithModel(TypedDict):
    model: OfEveryModel


# The type of every key, but for the keywords of models.
TYPES = {field.name: field.type for field in msgspec.structs.fields(Config)}
for name, section in [*TYPES.items()]:
    if isinstance(section, type) and issubclass(section, Section):
        TYPES |= {f"{name}.{field.name}": field.type for field in msgspec.structs.fields(section)}
TYPES |= {f"model.{key}": kind for key, kind in OF_EVERY_MODEL.items()}


def load(path, overrides=()):
    """The Config in a TOML file, after overrides such as "train.batch_size=64".

    UserError: no such file, no TOML, an unknown or missing key, a wrong type or value.
    """
    tree = read(path)
    for word in overrides:
        override(tree, word, fits)
    with concerning(path):
        expect_plain(tree)
        expect_known(tree)
    try:
        config = msgspec.convert(tree, Config)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: {explained(str(error), tree, TYPES)}") from None
    build = config.model.get("build")
    if not (isinstance(build, str) and build.isprintable()):
        found = "nothing" if build is None else shown(build)
        raise UserError(f"{path}: model.build = {found}, expected the name of a model")
    if not (config.train.epochs or config.train.steps):
        raise UserError(f"{path}: train.epochs = 0, expected at least 1, or train.steps")
    try:
        msgspec.convert(tree, WithModel)
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: {explained(str(error), tree, TYPES)}") from None
    with concerning(path):
        expect_consistent(config.train)
    if not config.run.dir:
        run = msgspec.structs.replace(config.run, dir=f"runs/{Path(path).stem}")
        config = msgspec.structs.replace(config, run=run)
    with concerning(path):
        return without_tilde(config)


def fits(key, value):
    """Is a value of the type of a key?  A keyword of a model takes any that is no date."""
    if key not in TYPES:
        return not isinstance(value, (date, time))
    try:
        msgspec.convert(value, TYPES[key])
    except msgspec.ValidationError:
        return False
    return True


def without_tilde(config):
    """The same config, in which ~ and ~user are the folders that a shell takes them for."""

    def expanded(key, path):
        found = os.path.expanduser(path)
        if found == path and path.startswith("~") and not os.path.exists(path):
            user = path.partition("/")[0]
            raise UserError(f"{key} = {shown(path)}, expected another user than {user}, or ./~")
        return found

    replace = msgspec.structs.replace
    return replace(
        config,
        data=replace(config.data, file=expanded("data.file", config.data.file)),
        model=config.model
        | {
            key: expanded(f"model.{key}", config.model[key])
            for key in ("build", "weights")
            if key in config.model
        },
        run=replace(config.run, dir=expanded("run.dir", config.run.dir)),
    )


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


def expect_known(tree):
    """UserError: in a tree is a key that nobody reads; [model] has any."""
    tables, places = [("", tree, Config)], {key.rpartition(".")[2]: key for key in TYPES}
    for field in msgspec.structs.fields(Config):
        section, cls = tree.get(field.name), field.type
        if isinstance(section, dict) and isinstance(cls, type) and issubclass(cls, Section):
            tables.append((f"{field.name}.", section, cls))
    for dot, table, cls in tables:
        names = [field.name for field in msgspec.structs.fields(cls)]
        for unknown in table.keys() - {*names}:
            near = get_close_matches(unknown[:80], names)
            near += [places[name] for name in get_close_matches(unknown[:80], places)]
            expected = near[0] if near else ", ".join(names)
            raise UserError(f"{dot}{shown_key(unknown)} is unknown, expected {expected}")


def text(config):
    """A Config as TOML with all defaults, from which load makes it again."""
    return msgspec.toml.encode(config).decode()
