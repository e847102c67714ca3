"""Configurations: TOML and overrides to typed, frozen settings."""

import os
from datetime import date, time
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from dpedf.errors import UserError, concerning
from dpedf.run.explain import explained
from dpedf.run.tree import expect_plain, override, plain, read, shown, shown_key

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Bucket = Annotated[int, Meta(ge=64)]
Rate = Annotated[float, Meta(ge=0, le=1e9)]
Time = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,8}[smh]\Z")]
Fraction = Annotated[float, Meta(ge=0, lt=1)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of a config file."""


class DataSection(Section):
    file: Annotated[str, Meta(min_length=1)]
    valid: Count = 0  # rows held out of train, by seed, where the file has no valid group
    window: Count = 0  # symbols in a row of a text; 0: the file holds other rows
    stride: Count = 0  # symbols between the starts of two training rows; 0: data.window
    cache: Literal["none", "memory", "device"] = "none"  # none: streamed


class TrainSection(Section):
    batch_size: Positive  # the global minibatch, all ranks together
    learning_rate: Rate
    epochs: Count = 0
    steps: Count = 0  # the run ends at epochs or steps, whichever comes first
    slices: Count = 0  # of a minibatch, whose number alone decides the bits; 0: a rank is one
    rows: Count = 0  # in a pass, at most; 0: a trial finds out how many
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"] = "sgd"
    momentum: Fraction = 0.0
    nesterov: bool = False
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    smoothing: Fraction = 0.99  # of the squares that rmsprop averages
    epsilon: Annotated[float, Meta(gt=0, le=1e9)] = 1e-8
    weight_decay: Rate = 0.0  # added to the gradient, but with adamw decoupled from it
    grad_clip: Rate = 0.0  # maximal norm of the gradient, after the sum over ranks; 0: any
    schedule: Literal["constant", "step", "cosine"] = "constant"
    min_learning_rate: Rate = 0.0  # where the schedule "cosine" ends
    warmup_steps: Count = 0
    decay_steps: Positive = 1000  # of the schedule "step"
    decay_rate: Annotated[float, Meta(ge=0, le=1)] = 0.1
    precision: Literal["float32", "float64", "tf32", "bfloat16"] = "float32"
    eval_every: Count = 0  # steps; 0: at every epoch
    checkpoint_every: Positive | Time = 1000  # steps, or "10m"


class RunSection(Section):
    dir: str = ""  # runs/<name of the config>
    device: Literal["auto", "cpu", "gpu"] = "auto"
    capture: Literal["auto", "off"] = "auto"  # on a GPU, record a step as a CUDA graph, if possible
    allreduce: Literal["auto", "whole", "buckets"] = "auto"
    bucket: Bucket = 1 << 18  # numbers that are summed over ranks at a time, of "buckets"
    threads: Count = 0  # of BLAS in a rank; 0: OMP_NUM_THREADS without slices, else 1
    log_every: Positive = 100  # steps
    timeout: Annotated[float, Meta(gt=0)] = 600.0  # seconds without a step that end the job
    check_every: Count = 1000  # steps after which ranks are compared; 0: at checkpoints alone
    check_gradients: bool = False  # by finite differences, before the first step
    check_nan: bool = False  # after every node


class Config(Section):
    data: DataSection
    model: dict
    train: TrainSection
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    run: RunSection = RunSection()


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
        model=config.model | {"build": expanded("model.build", config.model["build"])},
        run=replace(config.run, dir=expanded("run.dir", config.run.dir)),
    )


# The type of every key, but for the keywords of models.
TYPES = {field.name: field.type for field in msgspec.structs.fields(Config)} | {"model.build": str}
for name, section in [*TYPES.items()]:
    if isinstance(section, type) and issubclass(section, Section):
        TYPES |= {f"{name}.{field.name}": field.type for field in msgspec.structs.fields(section)}

# The settings of [train] that only some optimizers have.
OPTIMIZERS_WITH = {
    "momentum": ("sgd", "rmsprop"),
    "nesterov": ("sgd",),
    "betas": ("adam", "adamw"),
    "smoothing": ("rmsprop",),
    "epsilon": ("adam", "adamw", "rmsprop"),
}


def expect_consistent(train):
    """UserError: a setting of [train] that its optimizer does not have, or a rate that rises."""
    for field in msgspec.structs.fields(train):
        found, optimizer = getattr(train, field.name), train.optimizer
        users = OPTIMIZERS_WITH.get(field.name, (optimizer,))
        if optimizer not in users and found != field.default:
            given = f"train.{field.name} = {found!r} is of {', '.join(users)}"
            raise UserError(f"{given}, expected none with train.optimizer = {optimizer!r}")
    low, high = train.min_learning_rate, train.learning_rate
    if low > high:
        raise UserError(
            f"train.min_learning_rate = {low!r}, expected at most train.learning_rate = {high!r}"
        )
    if low and train.schedule != "cosine":
        found = f"train.min_learning_rate = {low!r} is of the schedule cosine"
        raise UserError(f"{found}, expected none with train.schedule = {train.schedule!r}")


def seconds(duration):
    """The seconds of "90s", "10m" or "2h"; None for a number of steps."""
    if isinstance(duration, int):
        return None
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def dtype(config):
    """The dtype of Phi and of all values; tf32 and bfloat16 concern products of float32 alone."""
    return "float64" if config.train.precision == "float64" else "float32"


def from_command_line(words):
    """(path, Config, flags) of "CONFIG [section.key=value ...] [--resume | --overwrite]"."""
    for word in words:
        if not plain(word):
            raise UserError(f"{ascii(word)}: expected words in UTF-8")
    flags = {word for word in words if word in ("--resume", "--overwrite")}
    path, *overrides = [word for word in words if word not in flags] or [""]
    if not path or ("=" in path and not Path(path).is_file()) or path.startswith("-"):
        raise UserError("no CONFIG, expected a TOML file first, such as configs/mnist.toml")
    if len(flags) == 2:
        raise UserError("--resume and --overwrite, expected one of them")
    return path, load(path, overrides), flags


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
