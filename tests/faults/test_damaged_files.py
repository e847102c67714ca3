"""Checkpoints, data files and configurations that were damaged: noticed, or without any effect."""

import shutil
from random import Random

import h5py
import pytest
from damage import damaged, ended, expect_one_line
from launcher import ROOT

each_number = pytest.mark.parametrize("count", [12, pytest.param(300, marks=pytest.mark.slow)])
DIGITS = ROOT / "configs" / "digits_mlp.toml"
SHORT = "train.epochs=0", "train.batch_size=200"


@pytest.fixture
def go(environment, tmp_path):
    """go(commands): how runs with these command lines ended, in an empty folder."""
    return lambda commands: ended(commands, environment, tmp_path)


def sha256(run):
    """Of a run that came to its end; what a damaged file may not change."""
    assert run.status == 0, run
    return run.said.rpartition("phi_sha256 ")[2]


@each_number
def test_a_damaged_checkpoint_is_noticed_or_changes_nothing(count, digits, go, tmp_path):
    common, run, random = [DIGITS, f"data.file={digits}", *SHORT], tmp_path / "run", Random(count)
    first = "train.steps=10", "train.checkpoint_every=5", "train.schedule=constant"
    whole, _ = go([[*common, *first[1:], "train.steps=15"], [*common, *first, f"run.dir={run}"]])
    commands = []
    for k in range(count):
        copy = shutil.copytree(run, tmp_path / str(k))
        struck = random.choice(
            [["checkpoint.h5"], ["checkpoint.h5"], [*map(str, copy.glob("*.h5"))]]
        )
        for name in struck:
            (copy / name).write_bytes(damaged((copy / name).read_bytes(), random))
        commands.append([*common, *first[1:], "train.steps=15", f"run.dir={copy}", "--resume"])
    for ran in go(commands):
        if ran.status:
            expect_one_line(ran)
        else:
            assert sha256(ran) == sha256(whole)


def files_of_three_layouts(digits, folder):
    """Copies of a data file: as it is written, in chunks, and in compressed chunks.

    All have checksums of their rows and, from version 1.10 of HDF5's format on, of the rest.
    """
    yield shutil.copy(digits, folder / "plain.h5")
    layouts = {"chunked": {"chunks": True}, "packed": {"compression": "gzip"}}
    for name, layout in layouts.items():
        path = folder / f"{name}.h5"
        with h5py.File(digits) as whole, h5py.File(path, "w", libver="v110") as copy:
            copy.attrs.update(whole.attrs)
            for dataset in "train/x", "train/y", "test/x", "test/y":
                copy.create_dataset(dataset, data=whole[dataset], fletcher32=True, **layout)
        yield folder / f"{name}.h5"


@each_number
def test_a_damaged_data_file_is_noticed_or_changes_nothing(count, digits, go, tmp_path):
    random, sources = Random(count), [*files_of_three_layouts(digits, tmp_path)]
    common = [DIGITS, *SHORT, "train.steps=3", "model.sizes=[64,10]", "data.valid=50"]
    commands = [[*common, f"data.file={file}", f"run.dir={file}.run"] for file in sources]
    whole = go(commands)
    commands, chosen = [], []
    for k in range(count):
        chosen.append(random.randrange(len(sources)))
        file, cache = tmp_path / f"{k}.h5", random.choice(["none", "memory"])
        file.write_bytes(damaged(sources[chosen[-1]].read_bytes(), random))
        commands.append(
            [*common, f"data.file={file}", f"data.cache={cache}", f"run.dir={tmp_path / str(k)}"]
        )
    for ran, source in zip(go(commands), chosen, strict=True):
        if ran.status:
            expect_one_line(ran)
        else:
            assert sha256(ran) == sha256(whole[source])


WORDS = [
    "0",
    "-1",
    "1e400",
    "nan",
    "'a'",
    "true",
    "[]",
    "{}",
    "[[1]]",
    "''",
    "99999999999999999999",
]


def mutated(text, random):
    """A configuration in which something is missing, twice, in the wrong place, or strange."""
    lines = text.splitlines()
    for _ in range(random.choice([1, 1, 2, 3])):
        at, other = random.randrange(len(lines)), random.randrange(len(lines))
        kind = random.choice(["drop", "repeat", "swap", "value", "character", "key"])
        if kind == "drop":
            lines[at] = ""
        elif kind == "repeat":
            lines.insert(other, lines[at])
        elif kind == "swap":
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == "value" and "=" in lines[at]:
            lines[at] = f"{lines[at].partition('=')[0]}= {random.choice(WORDS)}"
        elif kind == "key":
            lines[at] = lines[at].replace("_", "", 1)
        elif lines[at]:
            here = random.randrange(len(lines[at]))
            strange = random.choice(["\x1b[31m", "\0", "ü", "]", '"', "\u202e", "'" * 3, "\\"])
            lines[at] = lines[at][:here] + strange + lines[at][here:]
    return "\n".join(lines)


@each_number
def test_a_mutated_configuration_is_refused_in_one_line_or_trains(count, digits, go, tmp_path):
    random, commands = Random(count), []
    configs = [path.read_text() for path in sorted(DIGITS.parent.glob("*.toml"))]
    for k in range(count):
        file = tmp_path / f"{k}.toml"
        file.write_text(mutated(random.choice(configs), random))
        few = "train.epochs=0", "train.steps=2", "data.cache=none", f"data.file={digits}"
        commands.append([file, *few, f"run.dir={tmp_path / str(k)}"])
    for ran in go(commands):
        if ran.status:
            expect_one_line(ran)
        else:
            sha256(ran)
