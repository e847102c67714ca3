"""dpedf.data: whatever is wrong with a data file is one line, and no wrong row is learned from."""

import os
import random
import socket
from contextlib import closing

import h5py
import numpy as np
import pytest
from damage import damaged

from dpedf.data import Data, memory, write
from dpedf.errors import RunError, UserError
from dpedf.parallel.ranks import Ranks

N = 120
X = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
Y = np.arange(N)
LAYOUTS = {
    "contiguous": {},
    "chunked": {"chunks": (7, 3)},
    "compressed": {"chunks": (7, 3), "compression": "gzip", "fletcher32": True},
}


def make(path, x=X, layout="contiguous"):
    """A data file of rows x, the label of each being its number."""
    with h5py.File(path, "w") as file:
        for group in "train", "test":
            file.create_dataset(f"{group}/x", data=x, **LAYOUTS[layout])
            file[f"{group}/y"] = np.arange(len(x))
    return path


@pytest.fixture
def path(tmp_path):
    return make(tmp_path / "rows.h5")


def learn(opened):
    """All rows of an epoch, as they come."""
    return list(opened.train.minibatches(0, 0, 16, lambda b: (0, b)))


# In place of a file.


def looping(path):
    path.symlink_to(path)


def listening(path):
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(path))


STRANGE = {
    "a link to itself": (looping, "symbolic links"),
    "a FIFO": (os.mkfifo, "not a regular file"),
    "a socket": (listening, "not a regular file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
}


@pytest.mark.parametrize("what", STRANGE)
def test_in_place_of_a_file_it_is_refused_at_once(what, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)  # since the path of a socket is short
    put, words = STRANGE[what]
    put(tmp_path / "x.h5")
    with refused("x.h5", words):
        Data("x.h5")


# In place of a dataset.


def never_written(file, **layout):
    file.create_dataset("train/x", (N, 3), "f4", **layout)


def virtual(file):
    layout = h5py.VirtualLayout((N, 3), "f4")
    layout[:] = h5py.VirtualSource("nowhere.h5", "x", (N, 3))
    file.create_virtual_dataset("train/x", layout)


def linked(target):
    return lambda file: file.update({"train/x": target})


def compound(file):
    file["train/x"] = np.zeros(N, [("a", "f4"), ("b", "u1")])


def lists(file):
    file.create_dataset("train/x", (N,), h5py.vlen_dtype("f4"))[...] = [X[0]] * N


def three_bytes(file):
    of_three = h5py.h5t.STD_I32LE.copy()
    of_three.set_precision(24)
    of_three.set_size(3)
    made = h5py.h5d.create(file["train"].id, b"x", of_three, h5py.h5s.create_simple((N, 3)))
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, X.astype("i4"))


PLACED = {
    "a soft link to itself": (linked(h5py.SoftLink("/train/x")), "circle"),
    "soft links in a circle": (linked(h5py.SoftLink("/loop/x")), "circle"),
    "a link to a FIFO": (linked(h5py.ExternalLink("fifo", "/x")), "another file", "fifo"),
    "a link by way of a link": (linked(h5py.SoftLink("/away")), "another file", "fifo"),
    "rows of a file that is not there": (virtual, "nowhere.h5: no such file"),
    "rows in a raw file that is not there": (
        lambda file: never_written(file, external=[("raw", 8, N * 12)]),
        "file raw: No such file",
        "1,440 bytes from byte 8 on",
    ),
    "rows that were never written": (never_written, "0 bytes are stored, expected 1,440"),
    "chunks that were never written": (
        lambda file: never_written(file, chunks=(7, 3)),
        "0 chunks are stored, expected 18",
    ),
    "more rows than any disk holds": (
        lambda file: file.create_dataset("train/x", (1 << 60, 3), "u1", chunks=(1 << 20, 3)),
        "0 chunks are stored",
    ),
    "a record": (compound, "expected rows of numbers"),
    "lists": (lists, "expected rows of numbers"),
    "integers of three bytes": (three_bytes, "<i3", "expected rows of numbers"),
}  # fmt: skip


@pytest.mark.parametrize("what", PLACED)
def test_in_place_of_a_dataset_it_is_refused(what, path, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    put, *words = PLACED[what]
    with h5py.File(path, "a") as file:
        del file["train/x"]
        file["loop"] = h5py.SoftLink("/train")
        file["away"] = h5py.ExternalLink("fifo", "/x")
        put(file)
    with refused(path, *words):
        Data(path)


def test_links_within_a_file_are_followed(path):
    with h5py.File(path, "a") as file:
        file.move("train", "elsewhere/rows")
        file["train"] = h5py.SoftLink("elsewhere/rows")
        file["test/z"] = file["test/x"]
        del file["test/x"]
        file["test/x"] = h5py.SoftLink("./z")
    opened = Data(path)
    np.testing.assert_array_equal(opened.train.load(Y)[0], X)
    np.testing.assert_array_equal(opened.test.load(Y)[0], X)


@pytest.mark.parametrize("name", ["classes", "scale"])
@pytest.mark.parametrize("value", [1 + 2j, h5py.Empty("f4"), "\x1b[2J", np.zeros(3, "i4,f4")])
def test_an_attribute_of_a_strange_type_is_refused(name, value, path, refused):
    with h5py.File(path, "a") as file:
        file.attrs[name] = value
    with refused(path, f"attribute {name}"):
        Data(path)


@pytest.mark.parametrize("attributes", [{"scale": 1e300}, {"mean": 1e300}, {"std": 1e-300}])
@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_inputs_that_no_number_of_the_run_can_hold_are_refused(dtype, attributes, path, refused):
    make(path, np.abs(X).astype(dtype))
    with h5py.File(path, "a") as file:
        file.attrs.update({"mean": 1} | attributes)
    with refused(path, "inf", "float32"):
        Data(path).read_through(Ranks())
    Data(path, dtype=np.float64).read_through(Ranks())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["x", "y"])
def test_a_number_too_large_for_the_run_is_named_by_its_row(name, layout, tmp_path, refused):
    x = np.zeros((N, 3))
    x[7, 1] = 1e39
    path = make(tmp_path / "rows.h5", x, layout)
    if name == "y":
        with h5py.File(path, "a") as file:
            for group in "train", "test":
                file.move(f"{group}/x", f"{group}/z")
                file[f"{group}/x"], file[f"{group}/y"][...] = X, 0
                del file[f"{group}/y"]
                file.move(f"{group}/z", f"{group}/y")
    with refused(f"{path}: train/{name}", "1e+39 in row 7 becomes inf", "float32"):
        Data(path).read_through(Ranks())
    Data(path, dtype=np.float64).read_through(Ranks())


# Before training: every row is read once.


def strike(path, name):
    """Overwrite the first chunk of a dataset."""
    with h5py.File(path) as file:
        chunk = file[name].id.get_chunk_info(0)
    with open(path, "r+b") as file:
        file.seek(chunk.byte_offset + 9)
        file.write(bytes(3))


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_a_damaged_chunk_is_found_before_training(cache, tmp_path, refused):
    path = make(tmp_path / "rows.h5", layout="compressed")
    strike(path, "train/x")
    opened = Data(path)
    with refused(f"{path}: train/x", "filter"):
        opened.read_through(Ranks()) if cache == "none" else opened.keep(cache, Ranks())


def test_rows_packed_by_a_filter_that_nobody_has_are_refused(tmp_path, refused):
    path = make(tmp_path / "rows.h5", layout="compressed")
    content = path.read_bytes()
    assert content.count(b"deflate") == 2
    for at in (content.index(b"deflate"), content.rindex(b"deflate")):
        content = content[: at - 8] + b"\xff\x7d" + content[at - 6 :]
    path.write_bytes(content)
    with refused(f"{path}: train/x"):
        Data(path).read_through(Ranks())


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_number_that_is_not_finite_is_named_by_its_row(layout, cache, number, tmp_path, refused):
    x = X.copy()
    x[97, 1] = x[98, 0] = number
    path = make(tmp_path / "rows.h5", x, layout)
    opened = Data(path, valid=30)
    with refused(f"{path}: train/x", f"{number} in row 97,"):
        opened.read_through(Ranks()) if cache == "none" else opened.keep(cache, Ranks())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_so_it_is_in_training_where_memory_cannot_hold_the_rows(layout, tmp_path, monkeypatch):
    monkeypatch.setattr("dpedf.data.file.MEMORY", 1)
    x = X.copy()
    x[97, 1] = np.nan
    opened = Data(make(tmp_path / "rows.h5", x, layout))
    opened.read_through(Ranks())
    with pytest.raises(RunError, match="train/x: nan in row 97, expected finite numbers"):
        learn(opened)


def test_a_target_that_is_not_finite_is_named_too(path, refused):
    with h5py.File(path, "a") as file:
        for group in "train", "test":
            del file[f"{group}/y"]
            file[f"{group}/y"] = np.where(Y == 5, np.inf, 0.5)
    with refused(f"{path}: train/y", "inf in row 5,"):
        Data(path).read_through(Ranks())


# While training: a file that somebody writes to.


def shorter(path):
    os.truncate(path, os.path.getsize(path) - 8)  # of its last page, so that no map can kill


def rewritten(path):
    path.write_bytes(path.read_bytes())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("change", [shorter, rewritten])
def test_a_file_that_somebody_writes_to_ends_the_run(change, layout, tmp_path):
    path = make(tmp_path / "rows.h5", layout=layout)
    os.utime(path, (1, 1))
    opened = Data(path)
    change(path)
    with pytest.raises(RunError, match=f"{path}: somebody has written to it, "):
        learn(opened)
    with pytest.raises(UserError, match=str(path)):
        opened.keep("memory", Ranks())


# Memory.


def test_rows_that_memory_cannot_hold_are_refused_before_they_are_copied(
    path, monkeypatch, refused
):
    opened = Data(path)
    monkeypatch.setattr(memory, "available", lambda: 4799)
    with refused(path, "data.cache = 'memory'", "4,800 bytes", "4,799"):
        opened.keep("memory", Ranks())


def test_rows_whose_numbers_memory_cannot_hold_are_refused(path, monkeypatch, refused):
    monkeypatch.setattr(memory, "available", lambda: 16 * N - 1)
    with refused(path, "120 rows", "1,920 bytes"):
        Data(path)


def test_a_limit_of_the_cgroup_counts(monkeypatch):
    free = memory.available()
    monkeypatch.setattr(memory, "limits", lambda: [1 << 62, free // 2])
    assert memory.available() == free // 2


# Damage anywhere.


def test_a_file_damaged_anywhere_has_the_right_rows_or_is_refused(tmp_path):
    path, chance = tmp_path / "rows.h5", random.Random(0)
    x = np.arange(N * 3, dtype=np.uint8).reshape(N, 3)
    sources = [make(path, x, layout).read_bytes() for layout in LAYOUTS]
    refused = 0
    for k in range(300):
        path.unlink()
        path.write_bytes(damaged(sources[k % 3], chance))
        try:
            opened = Data(path)
            opened.keep("memory", Ranks()) if k % 2 else opened.read_through(Ranks())
            with np.errstate(all="ignore"):
                for found, y, _ in learn(opened):
                    opened.put(found, y)
        except (UserError, RunError) as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
            refused += 1
    assert 100 < refused < 300


def test_a_bit_of_a_file_that_write_made_is_noticed_or_is_of_no_account(tmp_path, refused):
    path, chance, noticed = tmp_path / "rows.h5", random.Random(1), 0
    about = {"name": "a", "source": "b", "licence": "c", "classes": N, "scale": 0.5}
    x = np.arange(N * 3, dtype=np.uint8).reshape(N, 3)
    write(path, **about, train=(x, Y), test=(x, Y))
    whole = path.read_bytes()
    for _ in range(200):
        content = bytearray(whole)
        content[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.unlink()
        path.write_bytes(content)
        try:
            opened = Data(path)
            opened.read_through(Ranks())
            opened.put(*opened.train.load(Y))
            assert (opened.x.value == x / 2).all() and (opened.y.value == Y).all()
            assert opened.y.classes == N
        except UserError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
            noticed += 1
    assert noticed > 50


def test_rows_that_were_changed_since_they_were_written_are_named(tmp_path, refused):
    path = tmp_path / "rows.h5"
    write(path, name="a", source="b", licence="c", train=(X, Y), test=(X[:9], Y[:9]))
    Data(path).read_through(Ranks())
    with h5py.File(path, "a") as file:
        file["test/x"][3, 1] += 1
    with refused(f"{path}: test/x", "CRC-32"):
        Data(path).read_through(Ranks())
