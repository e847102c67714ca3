"""python -m dpedf data FILE: what is said of a file, drawn of it, and found wrong with it."""

import h5py
import numpy as np
import pytest

from dpedf.data import write
from dpedf.errors import UserError
from dpedf.tools import data
from dpedf.tools.contents import numbers

ABOUT = {"name": "a name", "source": "somewhere", "licence": "CC0"}
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (60, 3, 5, 4), np.uint8)
LABELS = np.arange(60) % 3


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.h5"


@pytest.fixture
def says(capsys):
    def lines(*words):
        data.main([*map(str, words)])
        out = capsys.readouterr().out.splitlines()
        assert all(len(line) <= 80 for line in out[1:] if "rows.h5" not in line), out
        return out

    return lines


def line_of(lines, word):
    (found,) = [line for line in lines if line.split()[:1] == [word]]
    return found


def of_images(path, **more):
    about = ABOUT | {"classes": ["cat", "dog", "a\x1b[2Jfox"], "scale": 1 / 255} | more
    write(path, **about, train=(IMAGES[:40], LABELS[:40]), test=(IMAGES[40:], LABELS[40:]))


def test_images_are_described_with_their_classes(path, says):
    of_images(path, mean=0.5, std=0.25)
    lines = says(path)
    assert "\x1b" not in "".join(lines)
    assert lines[0] == f"{path}, {path.stat().st_size:,} bytes"
    assert [line_of(lines, key).split(None, 1)[1] for key in ABOUT] == [*ABOUT.values()]
    assert "  40  uint8 (3, 5, 4)  int64  contiguous, crc32" in line_of(lines, "train")
    x = IMAGES[:40].astype(float)
    ends, mean, deviation = f"{x.min():.4g} to {x.max():.4g}", f"{x.mean():.4g}", f"{x.std():.4g}"
    assert line_of(lines, "x") == f"x         {ends}, mean {mean}, standard deviation {deviation}"
    assert f"mean {(x.mean() / 255 - 0.5) / 0.25:.4g}," in line_of(lines, "inputs")
    assert line_of(lines, "scaled") == "scaled    scale 0.003922, mean 0.5, std 0.25"
    start = lines.index(next(line for line in lines if line.startswith("3 classes")))
    table = [line.split() for line in lines[start + 1 : start + 4]]
    assert [row[-2:] for row in table] == [["14", "6"], ["13", "7"], ["13", "7"]]
    assert table[0][:2] == ["0", "cat"]


def test_a_table_with_targets_and_a_text_are_described_in_their_own_words(path, says):
    x, y = RANDOM.normal(5, 2, (50, 3)), RANDOM.normal(size=50)
    write(path, **ABOUT, mean=x.mean(0), std=x.std(0), train=(x, y), test=(x[:9], y[:9]))
    lines = says(path)
    assert line_of(lines, "inputs").endswith("standard deviation 1")
    assert f"{y.min():.4g} to {y.max():.4g}, mean {y.mean():.4g}" in line_of(lines, "targets")

    text = np.arange(1000, dtype=np.uint8) % 3
    write(path, **ABOUT, classes=3, characters="a\nb", train=text, test=text[:100])
    lines = says(path)
    assert line_of(lines, "train").split() == ["train", "1,000", "uint8", "contiguous,", "crc32"]
    assert lines[-2:] == ["symbols   3", "          'a\\nb'"]
    assert says(path, "--window", 10)[-1] == "rows      of 10 symbols: 99 in train, 9 in test"


def test_of_many_classes_some_are_listed_and_of_many_rows_some_are_read(path, says, monkeypatch):
    monkeypatch.setattr(numbers, "SEEN", 10 * IMAGES[0].size)
    write(path, **ABOUT, classes=300, train=(IMAGES, LABELS), test=(IMAGES[:9], LABELS[:9]))
    lines = says(path)
    assert line_of(lines, "x").endswith("(10 rows of 60)")
    assert lines[-1] == "and 276 more, each 0 to 0 times in train" and len(lines) < 45


@pytest.mark.parametrize("layout", ["contiguous", "chunks of 7, gzip"])
def test_files_of_other_programs_are_described_and_checked(path, says, layout):
    how = {} if layout == "contiguous" else {"chunks": (7, 3, 5, 4), "compression": "gzip"}
    with h5py.File(path, "w") as file:
        for group, rows in ("train", slice(40)), ("test", slice(40, None)):
            file.create_dataset(f"{group}/x", data=IMAGES[rows], **how)
            file[f"{group}/y"] = LABELS[rows]
        file["oth\ners"] = [1]
    lines = says(path)
    assert line_of(lines, "train").endswith(f"  {layout}") and "not said" in line_of(lines, "name")
    assert "not read: oth\\ners" in lines[-1]
    assert says(path, "--verify") == [f"{path}: whole, 60 rows, not all of it has checksums"]


def test_of_groups_of_which_some_have_labels_these_are_counted(path, says):
    with h5py.File(path, "w") as file:
        for group, rows in ("new", slice(40)), ("old", slice(40, None)):
            file[f"{group}/x"] = IMAGES[rows]
        file["old/y"] = LABELS[40:]
    lines = says(path)
    assert line_of(lines, "new").split()[-2:] == ["none", "contiguous"]
    assert [line.split()[1:] for line in lines[-4:-1]] == [[n, "0"] for n in "677"]


def test_rows_that_are_in_train_too_are_counted(path, says):
    of_images(path)
    assert says(path, "--verify") == [f"{path}: whole, 60 rows, all checksums are right"]
    test = np.concatenate([IMAGES[:2], IMAGES[40:], IMAGES[:1]])
    about = ABOUT | {"classes": 3}
    write(path, **about, train=(IMAGES[:40], LABELS[:40]), test=(test, LABELS[: len(test)]))
    assert says(path, "--verify")[1:] == [f"{path}: 3 rows of test also in train, by their x"]
    text = np.zeros(100, np.uint8)
    write(path, **ABOUT, train=text, test=text)
    assert says(path, "--verify") == [f"{path}: whole, 200 symbols, all checksums are right"]


def break_a_byte(path):
    with h5py.File(path) as file:
        place = file["test/x"].id.get_offset() + 5
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def put(name, value):
    def change(path):
        with h5py.File(path, "r+") as file:
            rows = file[name][...].astype(np.float32 if value != value else int)
            rows[3] = value
            del file[name]
            file[name] = rows

    return change


@pytest.mark.parametrize(
    "damage, line",
    [
        (break_a_byte, "test/x: CRC-32 .* it is damaged"),
        (put("train/y", 3), r"train/y: label 3 in row 3, expected 0..2"),
        (put("test/x", np.nan), r"test/x: nan in row 3, expected finite numbers"),
        (lambda path: path.write_bytes(b"nothing"), "expected a whole HDF5 file"),
        (lambda path: path.unlink(), "no such file, make it with"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(path, damage, line):
    of_images(path)
    damage(path)
    with pytest.raises(UserError, match=line) as raised:
        data.main([str(path), "--verify"])
    assert "\n" not in str(raised.value)


def test_samples_are_drawn_by_seed(path, tmp_path, says, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("dpedf.tools.pictures.samples.SAMPLES", 4)
    of_images(path, mean=0.5)
    pictures = []
    for seed in 0, 0, 1:
        assert says(path, "-o", tmp_path / "out.png", "--seed", seed)[-1].endswith(f"from {path}")
        pictures.append((tmp_path / "out.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]
    rows = RANDOM.normal(size=(9, 5))
    write(path, **ABOUT, train=(rows, rows), test=(rows, rows))
    with pytest.raises(UserError, match=r"x of \(5,\), expected images"):
        says(path, "-o", tmp_path / "other.png")
    with pytest.raises(UserError, match="expected a name that ends in .png, .svg or .pdf"):
        says(path, "-o", tmp_path / "other.h5")
    assert not (tmp_path / "other.png").exists()
