"""dpedf.data: every row once an epoch from any layout, and files that are not data files."""

import os
import threading
import time
from itertools import combinations

import h5py
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dpedf.data import Data, layout, write
from dpedf.data.layout import ArrayRows, ChunkedRows
from dpedf.data.split import Split
from dpedf.data.stored import Stored
from dpedf.device import CPU
from dpedf.errors import RunError, UserError
from dpedf.parallel.ranks import Ranks
from dpedf.parallel.sums import cuts

N, CHUNK = 103, 7
X = np.random.default_rng(0).integers(0, 256, (N, 2, 3), np.uint8)
ROWS = np.arange(N)  # as labels: so a row says which one it is
LAYOUTS = {
    "contiguous": {},
    "chunked": {"chunks": CHUNK},
    "compressed": {"chunks": CHUNK, "compression": "gzip"},
}


def make(path, layout="contiguous", **groups):
    """A data file; groups are train=(x, y), which it also tests on unless told otherwise."""
    with h5py.File(path, "w") as file:
        for group, pair in ({"test": groups["train"]} | groups).items():
            for name, array in zip("xy", pair, strict=True):
                options = dict(LAYOUTS[layout])
                if options:
                    options["chunks"] = (options["chunks"], *array.shape[1:])
                file.create_dataset(f"{group}/{name}", data=array, **options)
    return path


@pytest.fixture
def path(tmp_path):
    """A data file of N rows, that label y being row y."""
    return make(tmp_path / "rows.h5", train=(X, ROWS))


def rows_of(n):
    """n rows in memory, each its own number."""
    return Split(ArrayRows(np.arange(n)), ArrayRows(np.arange(n)), np.arange(n), CPU())


def epoch_of(split, B, V=1, R=1, seed=0, epoch=0, start=0):
    """The minibatches of an epoch, each joined from the shards of R ranks with V slices."""
    slices, splits = cuts(V, R), split if isinstance(split, list) else [split] * R

    def shard(rank):
        return lambda b: [cuts(b, V)[v] for v in slices[rank : rank + 2]]

    ranks = enumerate(splits)
    ranks = [split.minibatches(seed, epoch, B, shard(rank), start) for rank, split in ranks]
    for shards in zip(*ranks, strict=True):
        x, y, sizes = zip(*shards, strict=True)
        y = np.concatenate(y)
        assert set(sizes) == {len(y)}  # every rank knows how many there are in all
        yield np.concatenate(x), y


def labels(minibatches):
    return [y.tolist() for x, y in minibatches]


def loaders():
    return [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


# Every row, once.


@given(
    n=st.integers(1, 200),
    B=st.integers(1, 70),
    V=st.integers(1, 9),
    R=st.integers(1, 9),
    **{name: st.integers(0, 2**40) for name in ("seed", "epoch")},
)
@example(n=13, B=8, V=8, R=8, seed=0, epoch=0)  # three ranks have no row of the last minibatch
@example(n=103, B=16, V=8, R=1, seed=0, epoch=0)
@example(n=103, B=16, V=8, R=2, seed=0, epoch=0)
@example(n=103, B=16, V=8, R=3, seed=0, epoch=0)
@example(n=103, B=16, V=8, R=5, seed=0, epoch=0)
def test_every_row_comes_once_an_epoch_in_one_order_on_any_ranks(n, B, V, R, seed, epoch):
    here = {"seed": seed, "epoch": epoch}
    alone = labels(epoch_of(rows_of(n), B, **here))
    assert labels(epoch_of(rows_of(n), B, max(V, R), R, **here)) == alone
    assert sorted(sum(alone, [])) == list(range(n))
    assert [len(y) for y in alone] == [B] * (n // B) + [n % B] * (n % B > 0)


@pytest.mark.parametrize("R", [1, 3])
def test_an_epoch_begun_later_goes_on_as_the_whole_one(R):
    whole = labels(epoch_of(rows_of(N), 16, 8, R))
    for start in range(len(whole) + 1):
        assert labels(epoch_of(rows_of(N), 16, 8, R, start=start)) == whole[start:]


def test_the_order_is_a_function_of_seed_and_epoch():
    orders = [rows_of(N).order(seed, epoch) for seed in (0, 1, 2) for epoch in (0, 1, 2)]
    again = [rows_of(N).order(seed, epoch) for seed in (0, 1, 2) for epoch in (0, 1, 2)]
    np.testing.assert_array_equal(orders, again)
    for one, other in combinations(orders, 2):
        assert (one != other).mean() > 0.8


def test_every_row_may_come_at_any_place():
    counts = np.zeros((10, 10), int)
    for epoch in range(1000):
        counts[np.arange(10), rows_of(10).order(0, epoch)] += 1
    assert 60 < counts.min() and counts.max() < 140  # 100 are expected, and 10 the deviation


# The same rows from any layout.


@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_gives_the_same_rows(layout, cache, tmp_path):
    path = make(tmp_path / "rows.h5", layout, train=(X, ROWS), test=(X[:40], ROWS[:40]))
    opened = Data(path, valid=20)
    assert isinstance(opened.train.x, ArrayRows if layout == "contiguous" else ChunkedRows)
    if cache == "memory":
        opened.keep("memory", Ranks())
        opened.stored.file.close()
        assert np.shares_memory(opened.train.x.array, opened.valid.x.array)  # one copy
    expected = rows_of(N).numbers[opened.train.numbers]
    in_order = Split(ArrayRows(X), ArrayRows(ROWS), expected, CPU())
    for (x, y), (its_x, its_y) in zip(
        epoch_of(opened.train, 16), epoch_of(in_order, 16), strict=True
    ):
        assert y.tolist() == its_y.tolist()
        np.testing.assert_array_equal(x, its_x)
        assert x.dtype == np.uint8
    for split, n in (opened.valid, 20), (opened.test, 40):
        assert len(split) == n
        x, y = split.load(split.numbers)
        np.testing.assert_array_equal(x, X[y])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i4", "<f2", ">f4", "<f8"])
def test_numbers_of_any_type_and_byte_order_are_read(dtype, layout, tmp_path):
    path = make(tmp_path / "rows.h5", layout, train=(X.astype(dtype), ROWS))
    x, y = Data(path).train.load(ROWS[::-1])
    native = np.dtype(dtype).newbyteorder("=")
    assert x.dtype == (native if native.itemsize < 3 else np.float32)  # which travels
    np.testing.assert_array_equal(x, X[::-1])


def test_a_file_with_a_user_block_is_read(tmp_path):
    path = make(tmp_path / "rows.h5", train=(X, ROWS))
    with (
        h5py.File(path) as plain,
        h5py.File(tmp_path / "block.h5", "w", userblock_size=512) as file,
    ):
        for group in plain:
            plain.copy(group, file)
    x, y = Data(tmp_path / "block.h5").train.load(ROWS)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, ROWS)


class Counted:
    """A dataset that counts how often each of its rows is read."""

    is_virtual = False

    def __init__(self, dataset):
        self.dataset, self.read = dataset, np.zeros(len(dataset), int)

    def __getitem__(self, rows):
        self.read[rows] += 1
        return self.dataset[rows]


@pytest.mark.parametrize("valid", [0, 20])
@pytest.mark.parametrize("layout", ["chunked", "compressed"])
def test_chunks_beyond_the_window_come_by_windows_of_whole_chunks(
    layout, valid, tmp_path, monkeypatch
):
    monkeypatch.setattr("dpedf.data.layout.WINDOW", 3 * CHUNK * X[0].nbytes)
    path, seen = make(tmp_path / "rows.h5", layout, train=(X, ROWS)), []
    splits = [Data(path, valid).train for rank in range(3)]
    assert not any(split.global_shuffle for split in splits)
    for epoch in (0, 1):
        minibatches = list(epoch_of(splits, 16, V=8, R=3, epoch=epoch))
        for x, y in minibatches:
            np.testing.assert_array_equal(x, X[y])
        order = np.concatenate([y for x, y in minibatches])
        assert sorted(order) == splits[0].numbers.tolist()
        assert all(len(split.x.kept) < 2 * 3 + 2 for split in splits)
        seen.append([set()])
        for chunk in order // CHUNK:
            if chunk not in seen[-1][-1] and len(seen[-1][-1]) == 3:
                seen[-1].append(set())
            seen[-1][-1].add(chunk)
        assert sum(map(len, seen[-1])) == -(-N // CHUNK)  # no chunk is in two windows
        first = order[np.isin(order // CHUNK, list(seen[-1][0]))]
        assert (np.diff(first // CHUNK) != 0).sum() > 5  # and its rows are not together
    assert seen[0] != seen[1]


def test_a_rank_alone_reads_a_chunk_once_an_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr("dpedf.data.layout.WINDOW", 4 * CHUNK * X[0].nbytes)
    split = Data(make(tmp_path / "rows.h5", "compressed", train=(X, ROWS))).train
    split.x.dataset = Counted(split.x.dataset)
    assert len(list(epoch_of(split, 1))) == N  # a block of them is less than a window
    assert set(split.x.dataset.read) == {1}


class Hesitant(dict):
    """A dict that lets another thread go first between a look and what follows from it."""

    def __contains__(self, key):
        found = super().__contains__(key)
        time.sleep(1e-4)
        return found


def test_rows_to_validate_can_be_read_while_the_loader_reads(tmp_path, monkeypatch):
    monkeypatch.setattr("dpedf.data.layout.WINDOW", 2 * CHUNK * X[0].nbytes)
    opened, order = Data(make(tmp_path / "rows.h5", "chunked", train=(X, ROWS)), 50), []
    for source in {opened.train.x, opened.train.y, opened.valid.x, opened.valid.y}:
        monkeypatch.setattr(source, "kept", Hesitant(), raising=False)
    for epoch in range(6):
        for x, y in epoch_of(opened.train, 4, epoch=epoch):
            np.testing.assert_array_equal(x, X[y])
            order += y.tolist()
            x, y = opened.valid.load(opened.valid.numbers[len(order) % 10 :: 10])
            np.testing.assert_array_equal(x, X[y])
    assert sorted(order) == sorted(6 * opened.train.numbers.tolist())


def test_chunks_within_the_window_are_shuffled_as_mapped_rows_are(tmp_path):
    split = Data(make(tmp_path / "rows.h5", "chunked", train=(X, ROWS))).train
    assert split.global_shuffle
    np.testing.assert_array_equal(split.order(3, 4), rows_of(N).order(3, 4))


def test_the_order_follows_from_the_layout_and_not_from_where_rows_are_kept(tmp_path, monkeypatch):
    contiguous = make(tmp_path / "rows.h5", train=(X, ROWS))
    chunked = make(tmp_path / "chunks.h5", "chunked", train=(X, ROWS))
    monkeypatch.setattr("dpedf.data.layout.WINDOW", 3 * CHUNK * X[0].nbytes)
    monkeypatch.setattr("dpedf.data.file.MEMORY", 1)
    for path in contiguous, chunked:
        opened = Data(path)
        streamed = opened.train.order(1, 2)
        opened.keep("memory", Ranks())
        np.testing.assert_array_equal(opened.train.order(1, 2), streamed)
        assert isinstance(opened.train.x, ArrayRows)
        assert opened.train.global_shuffle == (path == contiguous)


# Held out, and turned into inputs.


def test_rows_held_out_are_a_function_of_the_seed_and_no_longer_learned_from(path):
    held = {seed: Data(path, 30, seed).valid.numbers.tolist() for seed in range(5)}
    for seed, rows in held.items():
        opened = Data(path, 30, seed)
        assert opened.valid.numbers.tolist() == rows == sorted(set(rows)) and len(rows) == 30
        assert sorted(rows + opened.train.numbers.tolist()) == ROWS.tolist()
        assert opened.train.numbers.tolist() == sorted(opened.train.numbers)
        assert len(opened.test) == N
    for one, other in combinations(held.values(), 2):
        assert len(set(one) & set(other)) < 20


def test_a_group_valid_takes_the_place_of_rows_held_out(tmp_path):
    path = make(tmp_path / "rows.h5", train=(X, ROWS), valid=(X[:9], ROWS[:9]))
    opened = Data(path, valid=30)
    assert (len(opened.train), len(opened.valid), len(opened.test)) == (N, 9, N)


def test_rows_held_out_are_not_those_that_epoch_0_would_show_first(path):
    for seed in 0, 1, 2**62:
        first = Data(path).train.order(seed, 0)[: N // 2]
        assert {*first.tolist()} != {*Data(path, valid=N // 2, seed=seed).valid.numbers.tolist()}


def test_with_nothing_held_out_there_is_no_row_to_validate(path):
    opened = Data(path, valid=0)
    assert (len(opened.train), len(opened.valid)) == (N, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"scale": 1 / 255},
        {"mean": 128.0, "std": 64.0},
        {"scale": 1 / 255, "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]},
        {"scale": [1.0, 0.5, 0.25], "mean": np.arange(6).reshape(2, 3), "std": [[1.0], [2.0]]},
        {"scale": 2, "mean": 1, "std": 4},
    ],
    ids=["none", "scale", "mean, std", "by channel", "by number", "integers"],
)
def test_inputs_are_x_scale_minus_mean_over_std(attributes, dtype, tmp_path):
    about = {"name": "a", "source": "b", "licence": "c"}
    write(tmp_path / "rows.h5", **about, **attributes, train=(X, ROWS), test=(X, ROWS))
    opened = Data(tmp_path / "rows.h5", dtype=dtype)
    opened.put(*opened.train.load(ROWS))
    scale, mean, std = ({"scale": 1, "mean": 0, "std": 1} | attributes).values()
    expected = (X * np.asarray(scale, float) - np.asarray(mean, float)) / np.asarray(std, float)
    assert opened.x.value.dtype == dtype and opened.x.shape == (2, 3)
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(opened.x.value, expected, tolerance, tolerance)


def test_what_is_put_leaves_the_rows_as_they_are_stored(tmp_path):
    x = X.astype(np.float16)
    opened = Data(make(tmp_path / "rows.h5", train=(x, ROWS)))
    opened.dtype = opened.x.dtype = np.dtype(np.float16)  # which needs no other type
    opened.device_scale = np.float16(0.5)
    x, y = opened.train.load(ROWS)
    opened.put(x, y)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(opened.x.value, X / 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64])
def test_integers_are_labels(dtype, tmp_path):
    opened = Data(make(tmp_path / "rows.h5", train=(X, ROWS.astype(dtype))))
    opened.put(*opened.train.load(ROWS))
    assert opened.y.classes == N and opened.y.value.dtype == opened.y.dtype == np.intp
    np.testing.assert_array_equal(opened.y.value, ROWS)


def test_fractions_are_no_labels(tmp_path):
    y = np.random.default_rng(0).random((N, 4))
    opened = Data(make(tmp_path / "rows.h5", train=(X, y)))
    opened.put(*opened.train.load(ROWS))
    assert opened.y.classes is None and opened.y.shape == (4,)
    assert opened.y.value.dtype == np.float32
    np.testing.assert_array_equal(opened.y.value, y.astype(np.float32))


def test_the_file_says_how_many_classes_there_are(path):
    with h5py.File(path, "a") as file:
        file.attrs["classes"] = 200  # the largest label is 102
    assert Data(path).y.classes == 200


# Files that are not data files.


def put_in(name, value):
    """An edit of a file: this dataset takes the place of what there is."""

    def edit(file):
        if name in file:
            del file[name]
        file[name] = value

    return edit


def attribute(name, value):
    return lambda file: file.attrs.update({name: value})


def with_label(group, row, label):
    y = ROWS.copy()
    y[row] = label
    return put_in(f"{group}/y", y)


WRONG = {
    "no group train": (lambda file: file.pop("train"), "train/x"),
    "no group test": (lambda file: file.pop("test"), "test/x"),
    "no labels": (lambda file: file.pop("test/y"), "test/y"),
    "an empty group valid": (lambda file: file.create_group("valid"), "valid/x"),
    "a dataset for a group": (put_in("train", ROWS), "train/x"),
    "a group for a dataset": (put_in("train/x/deeper", ROWS), "train/x"),
    "fewer labels": (put_in("train/y", ROWS[:-1]), "train/y", 102),
    "no rows": (put_in("test/x", X[:0]), "test/x", "0 rows"),
    "strings": (put_in("train/y", ["seven"] * N), "train/y"),
    "a scalar": (put_in("train/y", 7), "train/y", "()"),
    "nothing": (put_in("train/y", h5py.Empty("f4")), "train/y"),
    "complex numbers": (put_in("train/x", X + 1j), "train/x", "complex128"),
    "a dangling link": (put_in("train/x", h5py.SoftLink("/nowhere")), "train/x"),
    "rows without a number": (put_in("train/x", X[:, :0]), "train/x"),
    "other rows to test": (put_in("test/x", np.zeros((N, 3, 2))), "test/x", (3, 2), (2, 3)),
    "other labels to test": (put_in("test/y", np.zeros((N, 2), int)), "test/y", (2,), ()),
    "fractions for labels to test": (put_in("test/y", ROWS + 0.5), "test/y", "float64"),
    "a label too large": (with_label("test", 41, 103), "test/y", "label 103", "row 41", "0..102"),
    "a label below 0": (with_label("train", 40, -1), "train/y", "label -1", "row 40", "0..102"),
    "less classes": (attribute("classes", 100), "train/y", "label 100", "row 100", "0..99"),
    "classes in words": (attribute("classes", "ten"), "classes", "ten"),
    "a list of classes": (attribute("classes", [1, 2]), "classes"),
    "a scale in words": (attribute("scale", "1/255"), "scale", "1/255"),
    "a mean of another shape": (attribute("mean", [1.0, 2.0]), "mean"),
    "no deviation": (attribute("std", 0.0), "std", 0),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_file_is_refused_that_has(what, path, refused):
    edit, *words = WRONG[what]
    with h5py.File(path, "a") as file:
        if what.startswith("a group"):
            del file["train/x"]
        edit(file)
    with refused(path, *words):
        Data(path)


def test_the_row_is_named_where_a_label_of_a_sequence_is_out_of_range(tmp_path, refused):
    y = np.zeros((N, 5), int)
    y[30, 2] = 9
    make(tmp_path / "rows.h5", train=(X, y))
    with h5py.File(tmp_path / "rows.h5", "a") as file:
        file.attrs["classes"] = 9
    with refused(tmp_path / "rows.h5", "train/y", "label 9", "row 30", "0..8"):
        Data(tmp_path / "rows.h5")


def test_no_more_rows_are_held_out_than_there_are(path, refused):
    with refused(path, "data.valid = 103", 103):
        Data(path, valid=103)
    assert len(Data(path, valid=102).train) == 1


def test_a_missing_file_names_the_recipe_that_makes_it(tmp_path, refused):
    with refused(tmp_path / "digits.h5"):
        Data(tmp_path / "digits.h5")
    (tmp_path / "digits.py").touch()
    with refused(tmp_path / "digits.h5", f"python {tmp_path / 'digits.py'}"):
        Data(tmp_path / "digits.h5")


@pytest.mark.parametrize(
    "content", [b"", b"label,pixel\n7,0\n", np.random.default_rng(0).bytes(5000)]
)
def test_a_foreign_file_is_refused(content, tmp_path, refused):
    (tmp_path / "rows.h5").write_bytes(content)
    with refused(tmp_path / "rows.h5", "HDF5"):
        Data(tmp_path / "rows.h5")


@pytest.mark.parametrize("name", ["data", ".", "/", ""])
def test_a_directory_is_no_data_file(name, tmp_path, monkeypatch, refused):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    with refused(name):
        Data(name)


# Reads every file of a folder, and prints the name of each and what came of it.
READ = """
import sys
from pathlib import Path
import numpy as np
from dpedf.data import Data
from dpedf.device import CPU
from dpedf.errors import RunError, UserError

for path in sorted(Path().glob("*.cut")):
    try:
        data = Data(path)
        for split in data.train, data.test:
            x, y = split.load(split.numbers)
            data.put(x, y)
            assert (y == np.arange(len(y))).all() and (x == y[:, None] % 256).all()
        print("right", path)
    except UserError as error:
        print("refused" if str(path) in str(error) else "unnamed", path, error)
    except Exception as error:
        print("failed", path, repr(error))
"""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_that_was_cut_off_is_refused_and_no_process_dies_of_it(layout, tmp_path, python):
    y = np.arange(800)
    x = np.repeat(y % 256, 5).astype(np.uint8).reshape(-1, 5)
    whole = make(tmp_path / "rows.h5", layout, train=(x, y)).read_bytes()
    lengths = sorted({*range(0, len(whole), len(whole) // 30), 1, 7, 8, 47, 95, len(whole) - 1})
    (tmp_path / "whole.cut").write_bytes(whole)
    for n in lengths:
        (tmp_path / f"{n:06}.cut").write_bytes(whole[:n])
    ran = python("-c", READ, cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    *cut, last = ran.stdout.splitlines()
    assert [line.split()[:2] for line in cut] == [["refused", f"{n:06}.cut"] for n in lengths]
    assert last == "right whole.cut"


def test_a_file_that_is_cut_off_while_it_is_opened_is_refused(path, refused):
    stored = Stored(path)
    _, labels = stored.dataset("train/y")
    os.truncate(path, labels.id.get_offset() + 5)
    with refused(path, "train/y"):
        layout.rows_of(stored, "train/y")


def damage(path, name):
    """Overwrite the first chunk of a dataset."""
    with h5py.File(path) as file:
        chunk = file[name].id.get_chunk_info(0)
    with open(path, "r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(bytes(chunk.size))


def test_damaged_labels_are_refused(tmp_path, refused):
    path = make(tmp_path / "rows.h5", "compressed", train=(X, ROWS))
    damage(path, "train/y")
    with refused(path, "train/y"):
        Data(path)


# Data of a name in the working directory, opened by somebody whom permissions hold for.
OPEN = """
import os, sys
from dpedf.data import Data
from dpedf.device import CPU
from dpedf.errors import RunError, UserError

Data("rows.h5")  # so that all is imported
os.geteuid() or os.setresuid(65534, 65534, 65534)
try:
    print(len(Data(sys.argv[1]).train))
except UserError as error:
    print("refused", error)
"""


@pytest.mark.parametrize("locked", ["the file", "the folder", "nothing"])
def test_a_file_without_permission_is_refused(locked, tmp_path, python):
    tmp_path.chmod(0o755)
    (tmp_path / "folder").mkdir()
    make(tmp_path / "rows.h5", train=(X, ROWS))
    path = make(tmp_path / "folder" / "rows.h5", train=(X, ROWS))
    path.chmod(0o000 if locked == "the file" else 0o444)
    path.parent.chmod(0o000 if locked == "the folder" else 0o755)
    ran = python("-c", OPEN, "folder/rows.h5", cwd=tmp_path)
    path.parent.chmod(0o755)
    assert (ran.returncode, ran.stderr) == (0, "")
    if locked == "nothing":
        assert ran.stdout == f"{N}\n"
    else:
        assert ran.stdout.startswith("refused folder/rows.h5: ") and ran.stdout.count("\n") == 1
        assert "ermission" in ran.stdout


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("replaced", [False, True])
def test_an_open_file_keeps_its_rows_when_its_name_is_taken_away(layout, replaced, tmp_path):
    path = make(tmp_path / "rows.h5", layout, train=(X, ROWS))
    opened = Data(path)
    if replaced:
        about = {"name": "a", "source": "b", "licence": "c"}
        write(path, **about, train=(255 - X, ROWS), test=(255 - X, ROWS))
    else:
        path.unlink()
    for x, y in epoch_of(opened.train, 16):
        np.testing.assert_array_equal(x, X[y])


# Rows that are cut from a text.

T, M = 8, 101
TEXT = np.random.default_rng(1).integers(0, 50, M).astype(np.uint8)
PLACES = np.arange(M, dtype=np.uint8)  # so each symbol says where it stands


def make_text(path, layout="contiguous", **texts):
    """A data file of texts, by group; it also tests on train unless told otherwise."""
    with h5py.File(path, "w") as file:
        for group, text in ({"test": texts["train"]} | texts).items():
            file.create_dataset(f"{group}/text", data=text, **LAYOUTS[layout])
    return path


def first_of(split):
    """Where the x of each row starts, in a text of PLACES."""
    return split.load(split.numbers)[0][:, 0].astype(int)


@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stride", [0, 1, 3, 8, 20])
def test_a_row_of_a_text_starts_a_stride_after_the_one_before(stride, layout, cache, tmp_path):
    opened = Data(make_text(tmp_path / "text.h5", layout, train=TEXT), window=T, stride=stride)
    if cache == "memory":
        opened.keep("memory", Ranks())
        opened.stored.file.close()
        assert np.shares_memory(opened.train.x.text.array, opened.train.y.text.array)  # one copy
    for split, step in (opened.train, stride or T), (opened.test, T):
        starts = range(0, M - T, step)  # the last symbol of all is one to predict
        x, y = split.load(split.numbers)
        assert x.dtype == y.dtype == np.uint8
        assert x.tolist() == [TEXT[a : a + T].tolist() for a in starts]
        assert y.tolist() == [TEXT[a + 1 : a + 1 + T].tolist() for a in starts]
        assert len(split) == (M - 1 - T) // step + 1


def test_a_text_of_one_row_has_one_symbol_more_than_that(tmp_path, refused):
    path = make_text(tmp_path / "text.h5", train=TEXT[: T + 1])
    x, y = Data(path, window=T).train.load(np.arange(1))
    assert (x.tolist(), y.tolist()) == ([TEXT[:T].tolist()], [TEXT[1 : T + 1].tolist()])
    with refused(path, "train/text", f"{T + 1} symbols", f"data.window = {T + 1}"):
        Data(path, window=T + 1)


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i4", "<u8"])
def test_the_symbols_of_a_text_stay_integers_whatever_scales_rows(dtype, tmp_path):
    path = make_text(tmp_path / "text.h5", train=TEXT.astype(dtype))
    with h5py.File(path, "a") as file:
        file.attrs.update(scale=0.5, mean=[1.0, 2.0], std=0.0, classes=60)
    opened = Data(path, window=T)
    opened.put(*opened.train.load(opened.train.numbers))
    for symbols, shift in (opened.x, 0), (opened.y, 1):
        assert symbols.shape == (T,) and symbols.classes == 60
        assert symbols.dtype == symbols.value.dtype == np.intp
        np.testing.assert_array_equal(symbols.value[2], TEXT[2 * T + shift :][:T])


@pytest.mark.parametrize("layout", LAYOUTS)
@given(
    M=st.integers(CHUNK, 250),
    T=st.integers(1, 40),
    stride=st.integers(0, 60),
    valid=st.integers(0, 30),
    seed=st.integers(0, 3),
)
@example(M=50, T=7, stride=1, valid=2, seed=0)
@example(M=50, T=7, stride=3, valid=2, seed=0)
def test_no_symbol_to_predict_is_both_learned_from_and_held_out(
    M, T, stride, valid, seed, layout, tmp_path_factory
):
    path = tmp_path_factory.getbasetemp() / "held_out.h5"
    make_text(path, layout, train=np.arange(M, dtype=np.uint8))
    try:
        opened = Data(path, valid, seed, window=T, stride=stride)
    except UserError:  # too short, or nothing would be left
        assert M <= T or valid > 0
        return
    learned, held = set(first_of(opened.train)), sorted(first_of(opened.valid))
    assert len(held) == len(set(held)) == valid and not any(a % T for a in held)
    overlap = {a for a in range(M) for b in held if abs(a - b) < T}
    assert learned == {*range(0, M - T, stride or T)} - overlap


def test_a_group_valid_of_text_takes_the_place_of_rows_held_out(tmp_path):
    path = make_text(tmp_path / "text.h5", train=PLACES, valid=PLACES[:30])
    opened = Data(path, valid=5, window=T, stride=1)
    assert first_of(opened.valid).tolist() == [0, 8, 16]
    assert first_of(opened.train).tolist() == list(range(M - T))


@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.parametrize("stride", [0, 1, 3, 20])
def test_rows_of_a_chunked_text_come_once_an_epoch_by_windows(stride, cache, tmp_path, monkeypatch):
    monkeypatch.setattr("dpedf.data.layout.WINDOW", 3 * CHUNK)
    path = make_text(tmp_path / "text.h5", "compressed", train=PLACES)
    opened = [Data(path, window=T, stride=stride) for rank in range(3)]
    splits, order = [data.train for data in opened], opened[0].train.order(0, 1)
    if cache == "memory":
        for data in opened:
            data.keep("memory", Ranks())
    assert not splits[0].global_shuffle
    minibatches = list(epoch_of(splits, 5, V=8, R=3, epoch=1))
    first = np.concatenate([x[:, 0] for x, y in minibatches])
    assert first.tolist() == (order * (stride or T)).tolist()
    assert sorted(first) == list(range(0, M - T, stride or T))
    assert (np.diff(first.astype(int)) < 0).any()
    if cache == "none":
        assert all(len(split.x.text.kept) <= 2 * 3 + 1 for split in splits)


# Cuts the rows of a text on a GPU, where the text lies, and on the CPU.
CUT = """
import sys
import numpy as np
from dpedf.parallel.ranks import Ranks
from dpedf.data import Data
from dpedf.device import host
from dpedf.device.gpu import acquire

gpu, ranks = acquire(0, "float32", True, print), Ranks()
for stride in 0, 1, 3, 20:
    here = Data(sys.argv[1], 2, window=8, stride=stride)
    there = Data(sys.argv[1], 2, device=gpu, window=8, stride=stride)
    there.keep("device", ranks)
    for split, its in (there.train, here.train), (there.valid, here.valid):
        both = (s.minibatches(0, 0, 5, lambda b: (0, b)) for s in (split, its))
        for (x, y, b), (its_x, its_y, its_b) in zip(*both, strict=True):
            there.put(x, y)
            assert (host(there.x.value) == its_x).all() and (host(there.y.value) == its_y).all()
            assert there.x.value.dtype == np.intp and b == its_b
    held = there.train.x, there.train.y, there.valid.x, there.valid.y
    assert len({id(rows.text.array) for rows in held}) == 1
gpu.close()
print("the same")
"""


def test_a_gpu_that_holds_the_text_cuts_the_rows_of_the_cpu(gpu, python, tmp_path):
    path = make_text(tmp_path / "text.h5", "compressed", train=TEXT)
    ran = python("-c", CUT, path, **gpu)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "the same\n", "")


WRONG_TEXT = {
    "no text to test on": (lambda file: file.pop("test"), "test/text", "no dataset"),
    "a group for a text": (put_in("test/text/deeper", TEXT), "test/text", "no dataset"),
    "fractions": (put_in("train/text", TEXT / 2), "train/text", "float64"),
    "letters": (put_in("train/text", "abcdefghijkl"), "train/text"),
    "two texts": (put_in("train/text", TEXT[:100].reshape(2, 50)), "train/text", (2, 50)),
    "nothing": (put_in("train/text", h5py.Empty("u1")), "train/text"),
    "too little": (put_in("test/text", TEXT[:T]), "test/text", "8 symbols", "data.window = 8"),
    "a symbol too large": (put_in("test/text", PLACES), "test/text", "50 at 50", "0..49"),
    "a symbol below 0": (put_in("train/text", -(PLACES * 1.0).astype(int)), "-1 at 1"),
    "less classes": (attribute("classes", 10), "train/text", "0..9"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG_TEXT)
def test_a_text_is_refused_that_has(what, tmp_path, refused):
    path = make_text(tmp_path / "text.h5", train=TEXT)
    edit, *words = WRONG_TEXT[what]
    with h5py.File(path, "a") as file:
        if what.startswith("a group"):
            del file["test/text"]
        edit(file)
    with refused(path, *words):
        Data(path, window=T)


def test_texts_take_a_window_and_other_rows_have_none(path, tmp_path, refused):
    with refused(path, "train/text", "no dataset", "data.window = 8"):
        Data(path, window=8)
    text = make_text(tmp_path / "text.h5", train=TEXT)
    with refused(text, "train/x", "expected data.window"):
        Data(text)
    with refused("data.stride = 3", "data.window"):
        Data(text, stride=3)


# Writing, and reading through.


def test_what_write_makes_says_what_it_is(tmp_path):
    about = {"name": "Rows", "source": "here", "licence": "CC0-1.0", "classes": 200}
    values = {"scale": 0.5, "mean": [1.0, 2.0, 3.0], "std": 2.0}
    write(tmp_path / "rows.h5", **about, **values, train=(X, ROWS), test=(X[:9], ROWS[:9]))
    with h5py.File(tmp_path / "rows.h5") as file:
        found = {name: np.asarray(value).tolist() for name, value in file.attrs.items()}
        assert found == about | values
        assert set(file) == {"train", "test"}
        assert file["train/x"].id.get_offset()  # contiguous
        np.testing.assert_array_equal(file["test/x"], X[:9])
        np.testing.assert_array_equal(file["train/y"], ROWS)
    assert list(tmp_path.iterdir()) == [tmp_path / "rows.h5"]


def test_a_text_is_written_once_where_it_is_given_twice(tmp_path):
    about = {"name": "Text", "source": "here", "licence": "CC0-1.0"}
    write(tmp_path / "text.h5", **about, characters="aé\n", train=TEXT, valid=PLACES, test=PLACES)
    with h5py.File(tmp_path / "text.h5") as file:
        assert file.attrs["characters"] == "aé\n"
        assert file["test/text"] == file["valid/text"] != file["train/text"]
        np.testing.assert_array_equal(file["valid/text"], PLACES)
        np.testing.assert_array_equal(file["train/text"], TEXT)


def test_an_exception_amid_writing_leaves_the_old_file_and_nothing_else(path):
    before = path.read_bytes()
    about = {"name": "a", "source": "b", "licence": "c"}
    with pytest.raises(TypeError):
        write(path, **about, train=(X, ROWS), test=(X, [object()]))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_to_read_through_reads_the_file_once(tmp_path):
    x = np.zeros((5000, 1000), np.uint8)
    opened = Data(make(tmp_path / "rows.h5", train=(x, np.arange(5000))))

    def read_so_far():
        with open("/proc/self/io") as file:
            return int(file.readline().split()[1])

    before = read_so_far()
    opened.read_through(Ranks())
    size = 2 * (x.nbytes + 5000 * 8)  # to train and to test
    assert size <= read_so_far() - before < 1.1 * size


# The loader's thread.


def test_rows_are_loaded_ahead_by_a_thread_that_ends_with_the_epoch():
    split, names = rows_of(N), set()
    gathered = split.pack

    def watched(rows, empty):
        names.add(threading.current_thread())
        return gathered(rows, empty)

    split.pack = watched
    minibatches = split.minibatches(0, 0, 4, lambda b: (0, b))
    next(minibatches)
    assert loaders()
    list(minibatches)
    assert len(names) == 1 and not loaders() and threading.current_thread() not in names


def test_an_epoch_that_is_left_early_ends_its_thread():
    minibatches = rows_of(N).minibatches(0, 0, 4, lambda b: (0, b))
    for _ in range(3):
        next(minibatches)
    assert loaders()
    minibatches.close()
    assert not loaders()


def test_what_fails_in_the_loader_reaches_its_caller(tmp_path):
    path = make(tmp_path / "rows.h5", "compressed", train=(X, ROWS))
    damage(path, "train/x")
    opened = Data(path)
    with pytest.raises(RunError, match="train/x"):
        list(epoch_of(opened.train, 4))
    assert not loaders()
