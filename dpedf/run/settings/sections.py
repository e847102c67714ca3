"""The settings: of each its type, what it means, and what it is where nobody sets it."""

from typing import Annotated, Literal, TypedDict

import msgspec
from msgspec import Meta

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
Rates = dict[str, Rate]


def name_or_own(*names, procedure):
    """The type of a setting that is one of these names, or a procedure in a file of the user's."""
    own = f"path/to/file.py:{procedure}"
    pattern = rf"^({'|'.join(names)}|[^\x00-\x1f]+\.py:\w+)\Z"
    return Annotated[str, Meta(pattern=pattern), (*names, own)]


Rule = name_or_own("sgd", "adam", "adamw", "rmsprop", procedure="rule")
Schedule = name_or_own("constant", "step", "linear", "cosine", "onecycle", procedure="schedule")


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
    decay: Annotated[
        Literal["all", "matrices"],
        "what weight_decay is for; matrices: parameters of two indices or more, no biases or norms",
    ] = "all"
    rates: Annotated[
        Rates, "what multiplies the learning rate of packages, or parameters, by name"
    ] = {}
    grad_clip: Annotated[Rate, "norm to which a longer gradient is shortened; 0: none is"] = 0.0
    schedule: Annotated[Schedule, "how the learning rate changes during the run"] = "constant"
    min_learning_rate: Annotated[Rate, "where the rate ends, with schedule linear or cosine"] = 0.0
    warmup_steps: Annotated[
        Count, "steps in which the learning rate rises from 0, before the schedule begins"
    ] = 0
    decay_steps: Annotated[
        Positive, 'steps from fall to fall of the rate, with schedule = "step"'
    ] = 1000
    decay_rate: Annotated[Share, "what such a fall multiplies the rate by"] = 0.1
    average: Annotated[
        Fraction, "how slowly a moving average of Phi forgets; it is what is evaluated; 0: none"
    ] = 0.0
    precision: Annotated[
        Literal["float32", "float64", "tf32", "bfloat16"],
        "type of the numbers; tf32 and bfloat16, on a GPU: of factors of products alone",
    ] = "float32"
    eval_every: Annotated[Count, "steps between evaluations; 0: one after every epoch"] = 0
    patience: Annotated[
        Count, "evaluations without a lower validation loss that end the run; 0: no number does"
    ] = 0
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
    metrics: Annotated[
        tuple[Literal["top5", "f1", "r2", "mae", "rmse"], ...],
        "what evaluations measure too, f1 as its macro average; empty: of a regression r2 and mae",
    ] = ()
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
DEFAULTS = {
    key: field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    for key, field in FIELDS.items()
    if not field.required
}
# The type of every key, but for the keywords of models.
TYPES = {key: field.type for key, field in FIELDS.items()}
TYPES |= {f"model.{key}": kind for key, kind in OF_EVERY_MODEL.items()}
# Settings that are tables of numbers by name, and the type of each number.
TABLES = {"train.rates": Rate}
