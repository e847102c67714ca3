"""dpedf.run.config: what a configuration may say, and one line for each thing that is wrong."""

import math
import os
import shlex
import string
import tomllib
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpedf.data import memory
from dpedf.device import CPU
from dpedf.errors import UserError
from dpedf.parallel.ranks import Ranks
from dpedf.run import config, room
from dpedf.run.command_line import from_command_line
from dpedf.run.resume import expect_resumable
from dpedf.run.settings import listing as settings
from dpedf.run.settings import sections
from dpedf.run.settings.consistent import ENDING_LOW, OPTIMIZERS_WITH
from dpedf.run.settings.explain import in_toml, in_words
from dpedf.run.settings.pointless import pointless
from dpedf.run.settings.tree import with_whole_names
from dpedf.run.setup import Setup, assemble

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.toml"))
SOUND = """
seed = 3

[data]
file = "data/digits.h5"

[model]
build = "mlp"
sizes = [64, 10]

[train]
epochs = 2
batch_size = 64
learning_rate = 0.1
"""


@pytest.fixture
def path(tmp_path):
    """A sound config file."""
    path = tmp_path / "sound.toml"
    path.write_text(SOUND)
    return path


# What a file says.


def test_keys_that_are_not_given_have_the_documented_defaults(path):
    found = config.load(path)
    assert found.seed == 3 and found.train.epochs == 2
    assert found.model == {"build": "mlp", "sizes": [64, 10]}
    assert (found.data.valid, found.data.cache) == (0, "none")
    assert (found.train.slices, found.train.momentum) == (8, 0)
    assert (found.train.optimizer, found.train.precision) == ("sgd", "float32")
    assert (found.run.device, found.run.allreduce) == ("auto", "auto")
    assert found.run.dir == "runs/sound"


def test_settings_are_frozen(path):
    with pytest.raises(AttributeError):
        config.load(path).train.epochs = 3


@pytest.mark.parametrize("shipped", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_loads(shipped):
    found = config.load(shipped)
    assert found.run.dir == f"runs/{shipped.stem}"
    recipe = Path("data/text.py" if found.data.window else found.data.file).with_suffix(".py")
    assert (Path(__file__).parents[1] / recipe).exists()


def test_the_configs_that_the_readme_speaks_of_are_shipped():
    names = {"digits", "mnist", "softmax", "slides", "debug"}
    assert names <= {path.stem for path in CONFIGS}


# Overrides.


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.batch_size=32", "train.batch_size", 32),
        ("--train.batch_size=32", "train.batch_size", 32),
        ("train.learning_rate=1e-3", "train.learning_rate", 1e-3),
        ("train.learning_rate=1", "train.learning_rate", 1.0),
        ("seed=1", "seed", 1),
        ("--seed=1", "seed", 1),
        ("run.dir=runs/two words", "run.dir", "runs/two words"),
        ('run.dir="runs/quoted"', "run.dir", "runs/quoted"),
        ("run.dir=a=b", "run.dir", "a=b"),
        ("train.nesterov=true", "train.nesterov", True),
        ("train.schedule=cosine", "train.schedule", "cosine"),
        ("train.optimizer=adamw", "train.optimizer", "adamw"),
        ("train.checkpoint_every=10m", "train.checkpoint_every", "10m"),
        ("train.checkpoint_every=7", "train.checkpoint_every", 7),
        ("model.sizes=[64, 32, 10]", "model.sizes", [64, 32, 10]),
        ("model.activation=tanh", "model.activation", "tanh"),
        # Numbers and truth, as people type them.
        ("train.learning_rate=.1", "train.learning_rate", 0.1),
        ("train.learning_rate=1.", "train.learning_rate", 1.0),
        ("train.learning_rate=+1.e-3", "train.learning_rate", 1e-3),
        ("train.learning_rate=-.0", "train.learning_rate", -0.0),
        ("train.learning_rate=1_000", "train.learning_rate", 1000.0),
        ("model.betas=[.9, 1., True]", "model.betas", [0.9, 1.0, True]),
        ("train.steps=1e3", "train.steps", 1000),
        ("train.steps=2.", "train.steps", 2),
        ("train.steps=0x10", "train.steps", 16),
        ("train.checkpoint_every=1e3", "train.checkpoint_every", 1000),
        ("run.timeout=inf", "run.timeout", math.inf),
        ("train.nesterov=True", "train.nesterov", True),
        ("model.bias=False", "model.bias", False),
        ("model.scale=.5", "model.scale", 0.5),
        ("model.depth=3", "model.depth", 3),
        ("model.rate=2.0", "model.rate", 2.0),
        ('model.names=["v1.", "True"]', "model.names", ["v1.", "True"]),
        # Text stays as it was typed.
        ("run.dir=2024-01-31", "run.dir", "2024-01-31"),
        ("run.dir=3", "run.dir", "3"),
        ("run.dir=1e3", "run.dir", "1e3"),
        ("run.dir=1.", "run.dir", "1."),
        ("run.dir=True", "run.dir", "True"),
        ("run.dir=12:30:00", "run.dir", "12:30:00"),
        ("run.dir=[1]", "run.dir", "[1]"),
        ("run.dir=$HOME/x", "run.dir", "$HOME/x"),
        ("run.dir=runs/.1", "run.dir", "runs/.1"),
        ("data.file=číslice 2.h5", "data.file", "číslice 2.h5"),
        ("model.build=3", "model.build", "3"),
        ("model.build=x.py:f", "model.build", "x.py:f"),
        ("model.day=2024-01-31", "model.day", "2024-01-31"),
        ("model.name=v1.", "model.name", "v1."),
    ],
)
def test_an_override_takes_the_place_of_a_key(path, override, key, value):
    found = msgspec.to_builtins(config.load(path, [override]))
    expected = msgspec.to_builtins(config.load(path))
    *sections, name = key.split(".")
    table = expected
    for section in sections:
        table = table[section]
    table[name] = value
    assert found == expected


def test_the_last_of_two_overrides_holds(path):
    assert config.load(path, ["seed=1", "seed=2"]).seed == 2


def test_an_override_may_give_what_the_file_lacks(path):
    path.write_text(SOUND.replace("batch_size = 64", ""))
    assert config.load(path, ["train.batch_size=5"]).train.batch_size == 5


# What is wrong with a value: the override, and what the line names beside the file.
WRONG = {
    "train.batch_size=1e19": ["train.batch_size = 10000000000000000000", "at most 64 bits"],
    "train.batchsize=3": ["train.batchsize", "batch_size"],
    "learning_rate=.1": ["learning_rate is unknown, expected train.learning_rate"],
    "data.batchsize=3": ["data.batchsize is unknown, expected train.batch_size"],
    "data.file=": ["data.file = ''", "expected text of at least 1 character"],
    "train.larning_rate=3": ["train.larning_rate", "learning_rate"],
    "run.log_evry=3": ["run.log_evry", "log_every"],
    "sed=3": ["sed", "seed"],
    "trian.epochs=3": ["trian", "train"],
    "train.zzzz=3": ["train.zzzz", "batch_size", "epochs", "learning_rate"],
    "train.batch_size=0": ["train.batch_size", "0", "1"],
    "train.batch_size=-1": ["train.batch_size", "-1", "1"],
    "train.batch_size=2.5": ["train.batch_size", "2.5", "a whole number"],
    "train.batch_size=many": ["train.batch_size", "'many'", "a whole number"],
    "train.batch_size=": ["train.batch_size", "''", "a whole number"],
    "train.batch_size=true": ["train.batch_size", "True", "a whole number"],
    "train.batch_size=[64]": ["train.batch_size", "[64]", "a whole number"],
    "train.epochs=-1": ["train.epochs", "-1", "0"],
    "train.epochs=0": ["train.epochs", "0", "1", "train.steps"],
    "train.learning_rate=-0.1": ["train.learning_rate", "-0.1", "0"],
    "train.learning_rate=nan": ["train.learning_rate", "nan"],
    "train.learning_rate=inf": ["train.learning_rate", "inf"],
    "train.learning_rate=fast": ["train.learning_rate", "'fast'", "a number"],
    "train.momentum=1": ["train.momentum", "1", "less than 1"],
    "train.momentum=nan": ["train.momentum", "nan"],
    "train.weight_decay=-1.0": ["train.weight_decay", "-1", "0"],
    "train.grad_clip=-1.0": ["train.grad_clip", "-1", "0"],
    "train.nesterov=yes": ["train.nesterov", "'yes'", "true or false"],
    "train.steps=None": ["train.steps", "'None'", "a whole number"],
    "train.steps=1.5e0": ["train.steps", "1.5", "a whole number"],
    "train.learning_rate=0,1": ["train.learning_rate", "'0,1'", "a number"],
    "train.nesterov=1": ["train.nesterov", "1", "true or false"],
    "train.optimizer=adamm": ["train.optimizer", "'adamm'", "sgd", "adam", "adamw", "rmsprop"],
    "train.betas=0.9": ["train.betas", "0.9", "a list"],
    "train.betas=[0.9]": ["train.betas", "[0.9]", "a list of 2"],
    "train.betas=[0.9, 1.0]": ["train.betas[1] = 1.0", "less than 1"],
    "train.betas=[-0.1, 0.9]": ["train.betas[0] = -0.1", "0"],
    "train.smoothing=1.0": ["train.smoothing", "1", "less than 1"],
    "train.epsilon=0": ["train.epsilon", "0"],
    "train.min_learning_rate=0.2": ["train.min_learning_rate", "0.2", "train.learning_rate", "0.1"],
    "train.decay_rate=10": ["train.decay_rate", "10", "at most 1"],
    "train.schedule=sine": ["train.schedule", "'sine'", "constant", "step", "cosine"],
    "train.precision=float16": ["train.precision", "'float16'", "float32", "float64"],
    "train.checkpoint_every=0": ["train.checkpoint_every", "0", "1"],
    "train.checkpoint_every=10x": ["train.checkpoint_every", "'10x'"],
    "train.checkpoint_every=0m": ["train.checkpoint_every", "'0m'"],
    "train.slices=-8": ["train.slices", "-8", "0"],
    "data.valid=-5": ["data.valid", "-5", "0"],
    "data.cache=disk": ["data.cache", "'disk'", "none", "memory"],
    "data.file=~no-such-user/x.h5": ["data.file", "~no-such-user", "./~"],
    "run.dir=~no-such-user": ["run.dir", "~no-such-user"],
    "model.build=~no-such-user/m.py:f": ["model.build", "~no-such-user"],
    "run.device=tpu": ["run.device", "'tpu'", "auto", "cpu", "gpu"],
    "run.allreduce=ring": ["run.allreduce", "'ring'", "auto"],
    "run.log_every=0": ["run.log_every", "0", "1"],
    "run.timeout=0": ["run.timeout", "0"],
    "run.timeout=nan": ["run.timeout", "nan"],
    "seed=-1": ["seed", "-1", "0"],
    "seed=1.5": ["seed", "1.5", "a whole number"],
    "seed=18446744073709551616": ["seed", "18446744073709551616"],
    "seed=2026-01-01": ["seed = 2026-01-01", "a whole number"],
    "train=3": ["train", "3"],
    "seed={}": ["seed", "{}"],
    "model=mlp": ["model", "'mlp'"],
    "data=[1, 2]": ["data", "[1, 2]"],
}


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_value_is_one_line_with_file_key_found_and_expected(path, override, refused):
    with refused(path, *WRONG[override]):
        config.load(path, [override])


# What people mean by a value that is wrong: the override, and what the line proposes.
MEANT = {
    "train.precision=fp32": 'perhaps "float32"',
    "train.precision=double": 'perhaps "float64"',
    "train.steps=10k": "perhaps 10000",
    "train.steps=1.5K": "perhaps 1500",
    "train.steps=60,000": "perhaps 60000",
    "train.steps='7'": "perhaps 7",
    "train.steps=None": "perhaps 0",
    "train.momentum=5%": "perhaps 0.05",
    "train.learning_rate=0,1": "perhaps 0.1",
    "train.nesterov=yes": "perhaps true",
    "run.check_nan=OFF": "perhaps false",
    "train.optimizer=Adam": 'perhaps "adam"',
    "train.precision=“float64”": 'perhaps "float64"',
    "train.steps=1e-3": "train.steps = 1e-3, expected a whole number, at least 0",
    "train.momentum=-1e-3": "train.momentum = -1e-3, expected at least 0",
    "train.learning_rate=inf": "expected at most 1e9",
    "train.checkpoint_every=10min": 'a whole number, at least 1, or a time such as "10m"',
    "train.betas=0.9,0.99,0.999": "a list of 2, each a number, at least 0 and less than 1",
    "epochs=3": "epochs is unknown, expected train.epochs=3",
    "lr=0.1": "lr is unknown, expected train.learning_rate=0.1",
    "train.lr=0.1": "train.lr is unknown, expected train.learning_rate=0.1",
    "bs=8": "bs is unknown, expected train.batch_size=8",
    "train.batch-size=8": "expected train.batch_size=8",
    "run.max_epochs=8": "expected train.epochs=8",
    "Train.epochs=3": "Train is unknown, expected train.epochs=3",
    "sizes=[64,10]": "expected a section before it, such as model.sizes=[64,10]",
    "model.sizes=[64,10": "expected a ] for each [",
    "model.sizes=(64,10": "expected a ) for each (",
}


@pytest.mark.parametrize("override", MEANT)
def test_a_wrong_value_is_answered_with_the_one_that_was_meant(path, override, refused):
    with pytest.raises(UserError) as caught:
        config.load(path, [override])
    assert MEANT[override] in str(caught.value) and str(caught.value).isprintable()


def test_what_is_proposed_is_taken(path):
    for override, answer in MEANT.items():
        key, _, value = answer.rpartition("expected ")[2].partition("=")
        if answer.startswith("perhaps "):
            key, value = override.partition("=")[0], answer.removeprefix("perhaps ")
        if value and " " not in key:
            config.load(path, [f"{key}={value}"])


# The settings that not every optimizer has.
OF_OPTIMIZERS = {
    "train.momentum=0.9": {"sgd", "rmsprop"},
    "train.nesterov=true": {"sgd"},
    "train.betas=[0.8, 0.99]": {"adam", "adamw"},
    "train.epsilon=1e-6": {"adam", "adamw", "rmsprop"},
    "train.smoothing=0.9": {"rmsprop"},
    "train.weight_decay=0.1": {"sgd", "adam", "adamw", "rmsprop"},
}


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("override", OF_OPTIMIZERS)
def test_a_setting_that_the_optimizer_does_not_have_is_refused(path, optimizer, override, refused):
    overrides, key = [f"train.optimizer={optimizer}", override], override.partition("=")[0]
    if optimizer in OF_OPTIMIZERS[override]:
        config.load(path, overrides)
    else:
        with refused(path, key, repr(optimizer), *OF_OPTIMIZERS[override]):
            config.load(path, overrides)


@pytest.mark.parametrize(
    "override", ["train..epochs=3", "train.batch_size", "--resum", "=3", "train.=3", "", "."]
)
def test_an_override_that_is_none_is_shown_as_it_was_given(path, override, refused):
    with refused(override, "section.key=value"):
        config.load(path, [override])


def test_a_key_below_a_value_is_refused(path, refused):
    with refused("seed.deep=3", "seed"):
        config.load(path, ["seed.deep=3"])
    with refused("train.epochs.many=3", "epochs"):
        config.load(path, ["train.epochs.many=3"])


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("batch_size = 64", "train.batch_size"),
        ("learning_rate = 0.1", "train.learning_rate"),
        ('file = "data/digits.h5"', "data.file"),
        ('build = "mlp"', "model.build"),
        ("epochs = 2", "train.epochs"),
    ],
)
def test_a_missing_key_is_named(path, line, key, refused):
    assert line in SOUND
    path.write_text(SOUND.replace(line, ""))
    with refused(path, key):
        config.load(path)


@pytest.mark.parametrize("section", ["data", "model", "train"])
def test_a_missing_section_is_named(path, section, refused):
    before, after = SOUND.split(f"[{section}]")
    path.write_text(before + "".join(after.partition("\n[")[1:]))
    with refused(path, section):
        config.load(path)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (SOUND + "momentum = = 3\n", 15),
        (SOUND + "epochs = 3\n", 15),
        ("[data\n" + SOUND, 1),
        (SOUND.replace("0.1", "0,1"), 14),
    ],
    ids=["a second sign", "a second value", "no bracket", "a comma"],
)
def test_what_is_no_toml_is_named_by_its_line(path, text, line, refused):
    path.write_text(text)
    with refused(path, f"line {line}", "TOML"):
        config.load(path)


# A line of the file in place of learning_rate = 0.1, and what is said of it.
LINES = {
    "nesterov = True": "perhaps nesterov = true",
    "learning_rate = .1": "perhaps learning_rate = 0.1",
    "learning_rate = 5% # of it": "perhaps learning_rate = 0.05",
    "optimizer = adam": 'perhaps optimizer = "adam"',
    "betas = (0.9, 0.99)": "perhaps betas = [0.9, 0.99]",
    "epochs: 3": "key = value",
    'precision = "C:\\data"': "/ between folders",
    "[train]": "a second time",
    "batch_size = 8": "a second time",
    "learning_rate = 0.1;": "newline",
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_that_is_no_toml_is_shown_with_what_was_expected(path, line, refused):
    path.write_text(SOUND.replace("learning_rate = 0.1", line))
    with refused(path, f"line 14, {line!r}", LINES[line], "TOML"):
        config.load(path)


def test_a_number_of_the_file_that_is_right_but_for_its_type_is_said(path, refused):
    for value, found in ('"3"', "'3'"), ("3.0", "3.0"):
        path.write_text(SOUND.replace("epochs = 2", f"epochs = {value}"))
        with refused(path, f"train.epochs = {found}, expected a whole number", "perhaps 3"):
            config.load(path)
    path.write_text(SOUND.replace("[train]", "[Train]"))
    with refused(path, "Train is unknown, expected train"):
        config.load(path)
    path.write_text(SOUND.replace("seed", "epochs", 1))
    with refused(path, "epochs is unknown, expected train.epochs"):
        config.load(path)


@pytest.mark.parametrize(("name", "kind"), [("c.json", "JSON"), ("c.yml", "YAML"), ("c", "JSON")])
def test_a_config_in_another_language_is_named(tmp_path, name, kind, refused):
    path = tmp_path / name
    path.write_text("train:\n  epochs: 3\n" if kind == "YAML" else '{"train": {"epochs": 3}}')
    with refused(path, f"{kind}, expected TOML"):
        config.load(path)


def test_bytes_that_are_no_text_are_no_toml(path, refused):
    for encoding in "utf-16-le", "utf-16-be":
        path.write_bytes(f"\ufeff{SOUND}".encode(encoding))
        with refused(path, "text in UTF-16", "TOML"):
            config.load(path)
    path.write_bytes(SOUND.replace("digits", "číslice").encode("iso8859-2"))
    with refused(path, "line 5 is not in UTF-8", "TOML"):
        config.load(path)


def test_lines_may_end_as_on_windows(path):
    before = config.load(path)
    path.write_bytes(SOUND.replace("\n", "\r\n").encode())
    assert config.load(path) == before


def test_a_tilde_is_the_folder_of_a_user(path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    paths = "data.file=~/a.h5", "run.dir=~", "model.build=~/my models/m.py:f"
    found = config.load(path, paths)
    assert (found.data.file, found.run.dir) == ("/home/me/a.h5", "/home/me")
    assert found.model["build"] == "/home/me/my models/m.py:f"
    path.write_text(SOUND.replace("data/digits", "~root/digits"))
    assert config.load(path, ["run.dir=a~"]).data.file == os.path.expanduser("~root/digits.h5")


def test_a_config_below_a_folder_with_a_sign_of_equality_is_found(tmp_path):
    (folder := tmp_path / "lr=0.1").mkdir()
    (folder / "c.toml").write_text(SOUND)
    found, settings, _ = from_command_line([str(folder / "c.toml"), "seed=4"])
    assert found == str(folder / "c.toml") and settings.seed == 4


# Words as a shell leaves them, and what they are.
WORDS = {
    "model.sizes=[64, 100, 10]": ("model.sizes", [64, 100, 10]),
    "model.sizes=[ 64 , 10 ]": ("model.sizes", [64, 10]),
    "model.sizes=64,100,10": ("model.sizes", [64, 100, 10]),
    "model.sizes=(64,100,10)": ("model.sizes", [64, 100, 10]),
    "model.names=[Phi1,Phi2]": ("model.names", ["Phi1", "Phi2"]),  # without their quotes
    "model.name=a,b": ("model.name", "a,b"),
    'model.sizes="[64,10]"': ("model.sizes", [64, 10]),  # quotes that came along
    'run.dir="[64]"': ("run.dir", "[64]"),
    "run.dir=1,2": ("run.dir", "1,2"),
    "train.betas=(0.9,0.99) train.optimizer=adam": ("train.betas", (0.9, 0.99)),
    "train.betas=.9,.99 train.optimizer=adam": ("train.betas", (0.9, 0.99)),
    "train.epochs = 3": ("train.epochs", 3),
    "train.epochs =3": ("train.epochs", 3),
    "--train.epochs=3": ("train.epochs", 3),
    "--train.epochs = 3": ("train.epochs", 3),
    "seed = -3e0 --seed=5": ("seed", 5),
    "'train.epochs=3'": ("train.epochs", 3),
    "train.nesterov=TRUE": ("train.nesterov", True),
    "train.steps=1_000": ("train.steps", 1000),
    'train.schedule="cosine"': ("train.schedule", "cosine"),
}


@pytest.mark.parametrize("text", WORDS)
@pytest.mark.parametrize("first", [True, False], ids=["CONFIG first", "CONFIG last"])
def test_words_are_taken_as_a_shell_divides_them_in_any_order(path, text, first):
    key, value = WORDS[text]
    words = text.split(" ")
    words = [str(path), *words, "--resume"] if first else ["--resume", *words, f'"{path}"']
    found, settings, flags = from_command_line(words)
    assert (found, flags) == (str(path), {"--resume"})
    section, _, name = key.rpartition(".")
    if section == "model":
        assert settings.model[name] == value
    else:
        assert getattr(getattr(settings, section) if section else settings, name) == value


# Words beside CONFIG, and what is said of them.
REFUSED = {
    "--reusme": "expected --resume",
    "--overwirte": "expected --overwrite",
    "--no-such-option": "--no-such-option is unknown",
    "--resume=yes": "--resume takes no value",
    "--resume --overwrite": "expected one of them",
    "--epochs 3": "--epochs is unknown, expected train.epochs=3",
    "--epochs=3": "expected train.epochs=3",
    "--train.epochs 3": "expected train.epochs=3",
    "--lr 0.1": "expected train.learning_rate=0.1",
    "--batch-size 8": "expected train.batch_size=8",
    "--seed 3": "expected seed=3",
    "-n 4": "expected mpirun -n 4",
    "--config c.toml": "expected c.toml alone",
    "train.epochs:3": "expected train.epochs=3",
    "train.epochs 3": "expected train.epochs=3",
    "epochs:3": "expected train.epochs=3",
    "train.epochs= 3": "expected no blank",
    "model.sizes=[784, 100": "model.sizes=[784, 100: expected a ] for each [",
    "other.toml": "expected one CONFIG",
}


@pytest.mark.parametrize("text", REFUSED)
def test_words_that_cannot_be_taken_are_answered_with_those_that_can(path, text, refused):
    for words in [str(path), *text.split()], [*text.split(), str(path)]:
        with refused(REFUSED[text]):
            from_command_line(words)


def test_a_config_that_is_missing_or_given_twice_is_said(path, monkeypatch, refused):
    for words in [], [""], ["--resume"], ["train.epochs=3"]:
        with refused("CONFIG", "required", "configs/mnist.toml"):
            from_command_line(words)
    monkeypatch.chdir(path.parent)  # whose own path may be too long for a line
    with refused(f"{path.name} and {path.name}", "expected one CONFIG"):
        from_command_line([path.name, path.name])


def test_the_directory_of_a_run_is_answered_with_the_command_that_goes_on(tmp_path, refused):
    with refused(tmp_path, "a directory"):
        from_command_line([str(tmp_path)])
    run = tmp_path / "a run"
    run.mkdir()
    (run / "config.toml").write_text(SOUND + '[run]\ndir = "elsewhere"\n')
    with pytest.raises(UserError) as caught:
        from_command_line([str(run), "--resume"])
    command = shlex.split(str(caught.value).partition("to go on with the run: ")[2])
    assert command[:2] == ["dpedf", "train"]
    _, settings, flags = from_command_line(command[2:])
    assert (settings.run.dir, flags) == (str(run), {"--resume"})


def test_a_path_of_windows_is_answered_with_one_of_here(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for name in "c.toml", "d.h5":
        (tmp_path / "data" / name).write_text(SOUND)
    with refused("data\\c.toml", "expected data/c.toml"):
        config.load("data\\c.toml")
    with refused("data.file", "expected data/d.h5"):
        config.load("data/c.toml", ["data.file=data\\d.h5"])


# Every setting in words.


def test_the_page_of_settings_is_current():
    page = Path(__file__).parents[1] / "docs" / "settings.md"
    assert page.read_text() == settings.page(), "run python -m dpedf.run.settings.listing"


def test_the_examples_of_the_page_are_one_config(path):
    path.write_text("\n".join(example for _, example in settings.SECTIONS.values()))
    assert config.load(path).model["sizes"] == [784, 128, 10]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_help_lists_each_setting_with_meaning_type_and_default_in_few_columns(width):
    lines = settings.listing(width).splitlines()
    assert max(map(len, lines)) <= width
    words = " ".join(" ".join(lines).split())
    for key, field in sections.FIELDS.items():
        if "." in key or key == "seed":
            meaning, kind = field.type.__metadata__[-1], in_words(field.type).removeprefix("a ")
            default = "required"
            if not field.required:
                default = f"default {in_toml(sections.DEFAULTS[key])}"
            assert f" {key.rpartition('.')[2]} {meaning} ({kind}; {default})" in words
    assert "mlp sizes, activation" in words


def test_types_are_said_in_words():
    types, defaults = sections.TYPES, sections.DEFAULTS
    assert in_words(types["train.batch_size"]) == "a whole number, at least 1"
    assert in_words(types["train.decay_rate"]) == "a number, from 0 to 1"
    assert in_words(types["train.momentum"]) == "a number, at least 0 and less than 1"
    assert in_words(types["data.cache"]) == "one of none, memory, device"
    assert in_words(types["run.check_nan"]) == "true or false"
    assert in_words(list[str]) == "a list, each text"
    assert in_words(tuple[int, ...]) == "a list, each a whole number"
    shown = [in_toml(defaults[f"train.{key}"]) for key in ("betas", "epsilon", "nesterov")]
    assert shown == ["[0.9, 0.999]", "1e-8", "false"]
    for value in 1e9, 1e100, 1e-10, -1.5e-05, 1e20, 0.1, 10.0:
        assert tomllib.loads(f"x = {in_toml(value)}")["x"] == value


def test_text_is_read_as_utf_8_in_any_locale(path, python):
    path.write_text(SOUND.replace("digits", "číslice"), "utf-8")
    code = (
        "import sys; from dpedf.run import config; print(ascii(config.load(sys.argv[1]).data.file))"
    )
    ran = python("-X", "utf8=0", "-c", code, path, LC_ALL="C", PYTHONCOERCECLOCALE="0")
    assert (ran.stdout, ran.stderr) == (ascii("data/číslice.h5") + "\n", "")


def test_a_file_that_is_not_there_or_is_none_is_named(tmp_path, refused):
    with refused(tmp_path / "nowhere.toml", "No such file"):
        config.load(tmp_path / "nowhere.toml")
    with refused(tmp_path, "directory"):
        config.load(tmp_path)
    (tmp_path / "digits.toml").touch()
    with refused(tmp_path / "digist.toml", f"expected {tmp_path / 'digits.toml'}"):
        config.load(tmp_path / "digist.toml")
    (tmp_path / "empty.toml").touch()
    with refused(tmp_path / "empty.toml", "data"):
        config.load(tmp_path / "empty.toml")


MANY = 500, 15_000  # brackets in each other
HOSTILE = {
    **{f"{n} lists": SOUND + "x = " + n * "[" + n * "]" for n in MANY},
    **{f"{n} tables": SOUND + "x = " + n * "{a = " + n * "}" for n in MANY},
    "500 dotted keys": SOUND.replace("sizes", 500 * "a." + "a"),
    "500 names of a section": SOUND + f"[{500 * 'a.'}a]",
    "a huge file": SOUND + 100_000 * "#",
    "a number of 400 digits": SOUND.replace("epochs = 2", f"epochs = {10**400}"),
    "a number of 5,000 digits": SOUND.replace("epochs = 2", f"epochs = 1{5000 * '0'}"),
    "a number of 20,000 bits": SOUND.replace("epochs = 2", f"epochs = 0x{5000 * 'f'}"),
    "a rate of 400 digits": SOUND.replace("0.1", str(10**400)),
    "a rate that is infinite": SOUND.replace("0.1", "1e400"),
    "NUL in a name": SOUND.replace("digits.h5", "\\u0000"),
    "a surrogate": SOUND.replace("digits.h5", "\\ud800"),
    "a key of two lines": SOUND + '"a\\nb" = 1',
    "a key that sounds like a place": SOUND + '"a` - at `$.train" = 1',
    "an escape sequence as a key": SOUND + '"\\u001b[31m" = 1',
    "an escape sequence as a value": SOUND.replace("epochs = 2", 'epochs = "\\u001b[31m"'),
    "control characters": SOUND + "\x1b[31m\x07",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_nobody_means_is_one_line_that_can_be_printed(path, what):
    path.write_text(HOSTILE[what])
    with pytest.raises(UserError) as caught:
        config.load(path)
    line = str(caught.value)
    assert line.isprintable() and len(line.removeprefix(str(path))) < 350


@pytest.mark.parametrize(
    "word",
    [
        5000 * "a." + "b=1",
        "model.sizes=" + 500 * "[" + 500 * "]",
        "\udcff",
        "run.dir=\udcff",
        "train.\udcff=1",
        "a\nb=1",
        "train.epochs=1\n[run]",
        "train.epochs=1\nx=1",
        "train.epochs=" + 5000 * "9",
        "model.__class__.x.\x1b=\0",
    ],
    ids=range(10),
)
def test_a_word_that_nobody_means_is_one_line_that_can_be_printed(path, word):
    with pytest.raises(UserError) as caught:
        from_command_line([str(path), word])
    line = str(caught.value)
    assert line.isprintable() and len(line.removeprefix(str(path))) < 350


def test_a_pipe_or_a_device_is_not_waited_for(tmp_path, refused):
    os.mkfifo(tmp_path / "pipe")
    for path in tmp_path / "pipe", "/dev/zero":
        with refused(path, "no regular file"):
            config.load(path)


def test_a_byte_order_mark_is_none_of_the_text(path):
    path.write_bytes(b"\xef\xbb\xbf" + SOUND.encode())
    assert config.load(path).seed == 3


NOISE = [
    *("0", "-1", "1e400", "nan", "true", '""', "[]", "{}", "1979-05-27", str(10**400), "[[[[]]]]"),
    *(
        '"\\u001b[31m"',
        '"\\u0000"',
        '"ü\u202e"',
        "\x1b",
        "=",
        "[x]",
        "a.b.c = 1",
        '"""',
        "10000000000000",
    ),
]


def mutated(lines, random):
    """The lines of a config, one of them otherwise."""
    i, j, noise = random.randrange(len(lines)), random.randrange(len(lines)), random.choice(NOISE)
    key, equals, value = lines[i].partition(" = ")
    other = lines[j].partition(" = ")[2]
    line = random.choice(
        [
            *([], [lines[i], lines[i]], [lines[j]], [f"{key} = {noise}"], [f"{key} = {other}"]),
            *([f"{noise} = {value}"], [f"{key}x = {value}"], [noise], [value], [lines[i][:-1]]),
        ]
    )
    return lines[:i] + line + lines[i + 1 :]


def test_a_mutated_config_is_taken_or_refused_in_one_line(tmp_path, digits, few=300):
    random = Random(0)
    for number in range(few):
        config_file = random.choice(CONFIGS)
        path = tmp_path / config_file.name
        lines = config_file.read_text().splitlines()
        for _ in range(random.choice([1, 1, 2, 3])):
            lines = mutated(lines, random) or [""]
        path.write_text("\n".join(lines))
        try:
            settings = config.load(path)
            data = msgspec.structs.replace(settings.data, file=str(digits), window=0, valid=0)
            assemble(msgspec.structs.replace(settings, data=data), CPU())
        except UserError as error:
            line = str(error).removeprefix(str(path))
            assert "\n" not in line and line.isprintable(), (number, line)


# Whatever is said.

NAMES = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=8)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0~"), max_size=20)
PLAIN = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | TEXT
VALUES = st.recursive(
    PLAIN, lambda v: st.lists(v, max_size=3) | st.dictionaries(NAMES, v), max_leaves=5
)


def sound(type):
    """Values that a type of the settings takes."""
    kind = msgspec.inspect
    match type:
        case kind.IntType():
            return st.integers(type.ge or 0, 2**63 - 1)
        case kind.FloatType():
            low = type.ge if type.gt is None else type.gt
            high = type.le if type.lt is None else type.lt
            return st.floats(
                low, high, exclude_min=type.gt is not None, exclude_max=type.lt is not None
            )
        case kind.BoolType():
            return st.booleans()
        case kind.LiteralType():
            return st.sampled_from(type.values)
        case kind.StrType():
            least = type.min_length or 0
            some = TEXT.filter(lambda text: len(text) >= least)
            return st.from_regex(type.pattern, fullmatch=True) if type.pattern else some
        case kind.UnionType():
            return st.one_of(map(sound, type.types))
        case kind.TupleType():
            return st.tuples(*map(sound, type.item_types))
        case kind.DictType(value_type=kind.FloatType()):
            return st.dictionaries(NAMES, sound(type.value_type), max_size=4)
        case kind.VarTupleType():
            return st.lists(sound(type.item_type), max_size=4).map(tuple)
        case kind.ListType():
            return st.lists(sound(type.item_type), max_size=4)
        case kind.DictType():  # what is said of every model, and keywords of this one
            names = NAMES.filter(lambda name: name not in sections.OF_EVERY_MODEL)
            keywords = st.dictionaries(names, VALUES, max_size=4)
            known = sound(msgspec.inspect.type_info(sections.OfEveryModel))
            return st.builds(lambda its, more: its | more | {"build": "mlp"}, keywords, known)
        case kind.TypedDictType():
            fields = {field.name: sound(field.type) for field in type.fields}
            return st.fixed_dictionaries({}, optional=fields)
        case kind.StructType():
            fields = {field.name: sound(field.type) for field in type.fields}
            return st.builds(type.cls, **fields)
    raise TypeError(type)


def consistent(settings):
    """These settings, but with the defaults of what their optimizer does not have."""
    train = settings.train
    changes = {
        field.name: field.default
        for field in msgspec.structs.fields(train)
        if train.optimizer not in OPTIMIZERS_WITH.get(field.name, (train.optimizer,))
    }
    least = min(train.min_learning_rate, train.learning_rate)
    changes["min_learning_rate"] = least if train.schedule in ENDING_LOW else 0.0
    changes["warmup_steps"] = 0 if train.schedule == "onecycle" else train.warmup_steps
    return msgspec.structs.replace(settings, train=msgspec.structs.replace(train, **changes))


SETTINGS = (
    sound(msgspec.inspect.type_info(sections.Config))
    .filter(lambda settings: settings.run.dir and (settings.train.epochs or settings.train.steps))
    .map(consistent)
)


def same(one, other, whole=False):
    """Equal, nan being equal to nan; whole: a float of one may be a whole number of the other."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k], whole) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(
            same(*pair, whole) for pair in zip(one, other, strict=True)
        )
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    if whole and isinstance(one, float) and type(other) is int:
        return one == float(other)
    return type(one) is type(other) and one == other


@given(settings=SETTINGS)
def test_the_text_of_a_config_loads_as_the_same_config(settings, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "round.toml"
    path.write_text(config.text(settings), "utf-8")
    assert same(msgspec.to_builtins(config.load(path)), msgspec.to_builtins(settings))


KEYS = ["seed", "data", "model", "train", "run", "model.build", "model.sizes"] + [
    f"{section.name}.{field.name}"
    for section in msgspec.structs.fields(sections.Config)
    if isinstance(section.type, type) and issubclass(section.type, msgspec.Struct)
    for field in msgspec.structs.fields(section.type)
]


@given(key=st.sampled_from(KEYS) | NAMES, value=VALUES)
def test_any_value_of_any_key_is_taken_or_refused_in_one_line(key, value, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    tree = {"run": {}} | tomllib.loads(SOUND)
    *sections, name = key.split(".")
    table = tree[sections[0]] if sections else tree
    table[name] = value
    path.write_text(msgspec.toml.encode(tree).decode(), "utf-8")
    try:
        found = msgspec.to_builtins(config.load(path))
    except UserError as error:
        line = str(error)
        assert line.startswith(f"{path}: ") and key in line and "\n" not in line
    else:
        value = with_whole_names(tree)
        for name in key.split("."):
            found, value = found[name], value[name]
        if isinstance(value, dict) and not sections:  # a section, whose defaults are filled in
            found = {name: found[name] for name in value}
        assert same(found, value, whole=True) or (key, value) == ("run.dir", "")


# A run that goes on.


@pytest.mark.parametrize(
    "override",
    [
        "seed=4",
        "data.valid=7",
        "train.batch_size=32",
        "train.precision=float64",
        "train.optimizer=adam",
        "train.momentum=0.5",
    ],
)
def test_a_run_does_not_go_on_with_another_of(path, override, refused):
    key, _, value = override.partition("=")
    old, new = config.load(path), config.load(path, [override])
    expect_resumable(old, old)
    with refused(key, value, "resume"):
        expect_resumable(old, new)


@pytest.mark.parametrize(
    ("optimizer", "key", "value"),
    [
        ("adam", "train.betas", (0.9, 0.99)),
        ("adamw", "train.epsilon", 1e-06),
        ("rmsprop", "train.smoothing", 0.9),
    ],
)
def test_an_optimizer_does_not_go_on_with_another_of(path, optimizer, key, value, refused):
    old = config.load(path, [f"train.optimizer={optimizer}"])
    train = msgspec.structs.replace(old.train, **{key.removeprefix("train."): value})
    with refused(key, value, "resume"):
        expect_resumable(old, msgspec.structs.replace(old, train=train))


def test_a_run_may_go_on_for_longer_and_elsewhere(path):
    old = config.load(path)
    new = ["train.epochs=9", "run.dir=x", "run.log_every=3", "train.learning_rate=0.01"]
    expect_resumable(old, config.load(path, new))


def test_a_rate_to_end_with_is_of_the_cosine_schedule(tmp_path, refused):
    text = '[data]\nfile = "x"\n[model]\nbuild = "mlp"\n[train]\nepochs = 1\nbatch_size = 1\n'
    (tmp_path / "c.toml").write_text(text + "learning_rate = 0.1\nmin_learning_rate = 0.01\n")
    with refused("train.min_learning_rate = 0.01", "expected none", "constant"):
        config.load(tmp_path / "c.toml")
    assert config.load(tmp_path / "c.toml", ["train.schedule=cosine"]).train.schedule == "cosine"


# Settings that are legal and pointless.


@pytest.mark.parametrize(
    "slices, B, rows, expected", [(8, 64, 99, 8), (8, 3, 99, 3), (9, 64, 5, 5)]
)
def test_a_minibatch_has_no_more_slices_than_rows(slices, B, rows, expected):
    train = sections.TrainSection(batch_size=B, learning_rate=0.1, slices=slices)
    assert config.slices(train, rows) == expected
    assert config.slices(msgspec.structs.replace(train, slices=0), rows) == 0


POINTLESS = {
    "train.slices=65": "train.slices = 65: the 64 rows of a minibatch make 64 slices",
    "train.batch_size=81": "train.batch_size = 81: there are 80 rows to learn from",
    "train.slices=0": "train.slices = 0 on 5 ranks: the bits depend on",
    "train.slices=4": "train.slices = 4: 1 of 5 ranks gets no rows",
    "train.batch_size=3": "train.batch_size = 3: 2 of 5 ranks get no rows",
    "train.warmup_steps=9": "train.warmup_steps = 9: train.learning_rate is not reached in 4 steps",
    "train.decay_steps=7": "train.decay_steps = 7: only the schedule 'step' has it",
    "train.schedule=step": "train.decay_steps = 1000: the learning rate does not fall in 4 steps",
    "train.nesterov=true": "train.nesterov = true: without train.momentum it changes nothing",
    "train.eval_every=5": "train.eval_every = 5: the run ends at step 4",
    "data.valid=3": "data.valid = 3: d.h5 has a group valid, which is taken",
}


@pytest.mark.parametrize("word", POINTLESS)
def test_a_setting_that_is_legal_and_pointless_is_said_in_one_line(word, path):
    """In a run of two epochs of 64 of 80 rows, on 5 ranks, with 10 rows to validate."""
    stored = SimpleNamespace(has=lambda name: True)
    data = SimpleNamespace(train=range(80), valid=range(10), stored=stored, path="d.h5")
    assert not [*pointless(config.load(path), data, 5)]
    first, *more = pointless(config.load(path, [word]), data, 5)
    assert POINTLESS[word] in "".join([first, *more]) and (not more or word == "train.batch_size=3")


# What this machine cannot do.


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("run.threads=1000000", ["run.threads = 1000000", "cores"]),
        ("model.sizes=[64, 1000000000, 10]", ["model", "1000000000", "free memory"]),
        ("model.sizes=[64, 100000000000000000000, 10]", ["model.sizes", "64 bits"]),
        ("model.sizes=[64, 9223372036854775807, 10]", ["model", "too big"]),
    ],
)
def test_what_the_machine_cannot_do_is_one_line(tmp_path, digits, override, found, refused):
    path = tmp_path / "large.toml"
    path.write_text(SOUND.replace("data/digits.h5", str(digits)))
    with refused(path, *found):
        Setup([str(path), f"run.dir={tmp_path}/run", override], Ranks())


def test_parameters_and_rows_that_memory_cannot_hold_are_refused_before_it_is_asked_for(
    tmp_path, digits, refused, monkeypatch
):
    path = tmp_path / "large.toml"
    path.write_text(SOUND.replace("data/digits.h5", str(digits)))
    expect = memory.expect_memory

    def expect_within(there, what, nbytes):
        with monkeypatch.context() as patch:
            patch.setattr(memory, "available", lambda: there)
            expect(what, nbytes)

    for there, found in (5199, "model: 650 parameters"), (5201, "train.batch_size: 64 rows"):
        monkeypatch.setattr(room, "expect_memory", partial(expect_within, there))
        with refused(path, found, "of free memory"):
            Setup([str(path), f"run.dir={tmp_path}/run", "train.slices=0"], Ranks())
