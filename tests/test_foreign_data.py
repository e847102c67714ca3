"""dpedf.data: files as others write them: their types, attributes, labels, groups and habits."""

import os
import tracemalloc
from fractions import Fraction

import h5py
import numpy as np
import pytest
from h5py import h5t

from dpedf.data import Data, write
from dpedf.data.layout import ArrayRows
from dpedf.errors import UserError
from dpedf.parallel.ranks import Ranks
from dpedf.run.resume import described

N = 20
X = np.arange(3 * N, dtype=np.uint8).reshape(N, 3)
Y = np.arange(N) % 4
ABOUT = {"name": "a", "source": "b", "licence": "c"}
LAYOUTS = {"contiguous": {}, "chunked": {"chunks": True}}


def make(path, x=X, y=Y, layout="contiguous", **attributes):
    """A data file of these rows, to train and to test, written by h5py alone."""
    with h5py.File(path, "w") as file:
        for group in "train", "test":
            for name, rows in ("x", x), ("y", y):
                file.create_dataset(f"{group}/{name}", data=rows, **LAYOUTS[layout])
        file.attrs.update(attributes)
    return path


@pytest.fixture
def path(tmp_path):
    return make(tmp_path / "rows.h5")


def inputs(path, cache="none", dtype=np.float32):
    """x and y of all rows to learn from, as a model gets them."""
    data = Data(path, dtype=dtype)
    data.read_through(Ranks()) if cache == "none" else data.keep(cache, Ranks())
    data.put(*data.train.load(data.train.numbers))
    return data.x.value, data.y.value


# Types that NumPy does not have, or that h5py gives another one.


def floats(size, offset, mantissa, exponent, bias, order=h5t.ORDER_LE):
    """A type of floats: a sign, then so many bits of exponent and mantissa, from a bit on."""
    made, bits = h5t.IEEE_F64LE.copy(), 1 + exponent + mantissa
    made.set_fields(offset + bits - 1, offset + mantissa, exponent, offset, mantissa)
    made.set_ebias(bias)
    made.set_offset(offset)
    made.set_precision(bits)
    made.set_size(size)
    made.set_order(order)
    return made


def integers(like, precision, offset):
    """A type of integers of so many bits, from a bit on."""
    made = like.copy()
    made.set_precision(precision)
    made.set_offset(offset)
    return made


def truth():
    made = h5t.enum_create(h5t.STD_I32LE)
    made.enum_insert(b"FALSE", 0)
    made.enum_insert(b"TRUE", 1)
    return made


TYPES = {
    "bfloat16": lambda: floats(2, 0, 7, 8, 127),
    "bfloat16 of another order": lambda: floats(2, 0, 7, 8, 127, h5t.ORDER_BE),
    "floats of three bytes": lambda: floats(3, 0, 16, 7, 63),
    "floats of one byte": lambda: floats(1, 0, 3, 4, 7),
    "floats of another bias": lambda: floats(4, 0, 23, 8, 100),
    "integers of 12 bits": lambda: integers(h5t.STD_I16LE, 12, 0),
    "integers of 12 bits from bit 4 on": lambda: integers(h5t.STD_I16LE, 12, 4),
    "integers of 12 bits from bit 3 on, of another order": lambda: integers(h5t.STD_U16BE, 12, 3),
    "bytes of another order": lambda: h5t.STD_I8BE,
    "long doubles": lambda: h5t.NATIVE_LDOUBLE,
    "truth values of four bytes": truth,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", TYPES)
def test_numbers_are_those_that_hdf5_reads(kind, layout, path):
    expected, stored = np.arange(3 * N).reshape(N, 3) % 2, TYPES[kind]()
    with h5py.File(path, "a") as file:
        del file["train/x"]
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        if layout == "chunked":
            plan.set_chunk((7, 3))
        space = h5py.h5s.create_simple(expected.shape)
        dataset = h5py.h5d.create(file["train"].id, b"x", stored, space, plan)
        given, known_as = expected.astype(np.float64), h5t.NATIVE_DOUBLE
        if isinstance(stored, h5t.TypeEnumID):
            given, known_as = expected.astype("<i4"), stored
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, given, mtype=known_as)
    for cache in "none", "memory":
        np.testing.assert_array_equal(inputs(path, cache)[0], expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_truth_values_are_0_and_1_for_x_and_two_classes_for_y(layout, path):
    make(path, X > 30, Y > 1, layout)
    for cache in "none", "memory":
        x, y = inputs(path, cache)
        np.testing.assert_array_equal(x, X > 30)
        np.testing.assert_array_equal(y, Y > 1)
    assert Data(path).y.classes == 2


# Scaled before they are rounded.

LARGE = 1.7e9


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stored", ["i4", "u4", ">i8", "u8", "f4", "f8", "longdouble"])
def test_what_large_numbers_differ_in_survives(stored, layout, path):
    x = LARGE + 128 * np.arange(100).reshape(100, 1) + (stored != "f4")
    mean, std = LARGE + 0.25, np.array([3.0])
    make(path, x.astype(stored), np.zeros(100, int), layout, mean=mean, std=std)
    for dtype in np.float32, np.float64:
        expected = ((x.astype(np.longdouble) - mean) / std).astype(dtype)
        for cache in "none", "memory":
            found, _ = inputs(path, cache, dtype)
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, expected)


def expected_of(x, scale, mean, std):
    """By Python's fractions."""
    scale, mean, std = map(Fraction, (scale, mean, std))
    return [float((Fraction(int(number)) * scale - mean) / std) for number in x.flat]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("stored", "first", "attributes"),
    [
        ("i8", 1_700_000_000_000_000_000, {"mean": 1_700_000_000_000_000_050, "std": 29.0}),
        ("u8", 2**63, {"mean": 2**63 + 30, "std": 16.0}),
        ("longdouble", 17 * 10**17, {"mean": 17 * 10**17 + 50, "std": 29.0}),
        ("i8", 17 * 10**11, {"scale": 1e-3, "mean": 1.7e9, "std": 0.029}),
        ("u2", 60_000, {"mean": 60_024.37, "std": 14.43}),
        ("i2", -30_000, {"mean": -29_975.6, "std": 0.5}),
        ("f2", 1_024, {"mean": 1_050.37, "std": 14.43}),
        ("u1", 200, {"mean": 200.0000001, "std": 1e-6}),
    ],
)
def test_numbers_keep_what_they_differ_in_however_far_their_mean(
    stored, first, attributes, layout, path
):
    x = (np.arange(50, dtype="u8").reshape(50, 1) + np.array(first).astype("u8")).astype("i8")
    x = x.astype("u8" if stored == "u8" else "i8").astype(stored)
    make(path, x, np.zeros(50, int), layout, **attributes)
    expected = expected_of(x, **{"scale": 1, "mean": 0, "std": 1} | attributes)
    for cache in "none", "memory":
        found, _ = inputs(path, cache)
        np.testing.assert_allclose(found[:, 0], expected, 3e-6, 3e-6)


def test_numbers_of_two_bytes_that_become_too_large_are_refused(path, refused):
    largest = np.array([[250, 250, 255]], np.uint8).repeat(N, 0)
    make(path, largest, scale=1.33e36)
    np.testing.assert_allclose(inputs(path)[0], largest * 1.33e36, 1e-6)
    make(path, X.astype("f2"), scale=1e34)  # of which others could be too large
    np.testing.assert_allclose(inputs(path)[0], X * 1e34, 1e-6)
    make(path, largest, scale=1.33e36, std=-1e-2)
    with refused(path, "train/x", "250 in row 0 becomes -inf, expected what float32 can hold"):
        inputs(path)


def test_numbers_beyond_float32_are_scaled_into_it(path):
    make(path, X * 1e39, scale=1e-39)
    np.testing.assert_allclose(inputs(path)[0], X, 1e-6)
    make(path, X * 1e39, mean=1e39, std=1e39)
    np.testing.assert_allclose(inputs(path)[0], X - 1.0, 1e-6)


@pytest.mark.parametrize("stored", ["u1", "i2", "f2"])
def test_numbers_of_two_bytes_are_scaled_on_the_device(stored, path):
    make(path, X.astype(stored), scale=1 / 255, mean=0.3, std=0.7)
    scale, shift = np.float32(1 / 255 / 0.7), np.float32(-0.3 / 0.7)
    np.testing.assert_array_equal(inputs(path)[0], X.astype(np.float32) * scale + shift)
    x, _ = Data(path).train.load(np.arange(2))
    assert x.dtype == stored  # as it travels


# Streams rows to a GPU, and keeps them there.
ON_A_GPU = """
import sys
import numpy as np
from dpedf.parallel.ranks import Ranks
from dpedf.data import Data
from dpedf.device import host
from dpedf.device.gpu import acquire

gpu = acquire(0, "float32", True, print)
for cache in "none", "device":
    data = Data(sys.argv[1], device=gpu)
    if cache == "device":
        data.keep("device", Ranks())
    for x, y, _ in data.train.minibatches(0, 0, 7, lambda b: (0, b)):
        assert x.dtype == np.float32
        data.put(x, y)
        assert (host(data.x.value)[:, 0] == host(data.y.value) / 4).all()
gpu.close()
print("the same")
"""


def test_large_numbers_are_scaled_before_they_travel_to_a_gpu(path, gpu, python):
    make(path, LARGE + Y[:, None], Y, mean=LARGE, std=4)
    ran = python("-c", ON_A_GPU, path, **gpu)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "the same\n", "")


# Attributes.

NAMES = ["cat", "dog", "é", "fox"]
CLASSES = {
    "a list": np.array([4], np.int32),
    "a fraction": 4.0,
    "a matrix of a fraction": np.array([[4.0]]),
    "names": NAMES,
    "names of fixed length": np.array([name.encode() for name in NAMES], "S5"),
}


@pytest.mark.parametrize("what", CLASSES)
def test_classes_may_be_stored_as(what, path):
    assert Data(make(path, classes=CLASSES[what])).y.classes == 4


@pytest.mark.parametrize("found", [4.5, np.nan, np.inf, np.True_, b"4"])
def test_classes_may_not_be(found, path, refused):
    with refused(path, "attribute classes"):
        Data(make(path, classes=found))


def test_numbers_and_texts_may_be_stored_in_any_type(path):
    fixed = {"name": np.bytes_("é".encode()), "characters": np.bytes_("aé".encode())}
    numbers = {"scale": np.int32(2), "mean": np.array([1], ">f4"), "std": np.float16(4)}
    data = Data(make(path, **fixed, **numbers, licence=np.bytes_(b"\xff"), source=np.True_))
    found = [data.stored.attribute(name, None) for name in fixed]
    assert found == ["é", "aé"]
    np.testing.assert_array_equal(inputs(path)[0], (2 * X - 1.0) / 4)


def test_a_text_of_another_encoding_is_shown_with_its_bytes(path):
    names = np.array([b"caf\xe9", b"t\xeate", b"a", b"b"])
    data = Data(make(path, name=names[0], classes=names))
    assert data.stored.attribute("name", None) == "caf\\xe9" and data.y.classes == 4
    assert "named caf\\xe9" in described(data)


def test_an_image_for_the_mean_is_an_attribute_or_a_dataset(path):
    x = np.random.default_rng(0).integers(0, 256, (N, 96, 96), np.uint8)
    mean, std = x.mean(axis=0), 1 + x.std(axis=0)
    names = [f"class {k}" for k in range(5000)]
    rows = {"train": (x, Y), "test": (x, Y)}
    write(path, **ABOUT, mean=mean, std=std, scale=np.ones((96, 96)), classes=names, **rows)
    expected = (x - mean) / std
    np.testing.assert_allclose(inputs(path)[0], expected, 1e-4, 1e-4)
    assert Data(path).y.classes == 5000
    make(path, x)
    with h5py.File(path, "a") as file:  # whose attributes end at 64 KiB
        file["mean"], file["std"] = mean, std
    np.testing.assert_allclose(inputs(path)[0], expected, 1e-4, 1e-4)


def test_names_of_classes_may_come_as_an_array(path):
    write(path, **ABOUT, classes=np.array(NAMES), train=(X, Y), test=(X, Y))
    assert Data(path).y.classes == 4
    assert Data(path).stored.attribute("classes", None).tolist() == NAMES


# Labels that are none, and what is not read.


def hint(path, y, **attributes):
    """What is said where a model does not take these labels."""
    data = Data(make(path, y=y, **attributes))
    with pytest.raises(UserError) as found, data.explaining():
        raise UserError("no")
    return str(found.value)


def test_an_error_of_the_model_says_what_labels_look_like(path):
    assert hint(path, Y) == "no"
    assert "y holds integers as floats" in hint(path, Y.astype(float))
    assert hint(path, Y + 0.5) == "no"
    for dtype in "u1", "f4":
        assert "y is one-hot" in hint(path, np.eye(4, dtype=dtype)[Y])
    assert hint(path, np.tile([0, 1, 1, 1], (N, 1))) == "no"
    assert "y is (N, 1), expected (N,)" in hint(path, Y[:, None])
    assert "label 3 is followed by 255" in hint(path, np.where(Y == 0, 255, Y))
    assert hint(path, np.where(Y == 0, 255, Y), classes=256) == "no"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_that_leave_some_out_are_said_to_do_so(layout, path):
    def said(y):
        data = Data(make(path, y=y, layout=layout))
        return [note.removeprefix(f"{path}: train/y: ") for note in data.notes]

    assert said(Y) == said(Y > 1) == []
    first = "5 classes, since the largest label is 4, in row 3"
    assert said(Y + 1) == [f"{first}; no row has label 0"]
    assert said(2 * Y)[0].endswith("no row has label 1")
    stray = np.where(np.arange(N) == 5, 10**9, Y)
    found = "1000000001 classes, since the largest label is 1000000000, in row 5"
    assert said(stray) == [f"{found}; no row has label 4"]
    assert hint(path, stray).endswith(said(stray)[0])
    assert Data(make(path, y=Y + 1, classes=5)).notes == []


def test_labels_from_1_on_are_said_to_begin_at_0(path, refused):
    with refused(path, "label 4 in row 3, expected 0..3; labels count from 0"):
        Data(make(path, y=Y + 1, classes=4))


@pytest.mark.parametrize("label", [255, -1, -100])
def test_a_label_that_may_mean_to_be_ignored_is_said_to_take_a_mask(label, path, refused):
    with refused(path, "train/y", f"label {label} in row 0", "0..3", "ignore"):
        Data(make(path, y=np.where(Y == 0, label, Y), classes=4))


def test_what_is_not_read_is_said(path, refused):
    assert Data(path).notes == []
    with h5py.File(path, "a") as file:
        file["val/x"], file["train/weight"], file.attrs["created"] = X, Y, "now"
        file["train/other"] = h5py.SoftLink("/nowhere")
    names = "val, train/other, train/weight, attribute created"
    expected = "expected groups train, valid, test with x and y"
    assert Data(path).notes == [f"{path}: not read: {names}; {expected}"]
    with h5py.File(path, "a") as file:
        file.move("test", "testing")
    with refused(path, "test/x", "not read: testing, val"):
        Data(path)
    with h5py.File(path, "w") as file:
        file["train"], file["labels"] = X, Y
    with refused(path, "no dataset train/x", "not read: labels, train, a dataset"):
        Data(path)
    with refused(path, "group val", "valid"):
        write(path, **ABOUT, train=(X, Y), val=(X, Y), test=(X, Y))


def test_attributes_that_are_not_those_of_the_file_are_said_to_be_unread(path):
    write(path, **ABOUT, train=(X, Y), test=(X + 1, Y))
    with h5py.File(path, "a") as file:
        file["train/x"].dims[0].label = "row"
        file["train/y"].make_scale("labels")
        file["train/x"].dims[0].attach_scale(file["train/y"])
    assert Data(path).notes == []
    with h5py.File(path, "a") as file:
        file["train/x"].attrs["scale_factor"] = file["test"].attrs["mean"] = 2.0
    (note,) = Data(path).notes
    names = "scale_factor of train/x (not of the file), attribute mean of test (not of the file)"
    assert f"not read: attribute {names}; expected" in note


def test_labels_of_minus_one_and_one_are_said_to_be_0_and_1(path, refused):
    for classes in {}, {"classes": 2}:
        with refused(path, "label -1 in row 0", "of two classes, labels are 0 and 1, here y > 0"):
            Data(make(path, y=np.where(Y < 2, -1, 1), **classes))
    for y in Y - 1, -(Y > 1).astype(int):
        with refused(path, "label -1", "ignore"):
            Data(make(path, y=y))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_that_are_all_equal_are_described_as_they_are(layout, path):
    for y in Y > 9, Y >= 0:
        data = Data(make(path, y=y, layout=layout))
        assert (data.y.classes, data.notes) == (2, [])
    (note,) = Data(make(path, y=np.full(N, 255), layout=layout)).notes
    assert "256 classes, since the largest label is 255, in row 0; no row has label 0" in note


def test_what_labels_look_like_is_looked_up_without_reading_x(path, monkeypatch):
    data = Data(make(path, y=Y * 1.0))
    monkeypatch.setattr(data.train.x, "gather", None)
    with pytest.raises(UserError, match="integers as floats"), data.explaining():
        raise UserError("no")


# Files that this process has open, and where they are.


def test_a_file_that_this_process_reads_too_is_opened(path):
    with h5py.File(path) as file:
        data = Data(path)
        np.testing.assert_array_equal(inputs(path)[0], file["train/x"])
        with h5py.File(path) as another:
            np.testing.assert_array_equal(another["train/y"], Y)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["train/x"], data.train.load(np.arange(N))[0])


@pytest.mark.parametrize("mode", ["w", "a", "r+"])
def test_a_file_that_this_process_writes_to_is_refused_and_can_be_replaced(mode, path, refused):
    with h5py.File(path, mode) as file:
        with refused(path, "this process", "to write to it"):
            Data(path)
        write(path, **ABOUT, train=(X + 1, Y), test=(X, Y))
        np.testing.assert_array_equal(inputs(path)[0], X + 1)
        file.attrs["more"] = 1
    np.testing.assert_array_equal(inputs(path)[0], X + 1)


@pytest.mark.parametrize("driver", ["sec2", "stdio", "core"])
def test_a_file_of_which_this_process_holds_a_part_to_write_to_it_is_refused(driver, path, refused):
    for part in "train/x", "train", "/":
        held = h5py.File(path, "r+", driver=driver)[part]
        with refused(path, "this process", "to write to it"):
            Data(path)
        held.file.close()
        with h5py.File(path, driver=driver) as file:
            np.testing.assert_array_equal(inputs(path)[0], file["train/x"])


def test_a_tilde_is_the_home_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write("~/rows.h5", **ABOUT, train=(X, Y), test=(X, Y))
    assert os.listdir(tmp_path) == ["rows.h5"]
    assert Data("~/rows.h5").path == f"{tmp_path}/rows.h5"


# Numbers that a program of one's own gives.

GIVEN = {"valid": "data.valid", "seed": "seed", "window": "data.window", "stride": "data.stride"}


@pytest.mark.parametrize("found", [-5, 0.1, 2.0, True, None, "3"])
@pytest.mark.parametrize("name", GIVEN)
def test_a_number_of_no_rows_is_refused(name, found, path, refused):
    with refused(f"{GIVEN[name]} = {found!r}", "expected an integer of at least 0"):
        Data(path, **{name: found})


def test_numbers_may_be_those_of_numpy(path):
    assert len(Data(path, valid=np.int64(5), seed=np.uint8(3)).valid) == 5


@pytest.mark.parametrize("B", [-1, 0, 2.0, True])
def test_a_minibatch_of_no_rows_is_refused(B, path, refused):
    with refused(f"B = {B}", "expected an integer of at least 1"):
        next(Data(path).train.minibatches(0, 0, B, lambda b: (0, b)))


# Rows in other files.

ROWS = X + 100


@pytest.fixture
def elsewhere(tmp_path):
    """A file beside the one with links, whose numbers lie where that one has others."""
    with h5py.File(tmp_path / "source.h5", "w") as file:
        file["x"], file["short"], file["chunked"] = ROWS, ROWS[:5], h5py.SoftLink("deep/chunked")
        file.create_dataset("deep/chunked", data=ROWS, chunks=(7, 2), maxshape=(None, 3))
    ROWS.tofile(tmp_path / "raw")
    return tmp_path / "source.h5"


def virtual(*parts):
    """Puts a dataset of parts: (rows, file, dataset, its rows or None for all of it)."""

    def put(file):
        layout = h5py.VirtualLayout((N, 3), "u1")
        for rows, name, dataset, its in parts:
            given = h5py.VirtualSource(name, dataset, (N, 3))
            layout[rows] = given if its is None else given[its]
        file.create_virtual_dataset("train/x", layout)

    return put


def linked(target):
    return lambda file: file.update({"train/x": target})


def raw(*parts):
    return lambda file: file.create_dataset("train/x", (N, 3), "u1", external=[*parts])


def nested(file):
    virtual((slice(0, N), "source.h5", "x", slice(0, N)))(file)
    file.move("train/x", "here")
    virtual((slice(0, N), ".", "here", slice(0, N)))(file)


def unlimited(file):
    layout, end = h5py.VirtualLayout((N, 3), "u1", maxshape=(None, 3)), h5py.h5s.UNLIMITED
    source = h5py.VirtualSource("source.h5", "chunked", (N, 3), maxshape=(None, 3))
    layout[:end] = source[:end]
    file.create_virtual_dataset("train/x", layout)


ALL, HALF, REST = slice(0, N), slice(0, N // 2), slice(N // 2, N)
EVEN, ODD = slice(0, N, 2), slice(1, N, 2)
ELSEWHERE = {
    "behind a link": linked(h5py.ExternalLink("source.h5", "x")),
    "in chunks behind two links": linked(h5py.ExternalLink("source.h5", "/chunked")),
    "of one file": virtual((ALL, "source.h5", "x", ALL)),
    "of all of one file": virtual((ALL, "source.h5", "chunked", None)),
    "of two datasets": virtual(
        (HALF, "source.h5", "x", HALF), (REST, "source.h5", "chunked", REST)
    ),
    "that take turns": virtual((ODD, "source.h5", "x", ODD), (EVEN, "source.h5", "chunked", EVEN)),
    "of a source of its own": nested,
    "in a raw file": raw(("raw", 0, h5py.h5f.UNLIMITED)),
    "in two parts of it": raw(("raw", 0, 30), ("raw", 30, 30)),
}


@pytest.mark.parametrize("what", ELSEWHERE)
def test_rows_in_other_files_are_read(what, path, elsewhere, tmp_path, monkeypatch):
    with h5py.File(path, "a") as file:
        del file["train/x"]
        ELSEWHERE[what](file)
    (tmp_path / "folder").mkdir()
    os.symlink(path, tmp_path / "folder" / "rows.h5")
    monkeypatch.chdir(tmp_path)  # where HDF5 looks for raw files
    for where in path, "rows.h5", "folder/rows.h5":
        for cache in "none", "memory":
            np.testing.assert_array_equal(inputs(where, cache)[0], ROWS)
    with h5py.File(elsewhere) as _, h5py.File(path) as file:  # as this process may have them
        np.testing.assert_array_equal(inputs(path)[0], file["train/x"])


@pytest.mark.parametrize("what", ELSEWHERE)
def test_a_change_of_another_file_with_rows_is_noticed(what, path, elsewhere, monkeypatch, refused):
    monkeypatch.chdir(path.parent)
    with h5py.File(path, "a") as file:
        del file["train/x"]
        ELSEWHERE[what](file)
    data = Data(path)
    before = described(data)
    source = path.parent / ("raw" if "raw" in what or "parts" in what else "source.h5")
    os.utime(source, (1, 1))
    with refused(source.name, "somebody has written to it"):
        data.train.load(np.arange(3))
    if source.name == "raw":
        (ROWS + 1).tofile(source)
    else:
        with h5py.File(source, "a") as file:
            file["x"][...], file["chunked"][...] = ROWS + 1, ROWS + 1
    assert described(Data(path)) != before  # so that no run is resumed with it
    source.unlink()
    if "link" not in what:  # such a file is still open
        with refused(source.name, "No such file"):
            data.train.load(np.arange(3))


def test_a_file_of_sources_that_is_replaced_is_noticed(path, elsewhere, refused):
    with h5py.File(path, "a") as file:
        del file["train/x"]
        ELSEWHERE["of one file"](file)
    data = Data(path)
    for replaced_by in lambda path: None, make, os.mkfifo:
        path.unlink(missing_ok=True)
        replaced_by(path)
        with refused(path, "it was replaced"):
            data.train.load(np.arange(3))


def grown(file):
    with h5py.File("source.h5", "a") as source:
        source["deep/chunked"].resize((N + 9, 3))
    linked(h5py.ExternalLink("source.h5", "chunked"))(file)


def circle(file):
    virtual((ALL, ".", "train/x", ALL))(file)


NOT_THERE = {
    "a link to no file": (linked(h5py.ExternalLink("no.h5", "x")), "no.h5", "no such file"),
    "a link to no dataset": (linked(h5py.ExternalLink("source.h5", "/z")), "source.h5", "no /z"),
    "a link to a FIFO": (linked(h5py.ExternalLink("fifo", "x")), "fifo", "not a regular file"),
    "a link to a folder": (linked(h5py.ExternalLink("folder", "x")), "folder", "directory"),
    "a link to raw numbers": (linked(h5py.ExternalLink("raw", "x")), "raw", "whole HDF5 file"),
    "links in a circle": (linked(h5py.ExternalLink("rows.h5", "/train/x")), "in a circle"),
    "a source without all of its chunks": (grown, "source.h5", "chunks are stored"),
    "no source": (virtual((ALL, "no.h5", "x", ALL)), "train/x", "no.h5: no such file"),
    "a source that is a FIFO": (virtual((ALL, "fifo", "x", ALL)), "fifo", "not a regular file"),
    "no dataset in a source": (virtual((ALL, "source.h5", "z", ALL)), "source.h5", "no dataset z"),
    "too small a source": (
        virtual((HALF, "source.h5", "x", HALF), (REST, "source.h5", "short", HALF)),
        *("source.h5", "shape (5, 3), expected at least (10, 3)"),
    ),
    "too small a source, of which all is taken": (
        virtual((ALL, "source.h5", "short", None)),
        *("source.h5", "shape (5, 3), expected 60 numbers"),
    ),
    "rows of no source": (virtual((EVEN, "source.h5", "x", EVEN)), "(1, 0) comes from none"),
    "no sources": (virtual(), "(0, 0) comes from none"),
    "sources in a circle": (circle, "in a circle"),
    "a source without an end": (unlimited, "source.h5", "without an end"),
    "a raw file that is a FIFO": (raw(("fifo", 0, 60)), "fifo", "not a regular file"),
    "too short a raw file": (raw(("raw", 1, 60)), "file raw, which has 60 bytes, expected 61"),
}


@pytest.mark.parametrize("what", NOT_THERE)
def test_rows_that_are_not_in_another_file_are_refused(
    what, path, elsewhere, tmp_path, monkeypatch, refused
):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    os.mkdir("folder")
    put, *words = NOT_THERE[what]
    with h5py.File(path, "a") as file:
        del file["train/x"]
        put(file)
    with refused(path, *words):
        Data(path)


def by_a_filter(file, group, content):
    """A chunk of x that went through filter 32001, or, for None, that it left as it was."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk(X.shape)
    plan.set_filter(32001, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple(X.shape)
    made = h5py.h5d.create(file[group].id, b"x", h5t.NATIVE_UINT8, space, plan)
    if content is None:
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, X)
    else:
        made.write_direct_chunk((0, 0), content)


def test_a_filter_that_is_not_there_is_named_where_it_is_needed(path, refused):
    for content in None, b"compressed":
        with h5py.File(path, "a") as file:
            del file["train/x"]
            by_a_filter(file, "train", content)
        if content is None:
            np.testing.assert_array_equal(inputs(path)[0], X)
    with refused(path, "train/x: compressed by filter 32001", "package hdf5plugin"):
        Data(path)


# Whatever write is given.


def test_arrays_that_come_and_go_are_each_written(tmp_path):
    groups = {}
    for k, group in enumerate(("train", "valid", "test")):
        files = tmp_path / f"x{k}.npy", tmp_path / f"y{k}.npy"
        for file, array in zip(files, (X + k, Y + k), strict=True):
            np.save(file, array)
        groups[group] = map(np.load, files)
    write(tmp_path / "rows.h5", **ABOUT, **groups)
    with h5py.File(tmp_path / "rows.h5") as file:
        for k, group in enumerate(("train", "valid", "test")):
            np.testing.assert_array_equal(file[f"{group}/x"], X + k)
            np.testing.assert_array_equal(file[f"{group}/y"], Y + k)


def test_an_array_that_is_used_again_is_written_as_it_was(path):
    def filled():
        for k in range(2):
            buffer[...] = X + k
            yield buffer

    buffer, xs = np.empty_like(X), filled()
    write(path, **ABOUT, train=(next(xs) for _ in [0, 0]), test=(X, Y))
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["train/x"], X)
        np.testing.assert_array_equal(file["train/y"], X + 1)


def test_a_text_that_hdf5_cannot_hold_is_named(path, refused):
    with refused(path, "licence with a NUL"):
        write(path, **ABOUT | {"licence": "\0"}, train=(X, Y), test=(X, Y))


def test_rows_may_come_one_by_one(path):
    train = (row for row in X), iter(Y.tolist())
    write(path, **ABOUT, train=train, test=(X.tolist(), np.array(Y)))
    data = Data(path)
    np.testing.assert_array_equal(data.train.load(np.arange(N))[0], X)
    np.testing.assert_array_equal(data.train.load(np.arange(N))[1], Y)
    np.testing.assert_array_equal(data.test.load(np.arange(N))[0], X)


def test_rows_may_be_one_array_that_is_filled_again(path):
    def filled(rows):
        row = np.empty_like(rows[0])
        for row[...] in rows:
            yield row

    write(path, **ABOUT, train=(filled(X), np.nditer(Y)), test=(filled(X), Y))
    for found, expected in zip(inputs(path), (X, Y), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_masked_rows_are_refused_as_files_have_no_masks(path):
    masked = np.ma.masked_greater(X, 30)
    for x in masked, [*masked], iter(masked), iter(masked[:, 0]):
        with pytest.raises(TypeError, match="train/x is a masked array, expected numbers that all"):
            write(path, **ABOUT, train=(x, Y), test=(X, Y))
    write(path, **ABOUT, train=(np.ma.array(X), Y), test=(X, Y))
    np.testing.assert_array_equal(inputs(path)[0], X)


def test_texts_may_be_those_of_numpy(path):
    about = {key: np.str_(text) for key, text in ABOUT.items()}
    write(path, **about, characters=np.str_("aé"), train=(X, Y), test=(X, Y))
    assert Data(path).stored.attribute("characters", None) == "aé"
    assert Data(path).stored.attribute("licence", None) == "c"


def test_rows_lie_where_they_are_gathered_without_a_copy_of_all(path):
    x = np.random.default_rng(0).normal(size=(5000, 100)).astype(np.float32)
    write(path, **ABOUT, train=(x, Y.repeat(250)), test=(x[:N], Y))
    with h5py.File(path) as file:
        for name in "train/x", "train/y", "test/x", "test/y":
            assert file[name].id.get_offset() % 64 == 0
    numbers = np.arange(0, 200, 2)
    data = Data(path)
    odd = np.frombuffer(b"1" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    assert not odd.flags.aligned
    for rows in data.train.x, ArrayRows(odd):
        out = np.empty((100, 100), np.float32)
        tracemalloc.start()
        rows.gather(numbers, out)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        np.testing.assert_array_equal(out, x[numbers])
        assert peak < 4 * out.nbytes


def test_an_array_of_no_numbers_is_named(path):
    before = path.read_bytes()
    with pytest.raises(TypeError, match="train/x is of <U1, expected numbers"):
        write(path, **ABOUT, train={"x": X, "y": Y}, test=(X, Y))
    assert path.read_bytes() == before


# A run, which says the same.

CONFIG = """
data.file = "rows.h5"
model.build = "mlp"
model.sizes = [3, 4]
train = {epochs = 1, batch_size = 4, slices = 2, learning_rate = 0.1}
"""


def test_a_run_says_what_is_not_read_and_why_a_model_may_not_take_the_labels(
    path, tmp_path, python
):
    (tmp_path / "config.toml").write_text(CONFIG)
    with h5py.File(path, "a") as file:
        file["val"] = file["train"]
    ran = python("-m", "dpedf.train", "config.toml", cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.count("rows.h5: not read: val; expected groups train, valid, test") == 1
    for y, words in (np.eye(4, dtype=int)[Y], "one-hot"), (Y * 1.0, "integers as floats"):
        make(path, y=y)
        ran = python("-m", "dpedf.train", "config.toml", "--overwrite", cwd=tmp_path)
        assert ran.returncode == 2 and words in ran.stderr and ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "given, words",
    [
        ((X,), ["train", "expected (x, y)"]),
        (X, ["train", "expected (x, y)"]),
        ((X, Y[:-1]), ["train of 19, 20 rows", "expected x and y of as many"]),
    ],
)
def test_rows_that_are_no_pair_of_x_and_y_are_not_written(given, words, path, refused):
    with refused(*words):
        write(path, name="n", source="s", licence="l", train=given)
    with pytest.raises(TypeError, match="train/x has rows of several shapes, expected one"):
        write(path, name="n", source="s", licence="l", train=([[1], [2, 3]], [0, 1]))
