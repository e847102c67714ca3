"""Data of one's own: rows that stream into a file, the split by fractions, images and arrays."""

import os
import re
import resource
import signal
import subprocess
import sys
from zlib import crc32

import h5py
import numpy as np
import pytest
from PIL import Image
from shipped import ROOT, module_of

from dpedf.data import Data, scatter, write
from dpedf.data.disk import replacing
from dpedf.data.folders import listed
from dpedf.data.form import form_of
from dpedf.data.recipe import drawn
from dpedf.errors import UserError
from dpedf.parallel.signals import Stopped
from dpedf.run.config import load

ABOUT = {"name": "a", "source": "b", "licence": "c"}
X = np.random.default_rng(0).integers(0, 256, (500, 3, 4), np.uint8)
Y = np.arange(500) % 7


IMAGES, ARRAYS = module_of("data/images.py"), module_of("data/arrays.py")


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """run(recipe, *words): (status, its last line), writing out.h5 in a folder of its own."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.chdir(tmp_path)

    def run(module, *words):
        words = [module.__file__, *map(str, words), "--output", "out.h5"]
        monkeypatch.setattr(sys, "argv", words)
        try:
            module.main()
        except SystemExit as ended:
            *_, line = capsys.readouterr().err.splitlines()
            return ended.code, line
        return 0, capsys.readouterr().out.splitlines()[-1]

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def rows(path="out.h5"):
    """{"train/x": array, ...} of a data file, whose checksums are right."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, its: found.update({name: its}))
        found = {name: its for name, its in found.items() if isinstance(its, h5py.Dataset)}
        for name, its in found.items():
            assert its.attrs["crc32"] == crc32(its[...].tobytes()) and its.chunks is None
            found[name] = its[...]
        assert "classes" not in file.attrs or len(np.shape(file.attrs["classes"])) < 2
    return found


# The writer.


def in_blocks(sizes, x=X, y=Y):
    first = 0
    for size in sizes:
        yield x[first : first + size], y[first : first + size]
        first += size


def test_rows_are_scattered_to_the_groups_of_a_split(tmp_path):
    split = drawn(500, 0.1, 0.3, 5)
    for sizes in [500], [1, 0, 99, 400], [7] * 72:
        scatter(tmp_path / "a.h5", in_blocks(sizes), split, **ABOUT, scale=0.5, classes=7)
        found = rows(tmp_path / "a.h5")
        assert len(found) == 6
        for number, group in enumerate(("train", "valid", "test")):
            np.testing.assert_array_equal(found[f"{group}/x"], X[split == number])
            np.testing.assert_array_equal(found[f"{group}/y"], Y[split == number])
    assert Data(tmp_path / "a.h5").scale == 0.5
    scatter(tmp_path / "a.h5", in_blocks([500]), np.zeros(500, int), **ABOUT)
    assert rows(tmp_path / "a.h5").keys() == {"train/x", "train/y"}
    assert os.listdir(tmp_path) == ["a.h5"]


@pytest.mark.parametrize(
    "blocks, words",
    [
        (in_blocks([499]), "499 rows, expected the 500 of the split"),
        (in_blocks([500], X[:400]), "y has 500 rows from row 0 on, expected 400"),
        ([*in_blocks([500]), (X[:1], Y[:1])], "x has 1 rows from row 500 on, expected 0"),
        ([*in_blocks([499]), (X[:1, :2], Y[:1])], "rows of (2, 4) of uint8, expected (3, 4)"),
        (
            [*in_blocks([499]), (X[:1] / 2, Y[:1])],
            "train/x: rows of (3, 4) of float64, expected (3, 4) of uint8",
        ),
        ([(np.array([["a"]] * 500), Y)], "train/x is of <U1, expected numbers"),
    ],
)
def test_blocks_that_do_not_fit_together_write_nothing(blocks, words, tmp_path):
    with pytest.raises((UserError, TypeError), match=re.escape(words)):
        scatter(tmp_path / "a.h5", iter(blocks), np.zeros(500, int), **ABOUT)
    assert os.listdir(tmp_path) == []


MANY = """
import re
import numpy as np
from dpedf.data import scatter, spool, unfinished, write

def peak():
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\\s+([0-9]+) kB", status.read())[1])

spool.BLOCK = unfinished.BLOCK = 1 << 20
n, about = 20_000, {"name": "a", "source": "b", "licence": "c"}
blocks = ((np.zeros((1000, 1000), np.uint8), np.arange(1000)) for _ in range(n // 1000))
mapped = np.memmap("rows", np.uint8, "w+", shape=(n, 1000))
y, row = np.zeros(n, np.uint8), np.arange(1000).astype(np.uint8)
write("small.h5", **about, train=(mapped[:9], y[:9]), test=(iter(mapped[:9]), y[:9]))
before = peak()
scatter("blocks.h5", blocks, np.arange(n) % 3, **about)
write("mapped.h5", **about, train=(mapped, y), test=(row[None], y[:1]))
write("iterator.h5", **about, train=((np.roll(row, k) for k in range(n)), y))
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_rows(python, tmp_path):
    ran = python("-c", MANY, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < 12_000  # KiB, of 20 MB
    for name in "blocks", "mapped", "iterator":
        assert (tmp_path / f"{name}.h5").stat().st_size > 20e6
    with h5py.File(tmp_path / "iterator.h5") as file:
        for k in 0, 1, 1048, 1049, 1050, 19_999:
            assert file["train/x"][k, k % 1000] == 0 and file["train/x"][k, (k + 9) % 1000] == 9


def test_an_iterator_of_rows_of_growing_types_keeps_all_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr("dpedf.data.spool.BLOCK", 64)  # so that there are several blocks
    x = [*map(np.uint8, range(100)), *map(np.int32, range(-50, 0)), *map(np.float32, [0.5, 2.5])]
    y = X.ravel()[: len(x)]
    write(tmp_path / "a.h5", **ABOUT, train=(iter(x), iter(y)), test=(iter([]), iter([])))
    found = rows(tmp_path / "a.h5")
    assert found["train/x"].dtype == np.float64
    assert found["train/x"].tolist() == [float(row) for row in x]
    assert found["train/y"].dtype == np.uint8 and (found["train/y"] == y).all()
    assert found["test/x"].shape == (0,)
    for block, n in (64, 99), (1 << 24, 1):  # in another block than the others, and in theirs
        monkeypatch.setattr("dpedf.data.spool.BLOCK", block)
        with pytest.raises(TypeError, match="train/x has rows of several shapes"):
            write(tmp_path / "b.h5", **ABOUT, train=(iter([*[[1, 2]] * n, [1]]), np.zeros(n + 1)))
    assert os.listdir(tmp_path) == ["a.h5"]


def test_rows_may_be_those_of_another_file(tmp_path):
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        x = file.create_dataset("images", data=X, chunks=(7, 3, 4), compression="gzip")
        write(tmp_path / "a.h5", **ABOUT, train=(x, Y), test=(x, Y))
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["train/x"], X)
        assert file["train/x"] == file["test/x"]  # the very same dataset


def test_what_is_computed_of_a_mapped_array_is_written_as_well(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    write(tmp_path / "a.h5", **ABOUT, train=(mapped.astype(np.float32), Y))
    np.testing.assert_array_equal(rows(tmp_path / "a.h5")["train/x"], X)


STOPPED = """
import sys, time
import numpy as np
from dpedf.data import write

def slow():
    for k in range(10**6):
        if k == 3:
            print("begun", flush=True)
        time.sleep(0.01 * (k > 2))
        yield np.zeros(10**6)

about = {"name": "a", "source": "b", "licence": "c"}
write("a.h5", **about, train=(np.zeros((9, 9)), slow()))
"""


def test_a_signal_amid_writing_leaves_the_old_file_and_nothing_else(environment, tmp_path):
    command, started = [sys.executable, "-c", STOPPED], {}
    for number in signal.SIGINT, signal.SIGTERM:
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "a.h5").write_bytes(b"old")
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        started[number] = folder, subprocess.Popen(command, cwd=folder, env=environment, **pipes)
    for number, (folder, writer) in started.items():
        with writer:
            assert writer.stdout.readline() == b"begun\n"
            assert (folder / "a.h5.unfinished").exists()
            writer.send_signal(number)
            assert writer.wait(20) in (-number, 128 + number)
        assert os.listdir(folder) == ["a.h5"] and (folder / "a.h5").read_bytes() == b"old"


def test_a_disk_that_is_too_small_is_known_before_the_rows_are_read(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_500_000, before[1]))
    read = []

    def blocks():
        for k in range(100):
            read.append(k)
            yield np.zeros((1000, 10)), np.zeros(1000)

    try:
        with pytest.raises(OSError, match="File too large"):
            scatter(tmp_path / "a.h5", blocks(), np.zeros(100_000, int), **ABOUT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert read == [0] and os.listdir(tmp_path) == []


def test_of_two_that_write_one_file_the_second_does(tmp_path):
    first, second = replacing(tmp_path / "a.h5"), replacing(tmp_path / "a.h5")
    first.__enter__().write(b"first")
    second.__enter__().write(b"second")
    with pytest.raises(OSError, match="another process writes it at the same time"):
        first.__exit__(None, None, None)
    assert os.listdir(tmp_path) == ["a.h5.unfinished"]
    second.__exit__(None, None, None)
    assert os.listdir(tmp_path) == ["a.h5"] and (tmp_path / "a.h5").read_bytes() == b"second"


# The split.


def test_a_split_is_a_function_of_the_seed_and_the_number_of_rows():
    split = drawn(1000, 0.2, 0.1, 3)
    assert np.bincount(split).tolist() == [700, 200, 100]
    assert crc32(split.tobytes()) == 1_083_692_256 and split.dtype == np.uint8
    np.testing.assert_array_equal(drawn(1000, 0.5, 0.1, 3) == 2, split == 2)  # whatever validates
    np.testing.assert_array_equal(drawn(1000, None, None, 3) == 2, split == 2)
    assert (drawn(1000, 0.2, 0.1, 4) != split).sum() > 200
    assert np.bincount(drawn(3, None, 1 / 3, 0)).tolist() == [2, 0, 1]
    assert np.bincount(drawn(10, 0.2, None, 0, ["test"])).tolist() == [8, 2]


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((9, 0.01, 0.2, 0), "--valid 0.01 of 9 rows is none"),
        ((0, None, 0.2, 0), "--test 0.2 of 0 rows is none"),
        ((10, 0.9, 0.1, 0), "--valid 0.9 takes all"),
        ((10, None, 0.99, 0), "--test 0.99 takes all"),
        ((10, None, 1, 0), "--test 1, expected a fraction more than 0 and less than 1"),
        ((10, None, 0, 0), "--test 0, expected a fraction more than 0"),
        ((10, -0.1, 0.1, 0), "--valid -0.1, expected a fraction from 0"),
        ((10, float("nan"), 0.1, 0), "--valid nan, expected a fraction"),
        ((10, None, 0.1, -1), "--seed = -1, expected"),
        ((10, None, 0.1, 0, ["test"]), "--test 0.1, but there are rows for that already"),
    ],
)
def test_fractions_that_leave_a_group_empty_are_refused(arguments, words):
    with pytest.raises(UserError, match=re.escape(words)):
        drawn(*arguments)


# Arrays.


def saved(**arrays):
    for name, array in arrays.items():
        np.save(name, array)


def test_arrays_become_a_data_file_in_whatever_order_their_bytes_are(run):
    x = np.random.default_rng(0).normal(size=(60, 5, 2)).astype(np.float32)
    y, split = np.arange(60) % 3, drawn(60, 0.2, None, 8)
    kinds = {"c": x, "fortran": np.asfortranarray(x), "big": x.astype(">f4")}
    saved(**kinds, y=y, n=y / 2, truth=y > 1)
    for kind in kinds:
        status, line = run(ARRAYS, f"{kind}.npy", "y.npy", "--valid", 0.2, "--seed", 8)
        said = "out.h5: 42 rows to train, 12 to validate, 6 to test; y: labels 0..2"
        assert (status, line) == (0, said)
        found = rows()
        for number, group in enumerate(("train", "valid", "test")):
            np.testing.assert_array_equal(found[f"{group}/x"], x[split == number])
            np.testing.assert_array_equal(found[f"{group}/y"], y[split == number])
        assert found["train/x"].dtype.isnative
    assert run(ARRAYS, "c.npy", "n.npy")[1].endswith("; y: numbers")
    assert Data("out.h5").y.classes is None
    assert run(ARRAYS, "c.npy", "truth.npy", "--classes", "no", "yes")[1].endswith("labels 0..1")
    assert Data("out.h5").y.classes == 2
    assert run(ARRAYS, "c.npy", "--scale", "1/4")[1].endswith("; y: all 0")
    assert Data("out.h5").scale == 0.25 and Data("out.h5").y.classes == 1
    told = "--name", "Mine", "--licence", "CC0", "--classes", 4
    others = "--test-x", "big.npy", "--test-y", "y.npy", "--valid-x", "c.npy", "--valid-y", "y.npy"
    assert run(ARRAYS, "c.npy", "y.npy", *others, *told)[0] == 0
    assert [len(rows()[f"{group}/x"]) for group in ("train", "valid", "test")] == [60, 60, 60]
    with h5py.File("out.h5") as file:
        about = [file.attrs[key] for key in ("name", "source", "licence", "classes")]
    assert about == ["Mine", "c.npy", "CC0", 4]


def test_the_arrays_of_an_npz_are_the_groups_that_their_names_say(run):
    x, y = X[:60], Y[:60].astype(np.uint8)
    np.savez("keras.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    assert run(ARRAYS, "keras.npz", "--valid", 0.1)[1] == (
        "out.h5: 36 rows to train, 4 to validate, 20 to test; y: labels 0..6"
    )
    np.testing.assert_array_equal(rows()["test/x"], x[40:])
    np.savez_compressed("pair.npz", x=x, y=y / 4, other=[1])
    assert run(ARRAYS, "pair.npz")[1] == "out.h5: 54 rows to train, 6 to test; y: numbers"
    np.savez("val.npz", x=x, x_val=x[:7])
    assert run(ARRAYS, "val.npz")[1].startswith("out.h5: 54 rows to train, 7 to validate, 6 to")


def test_labels_of_any_group_count_as_classes(run):
    saved(x=X[:20], y=np.arange(20) % 2, x2=X[20:23], y2=np.arange(3))
    assert run(ARRAYS, "x.npy", "y.npy", "--test-x", "x2.npy", "--test-y", "y2.npy")[0] == 0
    assert Data("out.h5").y.classes == 3


def test_a_y_that_may_be_meant_for_labels_is_named(run):
    saved(x=X[:20], hot=np.eye(4)[Y[:20] % 4], whole=np.arange(20) % 3 * 1.0)
    assert run(ARRAYS, "x.npy", "hot.npy")[1].startswith("out.h5: y is one-hot, expected labels")
    assert run(ARRAYS, "x.npy", "whole.npy")[1].startswith("out.h5: y holds integers as floats")


def test_a_file_of_one_class_is_read_and_imitated_with_its_name(run, tmp_path):
    for k in range(3):
        draw(tmp_path / "pets" / "cat" / f"{k}.png")
    assert run(IMAGES, "pets", "--test", 0.4) == (
        *(0, "out.h5: 2 images to train, 1 to test, of 1 class: cat"),
    )
    data = Data("out.h5")
    assert data.y.classes == 1 and form_of(data).names == ("cat",)
    (tmp_path / "out.h5").rename("pets.h5")
    said = "out.h5: 3 images to test, of 1 class: cat"
    assert run(IMAGES, "pets", "--like", "pets.h5") == (0, said)


def test_a_recipe_keeps_the_files_that_it_reads(run, tmp_path):
    saved(x=X[:20], y=Y[:20])
    before = open("y.npy", "rb").read()
    os.link("y.npy", "out.h5")
    status, line = run(ARRAYS, "x.npy", "y.npy")
    assert (status, line.split(",")[0]) == (2, "--output out.h5 would replace y.npy")
    assert open("out.h5", "rb").read() == before
    draw(tmp_path / "pets" / "cat" / "0.png")
    os.unlink("out.h5")
    os.link("pets/cat/0.png", "out.h5")
    assert run(IMAGES, "pets", "--test", 0.5)[1].startswith("--test 0.5 of 1 row is none")
    draw(tmp_path / "pets" / "cat" / "1.png")
    said = "--output out.h5 would replace pets/cat/0.png, expected another file"
    assert run(IMAGES, "pets", "--test", 0.5)[1] == said


def test_a_recipe_that_is_stopped_says_so(run, monkeypatch):
    def stopped(*_, **about):
        raise Stopped(128 + signal.SIGINT)

    monkeypatch.setattr(ARRAYS, "scatter", stopped)
    saved(x=X[:20])
    assert run(ARRAYS, "x.npy") == (130, "stopped by Ctrl-C")


def test_arrays_that_are_none_of_rows_are_one_line(run):
    y = np.arange(20) % 3
    saved(x=np.zeros((20, 2)), y=y, short=y[:9], minus=y - 1, names=np.array(["a", "b"] * 10))
    saved(objects=np.array([{}] * 20), one=np.float64(3), none=np.zeros((0, 2)), complex=y + 1j)
    saved(wide=np.zeros((20, 3)), floats=y / 2, record=np.zeros(20, [("a", "i4")]))
    nan, inf = np.zeros((20, 2)), np.zeros(20, np.float16)
    nan[7, 1], inf[8] = np.nan, -np.inf
    saved(nan=nan, inf=inf, giant=np.full(20, 2**64 - 1, np.uint64))
    np.savez("x.npz", y=y, ids=y)
    np.savez("unlike.npz", x_train=np.zeros((20, 2)), x_test=np.zeros((20, 3)))
    open("table.npz", "w").write("1,2,3")
    np.savez("cut.npz", x=np.zeros((20, 2)))
    content = bytearray(open("cut.npz", "rb").read())
    content[50:70] = bytes(20)
    open("cut.npz", "wb").write(content)
    for name, shape in [("huge", f"({'9' * 50}, 4)"), ("open", "(" * 9), ("over", f"({2**62}, 9)")]:
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        open(f"{name}.npy", "wb").write(b"\x93NUMPY\x01\x00v\x00" + header.encode() + bytes(400))
    open("cut.npy", "wb").write(open("x.npy", "rb").read()[:200])
    open("header.npy", "wb").write(open("x.npy", "rb").read()[:30])
    open("table.npy", "w").write("1,2,3")
    os.mkfifo("pipe.npy")
    with_test = "x.npy", "y.npy", "--test-x"
    for words, said in [
        (["objects.npy"], "objects.npy: Array can't be memory-mapped: Python objects in dtype, ex"),
        (["one.npy"], "one.npy: of shape (), expected rows of numbers"),
        (["none.npy"], "none.npy: of shape (0, 2), expected rows of numbers"),
        (["complex.npy"], "complex.npy: of complex128, expected numbers"),
        (["record.npy"], "record.npy: of [('a', '<i4')], expected numbers"),
        (["x.npy", "names.npy"], "names.npy: of <U1, expected numbers; numpy.unique(y, return_in"),
        (["x.npy", "short.npy"], "short.npy: 9 rows, expected 20 as in x.npy"),
        (["x.npy", "minus.npy"], "minus.npy: label -1, expected 0..1; a y that is no label is s"),
        (["x.npy", "y.npy", "--classes", 2], "y.npy: label 2, expected 0..1; a y that is no labe"),
        (["x.npy", "y.npy", "--classes", 0], "--classes 0, expected at least 1"),
        (["x.npy", "--classes", 2], "--classes, but no y, expected labels"),
        (["x.npy", "floats.npy", "--classes", 2], "--classes, but floats.npy: of float64, expec"),
        (["x.npz"], "x.npz: holds y, ids, expected x and y, or x_train, y_train, x_test and y"),
        (["x.npz", "y.npy"], "x.npz and other files, expected all arrays in the .npz"),
        (["table.npz"], "table.npz: File is not a zip file, expected a whole .npz file"),
        (["cut.npz"], "cut.npz: "),
        (["unlike.npz"], "unlike.npz: x_test: rows of (3,) of float64, expected rows of (2,) of"),
        (["huge.npy"], "huge.npy: Python int too large to convert to C long, expected a whole"),
        (["open.npy"], "open.npy: ('EOF in multi-line statement', (2, 0)), expected a whole"),
        (["over.npy"], "over.npy: array is too big; "),
        (["nan.npy"], "nan.npy: nan in row 7, expected finite numbers"),
        (["x.npy", "inf.npy"], "inf.npy: -inf in row 8, expected finite numbers"),
        (["x.npy", "giant.npy"], "giant.npy: label 18446744073709551615, expected 0.."),
        (["table.npy"], "table.npy: another kind of file, expected a whole .npy file of numbers"),
        (["cut.npy"], "cut.npy: mmap length is greater than file size, expected a whole .npy"),
        (["header.npy"], "header.npy: EOF: reading array header"),
        (["pipe.npy"], "pipe.npy: not a regular file, expected a whole .npy file of numbers"),
        (["gone.npy"], "gone.npy: No such file or directory, expected a whole .npy file"),
        ([*with_test, "x.npy"], "rows to test: x, expected x and y"),
        ([*with_test, "wide.npy", "--test-y", "y.npy"], "wide.npy: rows of (3,) of float64, exp"),
        ([*with_test, "x.npy", "--test-y", "floats.npy"], "floats.npy: rows of () of float64, "),
        ([*with_test, "x.npy", "--test-y", "y.npy", "--test", 0.1], "--test 0.1, but there are"),
        (
            ["x.npy", "--test-x", "x.npy", "--test-y", "y.npy"],
            "rows to test: x and y, expected x alo",
        ),
    ]:
        status, line = run(ARRAYS, *words)
        assert status == 2 and line.startswith(said), line
        assert not os.path.exists("out.h5") and not os.path.exists("out.h5.unfinished")


# Images.

SMALL = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def draw(path, array=SMALL, mode=None, **options):
    """Save an image of these pixels, of a mode of Pillow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


@pytest.fixture
def pets(tmp_path):
    """A folder of five images in each of two classes."""
    for k in range(5):
        draw(tmp_path / "pets" / "cat" / f"{k}.png", SMALL + np.uint8(k))
        draw(tmp_path / "pets" / "dog" / f"{k}.PNG", SMALL - np.uint8(k))
    return tmp_path / "pets"


def test_a_folder_of_images_becomes_rows_in_the_order_of_their_names(run, pets):
    (pets / "cat" / "10.png").symlink_to("4.png")  # before 2.png
    draw(pets / "cat" / "in" / "x.jpeg", quality=100)
    (pets / ".git").mkdir()
    for name in ".DS_Store", "cat/._0.png", "labels.csv", "dog/Thumbs.db":
        (pets / name).write_bytes(b"?")
    assert run(IMAGES, "pets", "--test", 0.25, "--seed", 2) == (
        *(0, "out.h5: 9 images to train, 3 to test, of 2 classes: cat, dog"),
    )
    cats = [SMALL + np.uint8(k) for k in (0, 1, 4, 2, 3, 4)]
    with Image.open(pets / "cat" / "in" / "x.jpeg") as image:
        cats.append(np.asarray(image))
    x = np.array([*cats, *(SMALL - np.uint8(k) for k in range(5))]).transpose(0, 3, 1, 2)
    split, found = drawn(12, None, 0.25, 2), rows()
    for number, group in (0, "train"), (2, "test"):
        np.testing.assert_array_equal(found[f"{group}/x"], x[split == number])
        np.testing.assert_array_equal(found[f"{group}/y"], (np.arange(12) > 6)[split == number])
    with h5py.File("out.h5") as file:
        assert [*file.attrs["classes"]] == ["cat", "dog"] and file.attrs["name"] == "pets"
        assert file.attrs["scale"] == 1 / 255
    assert [path.name for path in listed(pets)[2]] == ["labels.csv", "Thumbs.db"]


def test_the_name_of_a_class_need_not_be_utf8(run, pets):
    draw(pets / os.fsdecode(b"caf\xe9") / "0.png")
    assert run(IMAGES, "pets", "--name", "Pets", "--licence", "CC0")[0] == 0
    with h5py.File("out.h5") as file:
        assert [*file.attrs["classes"]] == ["caf?", "cat", "dog"]
        assert (file.attrs["name"], file.attrs["licence"]) == ("Pets", "CC0")


def test_images_of_any_mode_are_rgb_or_grey_and_upright(tmp_path):
    rotated = Image.Exif()
    rotated[0x112] = 6  # to be turned clockwise
    grey, deep = SMALL[..., 0], SMALL[..., 0].astype(np.uint16) * 256 + 77
    for name, array, options, expected in [
        ("rgba.png", np.dstack([SMALL, SMALL[..., :1]]), {}, SMALL),
        ("grey.png", grey, {}, np.dstack([grey] * 3)),
        ("alpha.png", np.dstack([grey, grey]), {}, np.dstack([grey] * 3)),
        ("16.png", deep, {}, np.dstack([grey] * 3)),
        ("bits.png", grey > 127, {}, np.dstack([np.where(grey > 127, 255, 0)] * 3)),
        ("exif.png", SMALL, {"exif": rotated}, np.rot90(SMALL, -1)),
    ]:
        found = IMAGES.pixels(draw(tmp_path / name, array, **options), None, False)
        np.testing.assert_array_equal(found, expected.transpose(2, 0, 1), name)
    for mode, name in ("P", "p.png"), ("CMYK", "c.jpg"), ("L", "l.jpg"):
        path = draw(tmp_path / name, np.full((6, 8, 3), [200, 30, 30], np.uint8), mode)
        found = IMAGES.pixels(path, None, False).mean(axis=(1, 2))
        expected = [200, 30, 30] if mode != "L" else [0.299 * 200 + 0.701 * 30] * 3
        np.testing.assert_allclose(found, expected, atol=27 if mode == "P" else 3)
    assert IMAGES.pixels(tmp_path / "16.png", None, True).tolist() == grey.tolist()
    luma = SMALL @ [0.299, 0.587, 0.114]
    found = IMAGES.pixels(draw(tmp_path / "rgb.png"), None, True)
    np.testing.assert_allclose(found, luma, atol=1)


def test_an_image_covers_its_size_and_its_centre_is_taken(tmp_path):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200  # the centre
    path = draw(tmp_path / "wide.png", wide)
    for size in (20, 20), (10, 10), (40, 40), (20, 10):
        found = IMAGES.pixels(path, size, False)
        assert found.shape == (3, *size) and (found[:, :, 2:-2] == 200).all()
    found = IMAGES.pixels(path, (10, 30), True)
    assert found.shape == (10, 30) and np.abs(found - wide[::2, ::2, 0].astype(float)).max() < 60
    np.testing.assert_array_equal(IMAGES.pixels(path, (20, 60), True), wide[..., 0])


def test_folders_train_valid_and_test_are_the_split(run, tmp_path):
    for group, n in ("train", 8), ("val", 2), ("test", 3):
        for k in range(n):
            draw(tmp_path / "d" / group / "ab"[k % 2] / f"{k}.png", SMALL + np.uint8(k))
    said = "out.h5: 8 images to train, 2 to validate, 3 to test, of 2 classes: a, b"
    assert run(IMAGES, "d", "--grey") == (0, said)
    (tmp_path / "d" / "val" / "labels.csv").write_bytes(b"?")
    assert listed(tmp_path / "d")[2] == [tmp_path / "d" / "val" / "labels.csv"]
    assert rows()["train/x"].shape == (8, 6, 8)
    assert [rows()[f"{g}/y"].tolist() for g in ("valid", "test")] == [[0, 1], [0, 0, 1]]
    assert run(IMAGES, "d", "--valid", 0.1)[1].startswith("--valid 0.1, but there are rows")
    for name, other in ("train", "Train"), ("val", "Validation"), ("test", "TEST"):
        (tmp_path / "d" / name).rename(tmp_path / "d" / other)
    assert run(IMAGES, "d", "--grey") == (0, said)
    draw(tmp_path / "d" / "valid" / "a" / "0.png")
    assert run(IMAGES, "d")[1].startswith("d: folders TEST and Train and Validation and valid, ")
    (tmp_path / "d" / "valid").rename(tmp_path / "d" / "extra")
    said = "d: its folders hold folders, such as d/TEST/a, expected images in a folder for each"
    assert run(IMAGES, "d")[1].startswith(said)
    for name, other in ("train", "Train"), ("test", "TEST"):
        (tmp_path / "d" / other).rename(tmp_path / "d" / name)
    (tmp_path / "d" / "extra").rename(tmp_path / "extra")
    (tmp_path / "d" / "Validation").rename(tmp_path / "val")
    assert run(IMAGES, "d", "--valid", 0.25)[1].startswith("out.h5: 6 images to train, 2 to val")
    draw(tmp_path / "d" / "test" / "zebra" / "0.png")
    assert run(IMAGES, "d")[1] == "d/test/zebra: no such class in d/train, expected the same"


def cut(path):
    path.write_bytes((path.parent / "0.png").read_bytes()[:120])


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda d: (d / "cat" / "7.png").touch(), "pets/cat/7.png: neither PNG nor JPEG, expected"),
        (lambda d: draw(d / "cat" / "7.png", format="GIF"), "pets/cat/7.png: neither PNG nor JPEG"),
        (lambda d: cut(d / "cat" / "7.png"), "pets/cat/7.png: "),
        (lambda d: os.mkfifo(d / "cat" / "7.png"), "pets/cat/7.png: not a regular file, expected"),
        (lambda d: (d / "cat" / "7.png").symlink_to("7.png"), "pets/cat/7.png: Too many levels"),
        (lambda d: (d / "cat" / "7.jpg").symlink_to("gone"), "pets/cat/7.jpg: No such file or dir"),
        (lambda d: (d / "cat" / "up").symlink_to(".."), "pets/cat/up: a link to a folder that it "),
        (lambda d: (d / "emu").mkdir(), "pets/emu: no images, expected some in .png, .jpg, .jpeg"),
        (lambda d: draw(d / "dog" / "7.png", SMALL[:5]), "pets/dog/7.png: 5 x 8 pixels, expected"),
        (lambda d: d.rename("cats"), "pets: No such file or directory, expected a folder of ima"),
        (lambda d: d.rename("x") and draw(d / "1.png"), "pets: no folders, expected one for each"),
        (lambda d: draw(d / "cat" / "\x1b[2J.png", format="GIF"), "pets/cat/\\x1b[2J.png: neither"),
    ],
)
def test_what_is_no_folder_of_images_is_one_line_and_leaves_nothing(spoil, said, run, pets):
    spoil(pets)
    status, line = run(IMAGES, "pets")
    assert status == 2 and line.startswith(said), line
    assert not [name for name in os.listdir() if name.startswith("out.h5")]


def test_broken_images_are_all_named_and_may_be_left_out(run, pets):
    cut(pets / "cat" / "7.png")
    for k in range(12):
        (pets / "dog" / f"a{k:02}.png").touch()
    status, line = run(IMAGES, "pets")
    assert (
        status == 2
        and line.startswith("pets/cat/7.png: ")
        and line.endswith(
            f"; broken too: {', '.join(f'pets/dog/a{k:02}.png' for k in range(10))} and 2 more; "
            "--skip-broken leaves out such images"
        )
    )
    status, line = run(IMAGES, "pets", "--skip-broken")
    assert line == "out.h5: 9 images to train, 1 to test, of 2 classes: cat, dog"
    assert sorted(rows()["train/y"]) in ([0] * 4 + [1] * 5, [0] * 5 + [1] * 4)


def test_more_images_are_made_like_those_to_train(run, pets, tmp_path):
    assert run(IMAGES, "pets", "--size", 4, 5)[0] == 0
    (tmp_path / "out.h5").rename("pets.h5")
    draw(tmp_path / "new" / "dog" / "0.png")
    said = "out.h5: 1 image to test, of 2 classes: cat, dog"
    assert run(IMAGES, "new", "--like", "pets.h5") == (0, said)
    expected = IMAGES.pixels(tmp_path / "new" / "dog" / "0.png", (4, 5), False)
    assert rows().keys() == {"test/x", "test/y"} and rows()["test/y"].tolist() == [1]
    np.testing.assert_array_equal(rows()["test/x"], [expected])
    with h5py.File("pets.h5", "r+") as file:
        file.attrs["mean"] = 0.25
    said = "out.h5: 1 image to test, without labels"
    assert run(IMAGES, "new/dog", "--like", "pets.h5") == (0, said)
    assert rows().keys() == {"test/x"}
    with h5py.File("out.h5") as file:
        assert (file.attrs["scale"], file.attrs["mean"]) == (1 / 255, 0.25)
    np.testing.assert_array_equal(rows()["test/x"], [expected])
    grey = {"train": (X, Y), "test": (X, Y)}
    write("grey.h5", **ABOUT, **grey, classes=7)
    assert run(IMAGES, "new/dog", "--like", "grey.h5")[0] == 0
    expected = IMAGES.pixels(tmp_path / "new" / "dog" / "0.png", X.shape[1:], True)
    np.testing.assert_array_equal(rows()["test/x"], [expected])
    write("floats.h5", **ABOUT, train=(X / 2, Y), test=(X / 2, Y), classes=7)
    for words, said in [
        (["pets", "--like", "pets.h5", "--size", 4], "--size, --grey, --valid or --test with --li"),
        (["pets", "--like", "gone.h5"], "--like gone.h5: no such file, expected one that data/im"),
        (["pets", "--like", "out.h5"], "--output out.h5 would replace out.h5, expected another"),
        (["new", "--like", "new/dog/0.png"], "--like new/dog/0.png: "),
        (["pets", "--like", "floats.h5"], "--like floats.h5: no images of classes to train, exp"),
        (["more", "--like", "pets.h5"], "more/emu: no such class in pets.h5, expected the same"),
    ]:
        draw(tmp_path / "more" / "emu" / "0.png")
        status, line = run(IMAGES, *words)
        assert status == 2 and line.startswith(said), line


def test_sizes_that_are_none_and_a_pillow_that_is_not_there_are_one_line(run, pets, monkeypatch):
    for size in [0], [-1], [1, 2, 3], [1, 0]:
        status, line = run(IMAGES, "pets", "--size", *size)
        assert (status, line.split(",")[1]) == (2, " expected one or two above 0")
    assert run(IMAGES, "pets", "--size", 10**6)[1].startswith("--size 1000000 1000000: 12,000,000")
    monkeypatch.setitem(sys.modules, "PIL", None)
    status, line = run(IMAGES, "pets")
    assert status == 2 and 'expected what `pip install -e ".[images]"` brings' in line


CONFIG = """
data.file = "out.h5"
model = {build = "mlp", sizes = [48, 8, 3]}
train = {epochs = 20, batch_size = 20, slices = 2, learning_rate = 0.5}
"""


def test_a_run_learns_from_images(run, python, tmp_path):
    random = np.random.default_rng(0)
    for k in range(150):
        image = random.integers(0, 60, (9, 11 + k % 3, 3), np.uint8)
        image[..., k % 3] += 150
        draw(tmp_path / "colours" / f"class {k % 3}" / f"{k}.{'png' if k % 2 else 'jpg'}", image)
    assert run(IMAGES, "colours", "--size", 4, "--test", 0.2)[0] == 0
    (tmp_path / "colours.toml").write_text(CONFIG)
    ran = python("-m", "dpedf.train", "colours.toml", cwd=tmp_path)
    assert ran.returncode == 0 and ", accuracy 100.00 %, " in ran.stdout, ran.stdout + ran.stderr


def test_the_configs_of_the_page_on_data_are_such(tmp_path):
    page = (ROOT / "data" / "README.md").read_text()
    configs = re.findall(r"```toml\n(.+?)```", page, re.DOTALL)
    for config, build in zip(configs, ["tabular", "convnet"], strict=True):
        path = tmp_path / f"{build}.toml"
        path.write_text(config)
        assert load(str(path)).model["build"] == build
