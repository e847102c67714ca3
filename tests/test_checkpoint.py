"""dpedf.run.checkpoint: what a run leaves on disk is whole, and belongs to one live job."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from damage import prove

from dpedf.data import write
from dpedf.edf import Input, Package, Parameter
from dpedf.errors import UserError
from dpedf.models import mlp
from dpedf.ops import Affine, LogLoss, Softmax
from dpedf.phi import Phi, Uniform, dense
from dpedf.run import checkpoint, config
from dpedf.run.directory import RunDirectory
from dpedf.run.resume import Identity

FILES = "config.toml", "metrics.jsonl", "checkpoint.h5", "best.h5"
ALONE = SimpleNamespace(rank=0, size=1)


def model(sizes=(4, 5, 3), seed=0, dtype=np.float32):
    """The Phi of an MLP."""
    Q, ell = mlp(Input((sizes[0],)), Input((), classes=sizes[-1]), list(sizes))
    return Phi(ell, seed, dtype)


def of_packages(*packages):
    """The Phi of Affine after Affine with these packages."""
    z = Input((3,))
    for package in packages:
        z = Affine(package, z)
    return Phi(LogLoss(Softmax(z), Input((), classes=3)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.h5"


@pytest.fixture
def settings(tmp_path):
    """Those of a run in tmp_path/run."""
    file = tmp_path / "digits.toml"
    file.write_text(
        '[data]\nfile = "digits.h5"\n[model]\nbuild = "mlp"\n'
        "[train]\nepochs = 1\nbatch_size = 8\nlearning_rate = 0.1\n"
    )
    return config.load(file, [f"run.dir={tmp_path / 'run'}"])


@pytest.fixture
def claimed(settings):
    """claimed(held, new): a directory that was claimed anew, by a job of its own.

    new: its settings, where they are others.
    """
    live = []

    def claim(held=False, new=None):
        for directory in live:
            directory.lock.close()  # as when its job ends
        directory = RunDirectory(settings.run.dir, ALONE, Identity(new or settings, 80, "x", "z"))
        directory.claim(held)
        live.append(directory)
        return directory

    return claim


# Saved, and loaded again.


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_was_saved_is_loaded_to_the_bit(dtype, path):
    old, new = model(seed=1, dtype=dtype), model(seed=2, dtype=dtype)
    state = {"step": 12345678901, "best": np.inf, "overlap": True, "half": 0.5}
    arrays = {
        "v": np.random.default_rng(0).random(7),
        "w": np.ones((2, 3), "f4"),
        "none": old.value[:0],
    }
    checkpoint.save(path, old, **state, **arrays)
    found = checkpoint.load(path, new)
    assert new.value.tobytes() == old.value.tobytes()
    np.testing.assert_array_equal(new.parameters[0].value, old.parameters[0].value)
    for name, array in arrays.items():
        read = found.pop(name)
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)
    assert found == state


def test_a_checkpoint_says_where_each_parameter_lies_in_phi(path):
    phi = model()
    checkpoint.save(path, phi)
    with h5py.File(path) as file:
        vector = file["phi"][...]
        assert list(file["parameters"]) == ["Phi1.w", "Phi1.b", "Phi2.w", "Phi2.b"]
        for p in phi.parameters:
            offset, shape = (file["parameters"][p.name].attrs[key] for key in ("offset", "shape"))
            there = vector[offset : offset + p.value.size].reshape(shape)
            np.testing.assert_array_equal(there, p.value)


@pytest.mark.parametrize(
    "name", ["enc/1", "/", "a//b", "./x", "100%25", "é", ".", "a\0b", " ", "\udcff"]
)
def test_a_package_may_have_any_name(name, path):
    def named(value):
        z = Affine(Package(name, w=Parameter(np.full((3, 3), value)), b=Uniform((3,), value)), x)
        return Phi(LogLoss(Softmax(z), Input((), classes=3)))

    x = Input((3,))
    old, new = named(7.0), named(0.0)
    old.state = new.state = {"z1.a/b": np.ones(3, np.float32)}
    checkpoint.save(path, old)
    checkpoint.load(path, new)
    assert new.value.tobytes() == old.value.tobytes()


def test_a_parameter_without_an_index_is_saved(path):
    def scaled():
        z = Affine(dense(3, 3), Input((3,))) * Parameter(np.array(2.0))
        return Phi(LogLoss(Softmax(z), Input((), classes=3)))

    old, new = scaled(), scaled()
    old.parameters[-1].value[...] = 7
    checkpoint.save(path, old)
    checkpoint.load(path, new)
    assert new.parameters[-1].value == 7 and new.parameters[-1].value.shape == ()


OTHERS = {
    "another width": (model([4, 6, 3]), "Phi1.w"),
    "a layer more": (model([4, 5, 5, 3]), "Phi2.w"),
    "a layer less": (model([4, 3]), "Phi1.w"),
    "another type": (model(dtype=np.float64), "float64"),
    "other names": (
        of_packages(dense(3, 3, name="first"), dense(3, 3, name="second")),
        "first.w",
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_checkpoint_is_refused_by_a_model_with(what, path, refused):
    phi, word = OTHERS[what]
    checkpoint.save(path, model(seed=5))
    before = phi.value.copy()
    with refused(path, word):
        checkpoint.load(path, phi)
    np.testing.assert_array_equal(phi.value, before)


def test_a_checkpoint_is_refused_by_a_model_with_its_parameters_in_another_order(path, refused):
    names = "one", "two"
    checkpoint.save(path, of_packages(*(dense(3, 3, name=name) for name in names)))
    with refused(path, "one.w, one.b, two.w, two.b", "two.w, two.b, one.w, one.b"):
        checkpoint.load(path, of_packages(*(dense(3, 3, name=name) for name in names[::-1])))


def test_what_is_no_checkpoint_is_refused(path, refused):
    checkpoint.save(path, model(), step=1)
    whole = path.read_bytes()
    cut = [whole[:n] for n in range(0, len(whole), len(whole) // 20)]
    for content in [*cut, b"text", np.random.default_rng(0).bytes(5000)]:
        path.write_bytes(content)
        with refused(path, "checkpoint"):
            checkpoint.load(path, model())


def test_no_file_and_a_directory_are_no_checkpoint(path, refused):
    with refused(path, "No such file"):
        checkpoint.load(path, model())
    path.mkdir()
    with refused(path, "directory"):
        checkpoint.load(path, model())


def test_another_hdf5_file_is_no_checkpoint(path, refused):
    about = {"name": "a", "source": "b", "licence": "c"}
    pair = np.zeros((2, 4)), np.zeros(2)
    write(path, **about, train=pair, test=pair)
    with refused(path, "checkpoint"):
        checkpoint.load(path, model())


def test_a_checkpoint_without_phi_is_none(path, refused):
    checkpoint.save(path, model())
    with h5py.File(path, "a") as file:
        del file["phi"]
    prove(path)
    with refused(path, "phi"):
        checkpoint.load(path, model())


# Whole, or as it was.

# Saves a model of 500 bytes, and then, as it is told here, one of 300 kB.
SAVE = """
import os, resource, signal, sys
import numpy as np
from dpedf.run import checkpoint
from dpedf.edf import Input
from dpedf.models import mlp
from dpedf.phi import Phi, Uniform

def model(I):
    return Phi(mlp(Input((I,)), Input((), classes=3), [I, 3])[1])

checkpoint.save("checkpoint.h5", model(40), step=1)
{}
try:
    checkpoint.save("checkpoint.h5", model(25_000), step=2)
    print("saved")
except OSError as error:
    print(error.strerror)
"""
LIMITED = "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
KILLED = "os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)"
FILLED = "assert os.statvfs('.').f_blocks * os.statvfs('.').f_frsize == 200 << 10"


def assert_is_the_old_one(path):
    phi = model([40, 3])
    before = phi.value.tobytes()
    phi.value[...] = 0
    assert checkpoint.load(path, phi) == {"step": 1}
    assert phi.value.tobytes() == before


def test_a_full_disk_leaves_the_old_checkpoint_whole(on_a_small_disk):
    ran, kept = on_a_small_disk("-c", SAVE.format(FILLED))
    assert (ran.stdout, ran.stderr) == ("No space left on device\n", "")
    assert_is_the_old_one(kept / "checkpoint.h5")
    assert os.listdir(kept) == ["checkpoint.h5"]


def test_a_limit_on_files_leaves_the_old_checkpoint_whole(tmp_path, python, path):
    ran = python("-c", SAVE.format(LIMITED), cwd=tmp_path)
    assert (ran.stdout, ran.stderr) == ("File too large\n", "")
    assert_is_the_old_one(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_job_killed_amid_saving_leaves_the_old_checkpoint_whole(tmp_path, python, path):
    ran = python("-c", SAVE.format(KILLED), cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (-9, "")
    assert_is_the_old_one(path)
    assert python("-c", SAVE.format(""), cwd=tmp_path).stdout == "saved\n"
    assert checkpoint.load(path, model([25_000, 3])) == {"step": 2}
    assert list(tmp_path.iterdir()) == [path]


def test_a_state_that_cannot_be_saved_leaves_the_old_checkpoint_whole(tmp_path, path):
    checkpoint.save(path, model([40, 3]), step=1)
    with pytest.raises(TypeError):
        checkpoint.save(path, model([40, 3], seed=2), step=object())
    assert_is_the_old_one(path)
    assert list(tmp_path.iterdir()) == [path]


# The directory of a run.


def test_a_directory_is_made_and_claimed_with_its_parents(tmp_path):
    RunDirectory(tmp_path / "a" / "b", ALONE).claim(False)
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("name", FILES)
def test_a_directory_that_holds_a_run_is_left_alone(name, tmp_path, refused):
    (tmp_path / name).write_text("precious")
    with refused(tmp_path, "--resume", "--overwrite"):
        RunDirectory(tmp_path, ALONE).claim(False)
    assert (tmp_path / name).read_text() == "precious"


def test_resume_claims_a_run_and_leaves_what_it_holds(tmp_path):
    for name in FILES:
        (tmp_path / name).write_text(name)
    RunDirectory(tmp_path, ALONE).claim(True)
    assert tuple((tmp_path / name).read_text() for name in FILES) == FILES


def test_a_run_that_begins_takes_away_what_the_one_before_it_left(tmp_path, settings):
    for name in (*FILES, "notes.txt"):
        (tmp_path / name).write_text(name)
    directory = RunDirectory(tmp_path, ALONE)
    directory.claim(True)
    assert all((tmp_path / name).read_text() == name for name in FILES)  # it may yet be refused
    directory.begin(settings, 0)
    assert not any((tmp_path / name).exists() for name in ("checkpoint.h5", "best.h5"))
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    assert (tmp_path / "notes.txt").read_text() == "notes.txt"


def test_files_that_are_no_runs_do_not_hold_a_directory(tmp_path):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "checkpoint.h5.unfinished").touch()
    RunDirectory(tmp_path, ALONE).claim(False)


# Claims a directory, says so, and lives until its standard input ends.
HOLD = """
import sys
from types import SimpleNamespace
from dpedf.run.directory import RunDirectory

directory = RunDirectory(sys.argv[1], SimpleNamespace(rank=0))
directory.claim(False)
print("claimed", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("held", [False, True])
def test_a_second_live_job_is_refused_until_the_first_is_gone(held, tmp_path, environment, refused):
    command, pipe = [sys.executable, "-c", HOLD, tmp_path], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment) as first:
        assert first.stdout.readline() == b"claimed\n"
        (tmp_path / "metrics.jsonl").write_text("precious")
        with refused(tmp_path, "live"):
            RunDirectory(tmp_path, ALONE).claim(held)
        assert (tmp_path / "metrics.jsonl").read_text() == "precious"
        first.kill()
        first.wait()
        RunDirectory(tmp_path, ALONE).claim(True)


def test_a_place_that_can_be_no_directory_is_refused(tmp_path, refused):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with refused(place, "directory"):
            RunDirectory(place, ALONE).claim(False)


# Claims directories.
CLAIM = """
import os, sys
from types import SimpleNamespace
from dpedf.run.directory import RunDirectory
from dpedf.errors import UserError

{}
for place in sys.argv[1:]:
    try:
        RunDirectory(place, SimpleNamespace(rank=0)).claim(True)
        print("claimed")
    except UserError as error:
        print(error)
"""


# From now on somebody whom permissions hold for.
UNPRIVILEGED = "os.geteuid() or os.setresuid(65534, 65534, 65534)"


def test_a_directory_that_cannot_be_written_is_refused(tmp_path, python):
    tmp_path.chmod(0o755)
    for name, mode in ("locked", 0o555), ("closed", 0o000), ("open", 0o777):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    places = "locked", "locked/new", "closed", "closed/new", "open"
    ran = python("-c", CLAIM.format(UNPRIVILEGED), *places, cwd=tmp_path)
    (tmp_path / "closed").chmod(0o755)
    assert (ran.returncode, ran.stderr) == (0, "")
    *lines, last = ran.stdout.splitlines()
    for place, line in zip(places, lines, strict=False):
        assert line.startswith(f"{place}: Permission denied")
    assert last == "claimed" and len(lines) == 4
    assert not any((tmp_path / "locked").iterdir())


def test_a_file_system_that_is_read_only_is_refused(on_a_small_disk):
    read_only = "import os; assert not os.system('mount -o remount,ro tmpfs .')\n"
    ran, kept = on_a_small_disk("-c", read_only + CLAIM.format(""), "run")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("run: ") and ran.stdout.count("\n") == 1


def test_a_file_system_without_locks_raises_no_more_than_a_users_error(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with suppress(UserError):
        RunDirectory(tmp_path, ALONE).claim(False)


def test_the_other_ranks_touch_nothing(tmp_path, settings):
    directory = RunDirectory(tmp_path / "run", SimpleNamespace(rank=1))
    directory.claim(False)
    assert directory.resume(model()) == {}
    directory.begin(settings, 0)
    directory.event("train", step=1)
    directory.save("checkpoint.h5", model())
    assert not (tmp_path / "run").exists()


# What a run left, for the one that goes on.


def test_where_there_is_no_checkpoint_there_is_nothing_to_resume(claimed, settings):
    assert claimed().resume(model()) == {}


def test_a_run_goes_on_from_its_checkpoint(claimed, settings):
    old, new, directory = model(seed=1), model(seed=2), claimed()
    directory.begin(settings, 0)
    directory.save("checkpoint.h5", old, step=7, v=np.arange(3.0))
    state = claimed(held=True).resume(new)
    assert state["step"] == 7 and state["v"].tolist() == [0, 1, 2] and not state["tested"]
    assert new.value.tobytes() == old.value.tobytes()


def test_a_run_that_was_tested_at_its_checkpoint_is_known_as_finished(claimed, settings):
    directory = claimed()
    directory.begin(settings, 0)
    directory.save("checkpoint.h5", model(), step=7)
    directory.event("test", step=6)
    assert not claimed(held=True).resume(model())["tested"]
    directory.event("test", step=7)
    assert claimed(held=True).resume(model())["tested"]


def test_a_run_with_other_settings_does_not_go_on(claimed, settings, refused, tmp_path):
    directory = claimed()
    directory.begin(settings, 0)
    directory.save("checkpoint.h5", model(), step=7)
    other = config.load(tmp_path / "digits.toml", ["train.batch_size=9"])
    (directory.path / "config.toml").unlink()  # what it says is for people
    with refused(directory.path / "checkpoint.h5", "train.batch_size = 9, expected 8"):
        claimed(held=True, new=other).resume(model())


EVENTS = [
    {"event": "train", "step": 5, "loss": 0.5},
    {"event": "eval", "step": 5, "valid_loss": None},
    {"event": "train", "step": 10, "loss": 1e-300},
]


def events_of(directory):
    return [
        json.loads(line) for line in (directory.path / "metrics.jsonl").read_text().splitlines()
    ]


def test_metrics_go_on_after_a_line_that_was_cut_short(claimed, settings):
    directory = claimed()
    directory.begin(settings, 0)
    for event in EVENTS:
        kind, values = event["event"], {key: event[key] for key in event if key != "event"}
        directory.event(kind, **values)
    metrics = directory.path / "metrics.jsonl"
    whole = metrics.read_bytes()
    two = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    for length in range(two, len(whole)):
        for tail in b"", bytes(9):  # a file system may leave zeros
            metrics.write_bytes(whole[:length] + tail)
            directory = claimed(held=True)
            directory.begin(settings, 10)
            directory.event("train", step=15)
            kept = EVENTS if length == len(whole) - 1 and not tail else EVENTS[:2]
            assert events_of(directory) == [*kept, {"event": "train", "step": 15}]


@pytest.mark.parametrize(("step", "kept"), [(0, 0), (4, 0), (5, 2), (9, 2), (10, 3)])
def test_metrics_after_the_checkpoint_and_of_the_test_are_told_anew(step, kept, claimed, settings):
    directory = claimed()
    directory.begin(settings, 0)
    lines = [*EVENTS, {"event": "test", "step": 10}]
    (directory.path / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in lines))
    directory = claimed(held=True)
    directory.begin(settings, step)
    assert events_of(directory) == EVENTS[:kept]


def test_a_run_begins_with_the_settings_that_it_has(claimed, settings):
    directory = claimed()
    directory.begin(settings, 0)
    assert config.load(directory.path / "config.toml") == settings
    assert (directory.path / "metrics.jsonl").read_text() == ""
