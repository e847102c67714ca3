"""What a run is, as every checkpoint keeps it, and what of it may change when the run goes on."""

import hashlib
from itertools import zip_longest

import msgspec
import numpy as np

from dpedf.data.form import form_of
from dpedf.errors import UserError, visible
from dpedf.optim import last_step
from dpedf.run import config
from dpedf.run.outline import outline
from dpedf.run.own_code import own_file, sources
from dpedf.run.rules import schedule

# These settings may change when a run is resumed: how and for how long it trains, and where.
MAY_CHANGE = (
    *("run", "data.cache", "train.epochs", "train.steps", "train.rows"),
    *("train.eval_every", "train.checkpoint_every", "train.patience"),
)
# These may change, and a line says so: they change what is learnt from here on, or its last bits.
# A file elsewhere has to hold the same rows.
CHANGE_IS_SAID = (
    *("data.file", "train.learning_rate", "train.schedule", "train.min_learning_rate"),
    *("train.warmup_steps", "train.decay_steps", "train.decay_rate"),
    *("train.weight_decay", "train.decay", "train.rates", "train.grad_clip", "train.slices"),
)
# Any other setting has to stay: with another one, the state would be of another run.

SAMPLED = 64  # rows of a split, from the first to the last


class Identity:
    """What a run is: its settings, its data, its program and the user's code, a text of each.

    rows: how many it learns from.  form: of its rows, for who opens its checkpoints.
    weights: the SHA-256 of the file that it started from, "" for none.
    code: of the model.  learns_by() finds that of the update rule and the schedule.
    """

    def __init__(self, settings, rows, data="", program="", code="", form=""):
        self.settings, self.rows, self.data, self.program = settings, rows, data, program
        self.code, self.form, self.weights = code, form, ""
        self.rules = {f"{key}_code": "" for key, _ in self.named()}

    def learns_by(self):
        """Its update rule and its schedule are those that were loaded, beside the model."""
        self.rules = {f"{key}_code": hash_of_code(own_file(its)) for key, its in self.named()}

    def named(self):
        """(key, name) of its update rule and its schedule."""
        return [(key, getattr(self.settings.train, key)) for key in ("optimizer", "schedule")]

    def texts(self):
        texts = {"data": self.data, "program": self.program, "code": self.code, "form": self.form}
        texts |= {"settings": config.text(self.settings), "weights": self.weights}
        return texts | self.rules

    def compare(self, state):
        """The lines that say what has changed since this state of a checkpoint was saved.

        The texts are taken out of it.  UserError: it is of another run.
        """
        texts = {name: state.pop(name, "") for name in self.texts()}
        old = config.decoded(texts["settings"])
        self.weights = texts["weights"]  # whatever is in the file now
        said = expect_resumable(old, self.settings)
        for name in "data", "program":
            expect_unchanged(name, getattr(self, name), texts[name])
        changed = [self.settings.model["build"]] if self.code != texts["code"] else []
        for key, name in self.named():
            code = f"{key}_code"
            if name == getattr(old.train, key) and self.rules[code] != texts[code]:
                changed.append(name)
        said += [f"{name} has changed, or what it imports from its folder" for name in changed]
        return [*said, *self.rate(old, state["step"])]

    def rate(self, old, step):
        """A line, if the learning rate of the next step is not what it would have been.

        None, if there is no next step, or if that would take the code of a schedule which this run
        does not have.
        """
        if step >= last_step(self.settings.train, self.rows):
            return
        if own_file(old.train.schedule) and old.train.schedule != self.settings.train.schedule:
            return
        was, now = (
            schedule(s.train, last_step(s.train, self.rows))(step) for s in (old, self.settings)
        )
        if was != now:
            yield f"the learning rate of step {step + 1:,} is {now:g}, and would have been {was:g}"


def expect_unchanged(what, now, then):
    """UserError: a text of a run is not what it was."""
    for found, expected in zip_longest(now.split("\n"), then.split("\n"), fillvalue="nothing"):
        if found != expected:
            raise UserError(f"the {what} is now {found}, expected {expected}, as in the run")


def flat(settings):
    """{"train.epochs": 2, ...}"""
    tree = msgspec.to_builtins(settings)
    inner = {
        f"{name}.{key}": its for name in tree if name != "seed" for key, its in tree[name].items()
    }
    return {"seed": tree["seed"], **inner}


def expect_resumable(old, new):
    """Lines that say which settings have changed.  UserError: one has that may not."""
    was, now = flat(old), flat(new)
    changed = [key for key in was | now if was.get(key) != now.get(key)]
    changed = [key for key in changed if not {key, key.split(".")[0]} & {*MAY_CHANGE}]

    def text(settings, key):
        return repr(settings[key]) if key in settings else "nothing"

    if refused := [key for key in changed if key not in CHANGE_IS_SAID]:
        found = "; ".join(f"{k} = {text(now, k)}, expected {text(was, k)}" for k in refused)
        raise UserError(f"{found} as in the run to be resumed")
    return [f"{key} was {text(was, key)}, is now {text(now, key)}" for key in changed]


def identity(settings, data, ell):
    """The Identity of a run that trains this loss on this data."""
    code = hash_of_code(own_file(settings.model["build"]))
    texts = described(data), outline(ell), code, form_of(data).text()
    return Identity(settings, len(data.train), *texts)


def hash_of_code(file):
    """The SHA-256 of a user's file, and of what was imported from its folder; "" for no file."""
    if not file:
        return ""
    return hashlib.sha256(b"".join(its.read_bytes() for its in sources(file))).hexdigest()


def described(data):
    """The data of a run in some lines, the last of which is a hash of rows from all over it."""
    sha256 = hashlib.sha256()
    for numbers in data.scale, data.shift:
        sha256.update(numbers.tobytes())
    for rows in data.stored_rows():
        sha256.update(str(rows.crc32).encode())  # of all rows, where the file has it
    for split in data.train, data.valid, data.test:
        chosen = np.linspace(0, len(split) - 1, min(SAMPLED, len(split))).astype(int)
        for array in split.pack(split.numbers[chosen]):
            sha256.update(array.tobytes())
    name = data.stored.attribute("name", "no name")
    lines = [f"named {name}", *data.description().split("\n"), f"of rows {sha256.hexdigest()}"]
    return "\n".join(map(visible, lines))
