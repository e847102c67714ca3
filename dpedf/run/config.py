"""Configurations: TOML and overrides to typed, frozen settings."""

from datetime import date, time
from pathlib import Path
from typing import Annotated, Literal, TypedDict

import msgspec
from msgspec import Meta

from dpedf.errors import UserError, concerning, one_line
from dpedf.run.settings.consistent import expect_consistent
from dpedf.run.settings.explain import expect_known, explained, fits
from dpedf.run.settings.paths import without_tilde
from dpedf.run.settings.toml import read
from dpedf.run.settings.tree import expect_plain, override, shown

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Bucket = Annotated[int, Meta(ge=64)]
Rate = Annotated[float, Meta(ge=0, le=1e9)]
Time = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,8}[smh]\Z"), 'a time such as "10m"']
Fraction = Annotated[float, Meta(ge=0, lt=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Small = Annotated[float, Meta(gt=0, le=1e9)]
Above = Annotated[float, Meta(gt=0)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Name = Annotated[str, Meta(min_length=1)]


def name_or_own(*names, procedure):
    """The type of a setting that is one of these names, or a procedure in a file of the user's."""
    own = f"path/to/file.py:{procedure}"
    pattern = rf"^({'|'.join(names)}|[^\x00-\x1f]+\.py:\w+)\Z"
    return Annotated[str, Meta(pattern=pattern), (*names, own)]


Rule = name_or_own("sgd", "adam", "adamw", "rmsprop", procedure="rule")
Schedule = name_or_own("constant", "step", "cosine", procedure="schedule")


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of a config file.  Beside the type of each setting stands what it means."""


class DataSection(Section):
    file: Annotated[Name, "the data file, in HDF5, with the groups train, test and perhaps valid"]
    valid: Annotated[
        Count, "rows taken out of train to validate on, where the file has no group valid"
    ] = 0
    window: Annotated[Count, "of a text: the symbols in a row; 0: the file holds no text"] = 0
    stride: Annotated[
        Count, "of a text: symbols from the start of a training row to the next; 0: data.window"
    ] = 0
    cache: Annotated[
        Literal["none", "memory", "device"],
        "where all rows are kept; none: in the file, from which each minibatch is read",
    ] = "none"


class TrainSection(Section):
    batch_size: Annotated[Positive, "rows of a minibatch, all ranks together"]
    learning_rate: Annotated[Rate, "the learning rate, at its largest"]
    epochs: Annotated[Count, "passes over the training rows; 0: train.steps alone counts"] = 0
    steps: Annotated[
        Count, "minibatches to learn from, or fewer if train.epochs end before; 0: any number"
    ] = 0
    slices: Annotated[
        Count, "parts of a minibatch, so that the number of ranks changes no bit; 0: one a rank"
    ] = 8
    rows: Annotated[
        Count, "rows computed at a time, at most; fewer take less memory; 0: a trial chooses"
    ] = 0
    optimizer: Annotated[Rule, "the update rule"] = "sgd"
    momentum: Annotated[Fraction, "momentum of sgd and rmsprop; 0: none"] = 0.0
    nesterov: Annotated[bool, "Nesterov's momentum, of sgd"] = False
    betas: Annotated[
        tuple[Fraction, Fraction], "how slowly adam and adamw forget gradients, and their squares"
    ] = (0.9, 0.999)
    smoothing: Annotated[Fraction, "how slowly rmsprop forgets squares of gradients"] = 0.99
    epsilon: Annotated[
        Small, "added to the root of the mean square, by which adam, adamw and rmsprop divide"
    ] = 1e-8
    weight_decay: Annotated[
        Rate, "factor by which parameters are added to the gradient; adamw shrinks them instead"
    ] = 0.0
    grad_clip: Annotated[Rate, "norm to which a longer gradient is shortened; 0: none is"] = 0.0
    schedule: Annotated[Schedule, "how the learning rate falls during the run"] = "constant"
    min_learning_rate: Annotated[Rate, 'where the rate ends, with schedule = "cosine"'] = 0.0
    warmup_steps: Annotated[
        Count, "steps in which the learning rate rises from 0, before the schedule begins"
    ] = 0
    decay_steps: Annotated[
        Positive, 'steps from fall to fall of the rate, with schedule = "step"'
    ] = 1000
    decay_rate: Annotated[Share, "what such a fall multiplies the rate by"] = 0.1
    precision: Annotated[
        Literal["float32", "float64", "tf32", "bfloat16"],
        "type of the numbers; tf32 and bfloat16, on a GPU: of factors of products alone",
    ] = "float32"
    eval_every: Annotated[Count, "steps between evaluations; 0: one after every epoch"] = 0
    checkpoint_every: Annotated[Positive | Time, "steps, or the time, between checkpoints"] = 1000


class RunSection(Section):
    dir: Annotated[str, "directory of the run; empty: runs/NAME, after the config NAME.toml"] = ""
    device: Annotated[
        Literal["auto", "cpu", "gpu"], "what computes; auto: a GPU that works, else the CPU"
    ] = "auto"
    capture: Annotated[
        Literal["auto", "off"],
        "auto: a GPU replays a step as a CUDA graph, where possible; off: never",
    ] = "auto"
    allreduce: Annotated[
        Literal["auto", "whole", "buckets"],
        "how ranks sum gradients: all at the end, or parts as they are complete; auto: the faster",
    ] = "auto"
    bucket: Annotated[Bucket, 'numbers that are summed at a time with allreduce = "buckets"'] = (
        1 << 18
    )
    threads: Annotated[
        Count, "threads of BLAS in each rank; 0: one, or without slices OMP_NUM_THREADS"
    ] = 0
    log_every: Annotated[Positive, "steps between lines of the training in metrics.jsonl"] = 100
    tensorboard: Annotated[bool, "write its curves for TensorBoard beside metrics.jsonl"] = False
    timeout: Annotated[Above, "seconds without a step after which the job is ended"] = 600.0
    check_every: Annotated[
        Count, "steps between comparisons of the ranks' parameters; 0: at checkpoints alone"
    ] = 1000
    check_gradients: Annotated[
        bool, "compare gradients with finite differences before the first step"
    ] = False
    check_nan: Annotated[bool, "look at all values, and name the node of the first nan"] = False


class Config(Section):
    data: DataSection
    model: dict
    train: TrainSection
    seed: Annotated[Seed, "decides the initial values, the order of rows and all other draws"] = 0
    run: RunSection = RunSection()


# Any other key of [model] is a keyword of the model.
OF_EVERY_MODEL = {
    "build": Annotated[str, "the model: one of dpedf.models, or path/to/file.py:procedure"],
    "weights": Annotated[str, "a file of safetensors, or a checkpoint, to start from; empty: none"],
    "freeze": Annotated[list[Name], "packages, or parameters, that stay as they start"],
}
OfEveryModel = TypedDict("OfEveryModel", OF_EVERY_MODEL, total=False)


class WithModel(TypedDict):
    model: OfEveryModel


def fields_of(struct, section=""):
    """{key: its field} of a struct and of the sections in it."""
    found = {}
    for field in msgspec.structs.fields(struct):
        found[f"{section}{field.name}"] = field
        if isinstance(field.type, type) and issubclass(field.type, Section):
            found |= fields_of(field.type, f"{field.name}.")
    return found


FIELDS = fields_of(Config)
DEFAULTS = {key: field.default for key, field in FIELDS.items() if not field.required}
# The type of every key, but for the keywords of models.
TYPES = {key: field.type for key, field in FIELDS.items()}
TYPES |= {f"model.{key}": kind for key, kind in OF_EVERY_MODEL.items()}


def load(path, overrides=()):
    """The Config in a TOML file, after overrides such as "train.batch_size=64".

    UserError: no such file, no TOML, an unknown or missing key, a wrong type or value.
    """
    tree = read(path)
    typed = dict(override(tree, word, takes) for word in overrides)
    with concerning(path):
        expect_plain(tree)
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
    if key not in TYPES:
        return not isinstance(value, (date, time))
    return fits(value, TYPES[key])


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
