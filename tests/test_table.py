"""data/table.py: tables of CSV, Parquet and .npz, against what plain Python makes of them."""

import csv
import datetime
import io
import os
import shutil
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from shipped import module_of

from dpedf.data import Data, memory, tables, write
from dpedf.data.form import form_of, read_form
from dpedf.data.part import Part
from dpedf.data.recipe import drawn
from dpedf.device import CPU
from dpedf.errors import UserError

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
recipe = module_of("data/table.py")

random = np.random.default_rng(0)
N = 500
PEOPLE = {
    "age": [None if k % 50 == 7 else int(random.integers(1, 90)) for k in range(N)],
    "fare": [round(float(its), 3) for its in random.gamma(2, 20, N)],
    "town": [None if k % 90 == 3 else "PQRST"[int(random.integers(5))] for k in range(N)],
    "deck": [int(random.integers(8, 12)) for k in range(N)],
    "paid": [bool(random.integers(2)) for k in range(N)],
    "fate": [["lived", "died", "it, said:\n?"][int(random.integers(3))] for k in range(N)],
}


@pytest.fixture
def make(tmp_path, monkeypatch, capsys):
    """make(content, *words) is (status, the data file, lines on stdout, lines on stderr).

    content: of a table, as a dict of columns, as text, as bytes, or a path.
    """
    counted = iter(range(1000))

    def run(content, *words, suffix=".csv"):
        path = content if isinstance(content, Path) else tmp_path / f"{next(counted)}{suffix}"
        if isinstance(content, dict) and suffix == ".csv":
            with open(path, "w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(content)
                writer.writerows(zip(*content.values(), strict=True))
        elif isinstance(content, dict | pa.Table) and suffix == ".parquet":
            parquet.write_table(pa.table(content), path)
        elif isinstance(content, dict):
            np.savez(path, **content)
        elif not isinstance(content, Path):
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        output = tmp_path / f"{path.stem}{next(counted)}.h5"
        words = [str(path), "--output", str(output), *map(str, words)]
        monkeypatch.setattr(sys, "argv", ["table.py", *words])
        status = 0
        try:
            recipe.main()
        except SystemExit as left:
            status = left.code
        out, err = capsys.readouterr()
        return status, output, out.splitlines(), err.splitlines()

    return run


def made(ran):
    """The path of a data file that was made."""
    status, path, out, err = ran
    assert (status, err) == (0, [])
    return path


def groups(path, key):
    with h5py.File(path) as file:
        return {group: file[group][key][...] for group in file}


def categories(file):
    """[the names of the categories of each column] of a data file."""
    names = list(file.attrs.get("category_names", []))
    return [[names.pop(0) for _ in range(size)] for size in file.attrs["categories"]]


# What it writes.


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_of_numbers_texts_and_labels_is_what_plain_python_makes_of_it(make, suffix):
    words = "--target fate --categories deck --missing mean --valid .2 --test .1 --seed 3"
    status, path, out, err = make(PEOPLE, *words.split(), suffix=suffix)
    assert (status, err) == (0, [])
    split = drawn(N, 0.2, 0.1, 3)
    train = [k for k in range(N) if split[k] == 0]

    ages = [PEOPLE["age"][k] for k in train]
    mean = np.mean([age for age in ages if age is not None])
    ages = [mean if age is None else age for age in ages]
    fares = [PEOPLE["fare"][k] for k in train]
    towns = ["(other)", *sorted({PEOPLE["town"][k] for k in train} - {None})]
    decks, truths = ["(other)", "8", "9", "10", "11"], ["(other)", "false", "true"]
    fates = sorted(set(PEOPLE["fate"]))

    with h5py.File(path) as file:
        assert list(file.attrs["columns"]) == ["age", "fare", "town", "deck", "paid"]
        assert categories(file) == [[], [], towns, decks, truths]
        assert list(file.attrs["classes"]) == fates and "target_mean" not in file.attrs
        expected = [np.mean(ages), np.mean(fares), 0, 0, 0]
        np.testing.assert_allclose(file.attrs["mean"], expected, rtol=1e-12)
        expected = [np.std(ages), np.std(fares), 1, 1, 1]
        np.testing.assert_allclose(file.attrs["std"], expected, rtol=1e-12)
        for number, group in enumerate(["train", "valid", "test"]):
            rows = [k for k in range(N) if split[k] == number]
            x, y = file[group]["x"][...], file[group]["y"][...]
            assert (x.dtype, y.dtype) == (np.float32, np.uint8)
            for k, (age, fare, town, deck, paid), label in zip(rows, x, y, strict=True):
                there = {name: its[k] for name, its in PEOPLE.items()}
                assert age == np.float32(mean if there["age"] is None else there["age"])
                assert fare == np.float32(there["fare"])
                assert town == (0 if there["town"] is None else towns.index(there["town"]))
                assert decks[int(deck)] == str(there["deck"]) and paid == 1 + there["paid"]
                assert fates[label] == there["fate"]
    hint, *out = out
    assert "missing values: 10 in age, 6 in town; numbers become the mean" in hint
    assert out == [
        f"{path}: 350 rows to train, 100 to validate, 50 to test",
        "x: 2 columns of numbers, 3 of categories",
        "y: fate, with 3 classes",
    ]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_blocks_of_any_size_make_the_same_file(suffix, make, monkeypatch):
    words = ["--target", "fate", "--missing", "mean", "--categories", "deck"]
    whole = made(make(PEOPLE, *words, suffix=suffix))
    monkeypatch.setattr(tables, "BLOCK", 256)
    in_blocks = made(make(PEOPLE, *words, suffix=suffix))
    its = tables.table(next(in_blocks.parent.glob(f"*{suffix}")))
    assert len([*its.blocks(["age", "town"])]) > 30
    for key in "xy":
        here, there = groups(whole, key), groups(in_blocks, key)
        # the mean of what is missing is a sum in another order
        assert all(np.allclose(here[g], there[g], rtol=1e-6, atol=0) for g in ("train", "test"))
    with h5py.File(whole) as one, h5py.File(in_blocks) as other:
        assert list(one.attrs["classes"]) == list(other.attrs["classes"])
        assert categories(one) == categories(other)
        for key in "mean", "std":
            np.testing.assert_allclose(one.attrs[key], other.attrs[key], rtol=1e-12)
    content, words, what = BAD["a text amid numbers"]  # of which only the last block holds one
    assert what in make(content, *words.split())[3][0]


def test_texts_below_many_empty_cells_are_no_numbers_that_went_wrong(make, monkeypatch):
    monkeypatch.setattr(tables, "BLOCK", 512)
    table = {"c": [""] * 240 + ["a", "b"] * 30, "n": range(300), "y": [0, 1] * 150}
    assert Data(made(make(table, "--target", "y", "--missing", "zero"))).x.categories == (3, 0)


def test_dates_above_numbers_are_texts_that_are_no_numbers(make, monkeypatch):
    dates = "c,y\n" + "2020-01-01,0\n2020-01-01,1\n" * 40
    monkeypatch.setattr(tables, "BLOCK", len(dates))
    error = make(dates + "123456,0\n123456,1\n" * 90, "--target", "y")[3][0]
    assert "'2020-01-01' is no number, as 180 of 260" in error


def test_inputs_have_mean_0_and_std_1_and_codes_stay_codes(make):
    path = made(make(PEOPLE, "--target", "fate", "--missing", "zero"))
    data = Data(path)
    assert data.notes == [] and data.x.categories == (0, 0, 6, 0, 3) and data.y.classes == 3
    data.put(*data.train.load(np.sort(data.train.numbers)))
    x, stored = data.x.value, groups(path, "x")["train"]
    assert np.abs(x[:, [0, 1, 3]].mean(axis=0)).max() < 1e-5
    assert np.abs(x[:, [0, 1, 3]].std(axis=0) - 1).max() < 1e-5
    assert (x[:, [2, 4]] == stored[:, [2, 4]]).all() and x[:, 2].max() == 5


def test_a_category_that_no_row_to_train_has_is_code_0(make):
    town = np.array(["here"] * 100, object)
    town[drawn(100, 0, 0.2, 0) == 2] = "elsewhere"
    path = made(
        make({"town": town, "n": range(100), "y": [0, 1] * 50}, *["--target", "y", "--test", ".2"])
    )
    x = groups(path, "x")
    assert (x["train"][:, 0] == 1).all() and (x["test"][:, 0] == 0).all()


def test_a_column_of_which_half_are_numbers_is_of_categories_and_more_are_doubtful(make):
    for a, what in (["x", "1"] * 30, None), (["x", "1"] * 30 + ["2"], "'x' is no number, as 31 of"):
        ran = make({"a;b": a, "y": [k % 2 for k in range(len(a))]}, "--target", "y")
        if what:
            assert what in ran[3][0]
        else:
            assert categories(h5py.File(made(ran))) == [["(other)", "1", "x"]]


def test_floats_make_a_regression_and_integers_labels_unless_told_otherwise(make):
    table = {
        "a": range(60),
        "n": [10 * (k % 3) for k in range(60)],
        "f": [k / 7 for k in range(60)],
    }
    ran = make(table, "--target", "f")
    y = groups(made(ran), "y")["train"]
    assert not any("--classes" in line for line in ran[2])
    rows = drawn(60, None, None, 0) == 0
    assert y.dtype == np.float32 and y.shape == (54,)
    np.testing.assert_array_equal(y, np.array(table["f"], np.float32)[rows])
    path = made(make(table, "--target", "n"))
    assert list(h5py.File(path).attrs["classes"]) == ["0", "10", "20"]
    np.testing.assert_array_equal(groups(path, "y")["train"], np.array(table["n"])[rows] // 10)
    binary = table | {"n": [float(k % 2) for k in range(60)]}
    ran = make(binary, "--target", "n")
    assert made(ran) and "column n holds only 0 and 1: --classes makes labels" in ran[2][0]
    for words in ["n", "--regression"], ["n", "f"]:
        assert not any("--classes" in line for line in make(binary, "--target", *words)[2])
    path = made(make(binary, "--target", "n", "--classes"))
    assert list(h5py.File(path).attrs["classes"]) == ["0.0", "1.0"]
    y = groups(made(make(table, "--target", "n", "--regression")), "y")["train"]
    np.testing.assert_array_equal(y, np.array(table["n"], np.float32)[rows])
    y = groups(made(make(table, "--target", "f", "n", "--standardise-target")), "y")["train"]
    expected = np.stack([table["f"], table["n"]], axis=1)[rows]
    expected = (expected - expected.mean(axis=0)) / expected.std(axis=0)
    assert y.shape == (54, 2) and np.allclose(y, expected, atol=1e-6)
    assert made(make({"a": range(100), "n": range(100)}, "--target", "n"))
    many = {"a": range(101), "n": range(101)}
    said = "101 different integers, expected --regression, or --classes"
    assert said in make(many, "--target", "n")[3][0]
    assert made(make(many | {"n": [f"n{k}" for k in range(101)]}, "--target", "n"))
    many = {"a": range(257), "n": range(257)}
    path = made(make(many, "--target", "n", "--classes"))
    assert list(h5py.File(path).attrs["classes"]) == [str(n) for n in range(257)]
    labels = np.concatenate([*groups(path, "y").values()])
    assert sorted(labels.tolist()) == [*range(257)]


def test_numbers_that_float32_would_round_away_are_kept(make):
    seconds = 1_700_000_000 + np.arange(100)
    path = made(make({"t": seconds, "y": [0, 1] * 50}, "--target", "y"))
    data = Data(path)
    data.put(*data.train.load(np.sort(data.train.numbers)))
    expected = seconds[drawn(100, None, None, 0) == 0].astype(float)
    expected = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(data.x.value[:, 0], expected, atol=1e-6)


def test_a_column_of_one_number_is_said_and_becomes_0(make):
    ran = make({"c": [0.1] * 50, "n": range(50), "y": [0, 1] * 25}, "--target", "y")
    data = Data(made(ran))
    data.put(*data.train.load(data.train.numbers))
    assert "column c is 0.1 in all rows to train" in ran[2][0]
    assert np.abs(data.x.value[:, 0]).max() < 1e-7
    with h5py.File(made(ran)) as file:
        assert file.attrs["std"][0] == 1


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_nan_is_no_value_of_categories_and_labels_either(suffix, make):
    numbers = np.where(np.arange(60) == 5, np.nan, np.arange(60) % 3)
    table = {"c": numbers, "y": np.arange(60) % 2}
    words = ["--target", "y", "--categories", "c", "--missing", "mean"]
    assert Data(made(make(table, *words, suffix=suffix))).x.categories == (4,)
    err = make({"c": table["y"], "y": numbers}, *words, "--classes", suffix=suffix)[3]
    assert "column y, a target: 1 missing value" in err[0]


def test_a_column_that_names_each_row_is_said(make):
    table = {"name": [f"N. {k}" for k in range(50)], "n": range(50), "y": [0, 1] * 25}
    ran = make(table, "--target", "y")
    assert made(ran) and "column name has 45 categories in 45 rows: --drop it?" in ran[2][0]


def test_types_of_parquet_and_arrays_of_npz_are_read(make):
    n = 40
    numbers = pa.array([None, *range(1, n)]), pa.array(np.r_[np.nan, 1:n], from_pandas=False)
    columns = {"i": numbers[0], "f": numbers[1], "h": pa.array(np.arange(n, dtype="f2"))}
    columns["m"] = pa.array(range(n), pa.decimal128(9, 2))
    columns["u"] = pa.array([k << 58 for k in range(n)], pa.uint64())  # beyond int64
    columns["d"] = pa.array([["b", "a"][k % 2] for k in range(n)]).dictionary_encode()
    columns["y"] = pa.array([k % 2 > 0 for k in range(n)])
    words = ["--target", "y", "--missing", "zero", "--test", ".5"]
    path = made(make(columns, *words, suffix=".parquet"))
    rows = np.flatnonzero(drawn(n, None, 0.5, 0) == 0)
    x = np.stack([rows, rows, rows, rows, rows * 2.0**58, 2 - rows % 2], axis=1)
    np.testing.assert_array_equal(groups(path, "x")["train"], x)
    np.testing.assert_array_equal(groups(path, "y")["train"], rows % 2)

    x, s = random.random((n, 3)).astype(np.float32), np.array(["b", "a"] * (n // 2))
    path = made(make({"x": x.astype(">f4"), "s": s, "y": np.arange(n) / 4}, *words, suffix=".npz"))
    assert list(h5py.File(path).attrs["columns"]) == ["x0", "x1", "x2", "s"]
    found = groups(path, "x")["train"]
    np.testing.assert_array_equal(found, np.c_[x, 2 - np.arange(n) % 2][rows])
    np.testing.assert_array_equal(groups(path, "y")["train"], rows / 4)


def test_the_texts_of_a_csv_may_have_a_mark_semicolons_latin_letters_and_blanks(make):
    rows = "".join(f"{k} ; {'é' if k % 2 else 'a'};0{k % 3}\n" for k in range(40))
    words = ["--target", "y", "--delimiter", ";", "--categories", "c"]
    first = made(make("\ufeffn; c ;y\n" + rows, *words))
    latin = make(("n;c;y\n" + rows).encode("latin1"), *words)
    assert "invalid UTF8" in latin[3][0] and "--encoding latin1" in latin[3][0]
    second = made(make(("n;c;y\n" + rows).encode("latin1"), *words, "--encoding", "latin1"))
    for path in first, second:
        with h5py.File(path) as file:
            assert list(file.attrs["columns"]) == ["n", "c"]
            assert categories(file) == [[], ["(other)", "a", "é"]]
            assert list(file.attrs["classes"]) == ["00", "01", "02"]


# More rows for a model that is there.


def opened(path, form, label=True):
    """The Part of a data file, as evaluate and predict open it for a model of rows of a form."""
    x, y = form.inputs()
    asked = SimpleNamespace(window=0, stride=0, valid=0)
    part = Part(path, form, x, y, asked, CPU())
    part.open_split("test", 0) if label else part.open_unlabelled()
    part.put(*part.rows.load(part.rows.numbers))
    return part


def test_more_rows_are_coded_and_scaled_as_those_to_train(make):
    old = made(make(PEOPLE, *["--target", "fate", "--missing", "mean", "--categories", "deck"]))
    data = Data(old)
    form = read_form(form_of(data).text())
    assert form.inputs()[0].categories == data.x.categories == (0, 0, 6, 5, 3)
    new = {name: its[:50][::-1] for name, its in PEOPLE.items()} | {"more": range(50)}
    new["town"][0], new["deck"] = "Z", [11] * 50  # new to it; all one text that was not alone
    words = ["--like", old]
    data.put(np.concatenate([g for g in groups(old, "x").values()]), np.zeros(N, np.uint8))
    for labelled in True, False:
        path = made(make(new, *words, *["--target", "fate"] * labelled))
        part = opened(path, form, labelled)
        x, _ = part.x.value, part.y.value
        with h5py.File(old) as file:
            mean, std, coded = file.attrs["mean"], file.attrs["std"], categories(file)
        age = [mean[0] if its is None else its for its in new["age"]]
        np.testing.assert_allclose(x[:, 0], (age - mean[0]) / std[0], rtol=1e-4, atol=1e-5)
        towns = [coded[2].index(its) if its in coded[2] else 0 for its in new["town"]]
        assert x[:, 2].tolist() == towns and (x[:, 3] == 4).all()
        assert ("y" in h5py.File(path)["test"]) == labelled
    fates = sorted(set(PEOPLE["fate"]))
    y = groups(made(make(new, *words, "--target", "fate")), "y")["test"]
    assert [fates[k] for k in y] == new["fate"]


def test_a_table_that_was_made_otherwise_is_refused_where_it_would_mean_something_else(make):
    words = ["--target", "fate", "--missing", "mean"]
    form = form_of(Data(made(make(PEOPLE, *words))))
    assert opened(made(make(PEOPLE, *words)), form)
    for what, table, more in [
        ("another attribute mean, expected that of the run", PEOPLE, ["--seed", "1"]),
        (
            "column 2 has 4 categories, expected 6",
            PEOPLE | {"town": ["P", "Q", "R"] + ["P"] * 497},
            [],
        ),
        (
            "column 0 is 'years', expected 'age'",
            {"years": PEOPLE["age"]} | {k: v for k, v in PEOPLE.items() if k != "age"},
            [],
        ),
    ]:
        with pytest.raises(UserError, match=what):
            opened(made(make(table, *words, *more)), form)
    town = [its and its.replace("P", "A") for its in PEOPLE["town"]]
    with pytest.raises(UserError, match="category 1 is 'A', expected 'P'"):
        opened(made(make(PEOPLE | {"town": town}, *words)), form)


def test_a_file_like_another_says_what_it_lacks(make):
    old = made(make(PEOPLE, *["--target", "fate", "--missing", "mean"]))
    without = {name: its for name, its in PEOPLE.items() if name != "fare"}
    for what, table, words in [
        ("no column fare", without, ["--like", old]),
        (
            "'other', expected one of died",
            PEOPLE | {"fate": ["other"] * N},
            ["--like", old, "--missing", "mean", "--target", "fate"],
        ),
        ("column age: 'old' is no number", PEOPLE | {"age": ["old"] * N}, ["--like", old]),
        (
            "--target fate paid, expected fate as in",
            PEOPLE,
            ["--like", old, "--target", "fate", "paid"],
        ),
        ("--valid or --test with --like", PEOPLE, ["--like", old, "--test", ".5"]),
        ("nowhere.h5: no such file", PEOPLE, ["--like", old.with_name("nowhere.h5")]),
    ]:
        status, path, _, err = make(table, *words)
        assert status == 2 and len(err) == 1 and what in err[0] and not path.exists(), err
    for keys in ["columns", "categories"], ["targets"], ["category_names"]:
        copy = shutil.copy(old, old.with_name(f"{keys[0]}.h5"))
        with h5py.File(copy, "r+") as file:
            for key in keys:
                del file.attrs[key]
        _, path, _, err = make(PEOPLE, "--like", copy)
        assert f"--like {copy}: no names of columns, categories and targets" in err[0]
        assert not path.exists()
    for key in "mean", "std":
        with h5py.File(old, "r+") as file:
            kept, file.attrs[key] = file.attrs[key], [1.0, 2.0]
        what = f"--like {old}: attribute {key} = [1.0, 2.0], expected 5 numbers"
        assert what in make(PEOPLE, "--like", old)[3][0]
        with h5py.File(old, "r+") as file:
            file.attrs[key] = kept


def test_numbers_and_truth_values_have_one_code_however_they_are_written(make):
    rows = {"id": [0, 1, 2] * 20, "ok": ["true", "false"] * 30, "zip": ["07", "7", "9"] * 20}
    rows |= {"town": ["P", "Q"] * 30, "label": [1, 0] * 30, "twice": ["1", "1.0", "2"] * 20}
    words = ["--target", "label", "--categories", "id", "zip", "twice", "--missing", "mean"]
    old = made(make(rows, *words))
    new = {"id": ["0.0", "2.0", "", "1e0"], "ok": [1, 0, 0, 1], "zip": ["9", "007", "7.0", "07"]}
    new |= {"town": ["Berlin", "P", "Bonn", ""], "label": ["1.0", "0.0", "0.0", "1.0"]}
    new["twice"] = ["1", "1.0", "2", "1.00"]  # which of the first two is the last?
    ran = make(new, "--like", old, "--target", "label")
    x = [[1, 2, 3, 0, 1], [3, 1, 0, 1, 2], [0, 1, 0, 0, 3], [2, 2, 1, 0, 0]]  # zip is of names
    assert groups(made(ran), "x")["test"].tolist() == x
    assert groups(ran[1], "y")["test"].tolist() == [1, 0, 0, 1]
    assert "town: 2 of 4 rows hold what train lacks, such as 'Berlin'" in ran[2][2]
    assert "zip: 2 of 4 rows hold what train lacks, such as '007'" in ran[2][1]
    assert "missing values: 1 in id, 1 in town; numbers become the mean" in ran[2][0]


def test_codes_are_in_the_order_of_numbers_then_of_how_they_are_written(make):
    labels = ["1", "10", "2", "01", "001"]
    order = ["001", "01", "1", "2", "10"]
    for k in range(4):
        y = labels[k:] * 50
        path = made(make({"a": range(len(y)), "y": y}, "--target", "y"))
        assert list(h5py.File(path).attrs["classes"]) == sorted(set(labels[k:]), key=order.index)
    rows = {"a": range(90), "y": ["inf", "10", "9"] * 30}  # of which one is no number
    path = made(make(rows, "--target", "y", "--classes"))
    assert list(h5py.File(path).attrs["classes"]) == ["9", "10", "inf"]


def test_several_targets_keep_their_names_and_order(make):
    rows = {"a": range(60), "z": [k / 7 for k in range(60)], "y": [k / 3 for k in range(60)]}
    old = made(make(rows, "--target", "z", "y"))
    assert list(h5py.File(old).attrs["targets"]) == ["z", "y"]
    new = made(make(rows, "--like", old, "--target", "z", "y"))
    assert {*h5py.File(new).attrs} == {*h5py.File(old).attrs}
    for words in ["y", "z"], ["z"], ["a", "y"]:
        _, path, _, err = make(rows, "--like", old, "--target", *words)
        assert f"--target {' '.join(words)}, expected z y as in " in err[0] and not path.exists()


def test_numbers_with_a_decimal_comma_are_read_where_that_is_said(make):
    rows = "a;b;y\n" + "".join(f"{k},5;x.{k % 2};-{k},25\n" for k in range(60))
    words = ["--target", "y", "--delimiter", ";"]
    for more, what in (
        ([], "column a: '0,5' is not written"),
        (["--drop", "a"], "column y: '-0,25'"),
    ):
        assert what in (err := make(rows, *words, *more)[3][0]) and "expected --decimal ," in err
    path = made(make(rows, *words, "--decimal", ","))
    rows = np.flatnonzero(drawn(60, None, None, 0) == 0)
    np.testing.assert_array_equal(groups(path, "x")["train"], np.c_[rows + 0.5, 1 + rows % 2])
    np.testing.assert_array_equal(groups(path, "y")["train"], -rows - 0.25)


@pytest.mark.parametrize("size", [1e39, 1e-46])
def test_numbers_that_float32_has_not_are_kept(size, make):
    path = made(make({"t": [k * size for k in range(-50, 50)], "y": [0, 1] * 50}, "--target", "y"))
    data = Data(path)
    data.put(*data.train.load(np.sort(data.train.numbers)))
    expected = np.flatnonzero(drawn(100, None, None, 0) == 0)
    expected = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(data.x.value[:, 0], expected, atol=1e-6)


def test_targets_are_standardised_as_those_to_train(make):
    table = {"a": range(60), "b": [k * k for k in range(60)], "c": [k / 3 for k in range(60)]}
    words = ["--target", "b", "c"]
    old = made(make(table, *words, "--standardise-target"))
    new = {name: its[::-1][:7] for name, its in table.items()}
    y = groups(made(make(new, "--like", old, *words)), "y")["test"]
    with h5py.File(old) as file:
        mean, std = file.attrs["target_mean"], file.attrs["target_std"]
    expected = (np.stack([new["b"], new["c"]], axis=1) - mean) / std
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    without = h5py.File(made(make(new, "--like", old))).attrs  # where it says what a y would be
    assert (without["target_mean"] == mean).all() and list(without["targets"]) == ["b", "c"]
    status, _, _, err = make(new, "--like", old, "--target", "b")
    assert status == 2 and "--target b, expected b c as in " in err[0]


# What is wrong with a table is one line, and nothing is written.

ROWS = "".join(f"{k},{k % 3},{'ab'[k % 2]}\n" for k in range(40))
DAYS = "".join(f"2020-01-{k % 28 + 1:02},{k % 2}\n" for k in range(40))
BAD = {
    "a target that is not there": (
        "fat,e,t\n" + ROWS,
        "--target fet",
        "--target fet: no such column, expected fat",
    ),
    "no target": ("a,b,t\n" + ROWS, "", "no --target"),
    "a drop that is not there": (
        "a,b,t\n" + ROWS,
        "--target t --drop c",
        "--drop c: no such column",
    ),
    "missing values": (
        "a,b,t\n" + ROWS + ",1,a\nNA,null,b\n",
        "--target t",
        "missing values: 2 in a, 1 in b; expected --missing mean or zero",
    ),
    "a missing target": (
        "a,b,t\n" + ROWS + "1,1,\n",
        "--target t --missing mean",
        "column t, a target: 1 missing value",
    ),
    "nothing but missing": (
        "a,b,t\n" + ",1,a\n,2,b\n" * 9,
        "--target t --missing mean",
        "column a: no value to train, expected --drop a",
    ),
    "infinite": (
        "a,b,t\n" + ROWS + "-inf,1,a\n",
        "--target t",
        "column a: -inf, expected finite numbers",
    ),
    "numbers too large": ("a,b,t\n" + ROWS + "1e300,1,a\n" * 5, "--target t", "column a: 1e+300"),
    "a text amid numbers": (
        "a,b,t\n" + ROWS + "?,1,a\n",
        "--target t",
        "column a: '?' is no number, as 40 of 41 rows have, expected --missing-text '?'",
    ),
    "semicolons": ("a;b;t\n" + ROWS.replace(",", ";"), "--target t", "expected --delimiter ';'"),
    "semicolons and decimal commas": (
        "a;t\n" + "1,5;2,5\n" * 40,
        "--target t",
        "Expected 1 columns, got 3: 1,5;2,5, expected another --delimiter, such as ';'",
    ),
    "two of a name": ("a,a,t\n" + ROWS, "--target t", "2 columns 'a', expected names that differ"),
    "no header": (
        ROWS.replace("a", "5").replace("b", "6"),
        "--target t",
        "the first line is '0,0,5'",
    ),
    "no name": (
        ",b,t\n" + ROWS,
        "--target t",
        "a column without a name, expected one, or --drop ''",
    ),
    "an empty file": ("", "--target t", "an empty file"),
    "a header alone": ("a,b,t\n", "--target t", "no rows"),
    "one row": ("a,b,t\n1,2,a\n", "--target t", "--test 0.1"),
    "a short row": ("a,b,t\n" + ROWS + "1,2\n", "--target t", "Expected 3 columns, got 2"),
    "another encoding": ("a,b,t\n" + ROWS, "--target t --encoding klingon", "--encoding klingon"),
    "dates": ("d,t\n" + DAYS, "--target t", "column d holds dates, expected numbers, or --drop d"),
    "dates as categories": (
        "d,t\n" + DAYS,
        "--target t --categories d",
        "column d holds dates, expected numbers, or --drop d",
    ),
    "times with a zone": (
        "d,t\n" + DAYS.replace(",", "T10:30Z,"),
        "--target t",
        "column d holds dates",
    ),
    "classes of several targets": (
        "a,b,t\n" + ROWS,
        "--target t b --classes",
        "--classes with several targets, expected one",
    ),
    "a regression of texts": (
        "a,b,t\n" + ROWS,
        "--target t --regression",
        "column t: 'a' is no number, expected numbers",
    ),
    "one class": ("a,b,t\n" + ROWS.replace("b", "a"), "--target t", "column t is a in all rows"),
    "nothing to predict from": ("t\n" + "1\n0\n" * 20, "--target t", "no column beside the target"),
    "a typo in a target": (
        "a,t\n" + "".join(f"{k},{k / 7}\n" for k in range(40)) + "1,oops\n",
        "--target t",
        "column t: 'oops' is no number, as 40 of 41 rows have, expected --missing-text 'oops', or",
    ),
    "marks of thousands": (
        "a,t\n" + '"1,234.56",0\n"2,345.67",1\n' * 20,
        "--target t",
        "column a: '1,234.56' is not written as 1234.5 is",
    ),
    "numbers too near": (
        "a,t\n" + "".join(f"{2**53 + k},{k % 2}\n" for k in range(40)),
        "--target t",
        "column a: numbers of 9.0072e+15 differ by less than float64 keeps",
    ),
    "integers too large": (
        "a,t\n" + "".join(f"{2**63 + k},{k % 2}\n" for k in range(40)),
        "--target t",
        "column a: numbers of 9.22337e+18 differ by less",
    ),
    "numbers too small": (
        "a,t\n" + "".join(f"{k}e-200,{k % 2}\n" for k in range(40)),
        "--target t",
        "column a: numbers of 3.9e-199 differ by less",
    ),
    "a target twice": ("a,t\n1,0", "--target t t", "--target t: named by --target already"),
    "a target that is dropped": ("a,t\n1,0", "--target t --drop t", "--drop t: named by --target"),
    "no text encoding": ("a,t\n1,0", "--target t --encoding rot13", "--encoding rot13, expected"),
    "letters of another encoding": (
        "a,t\né,0",
        "--target t --encoding ascii",
        "expected another --encoding, such as latin1",
    ),
    "a long cell": (
        "a,t\n1,2\n" + '"' + "x" * (9 << 20) + '",1\n',
        "--target t",
        "a row of more than 4 MiB, expected less; a quote may be left open",
    ),
    "a NUL": ("a,t\n" + "x\0y,1\nz,0\n" * 20, "--target t", "NUL"),
}


@pytest.mark.parametrize("how", BAD)
def test_a_table_is_refused_that_has(how, make):
    content, words, what = BAD[how]
    status, path, out, err = make(content, *words.split())
    assert status == 2 and out == [] and len(err) == 1 and what in err[0], err
    assert list(path.parent.glob("*.h5*")) == []


def zipped(name, content):
    """The bytes of an archive of one file."""
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def header(shape):
    """How an .npy file of this shape begins."""
    about = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file := io.BytesIO(), about)
    return file.getvalue()


@pytest.mark.parametrize(
    ("suffix", "content", "what"),
    [
        (".parquet", {"a": [[1]] * 9, "y": [0] * 9}, "column a holds list<"),
        (".parquet", {"a": [datetime.date(2020, 1, 1)] * 9, "y": [0] * 9}, "column a holds dates"),
        (".parquet", {"a": pa.array([None] * 9), "y": [0] * 9}, "column a holds null"),
        (".parquet", b"PAR1 and no more PAR1", "Parquet"),
        (".parquet", pa.table([[1], [2]], ["a", "a"]), "2 columns 'a', expected names that differ"),
        (".npz", {"a": np.array([1, "b"], object), "y": [0, 1]}, "Object arrays"),
        (".npz", {"a": np.arange(3), "y": np.arange(2)}, "y has 2 rows, a has 3 rows"),
        (".npz", {"a": np.zeros((9, 2, 2)), "y": np.arange(9)}, "array a of shape (9, 2, 2)"),
        (".npz", {"x": np.zeros(9), "y": np.zeros((9, 2))}, "no such column, expected y0 y1"),
        (".npz", {"x": np.zeros((9, 2)), "x0": np.zeros(9)}, "2 columns 'x0', expected names that"),
        (".npz", {"x": np.zeros(9, complex), "y": np.arange(9)}, "array x of complex128, expected"),
        (".npz", {"x": np.zeros(9, "g"), "y": np.arange(9)}, "array x of float128, expected"),
        (
            ".npz",
            {"x": np.zeros((9, 2)), "x_test": np.zeros((4, 2))},
            "data/arrays.py takes x_train",
        ),
        (".npz", zipped("read.me", b"?"), "read.me is no array"),
        (".npz", zipped("x.npy", header((10**13,))), "array x: Unable to allocate"),
        (".npz", zipped("x.npy", header((50,))), "array x: "),
        (".npz", zipped("x.npy", b"\x93NUMPY\x01\x00v\x00" + b"(" * 118), "array x: "),
        (".npz", b"PK", "no arrays in it"),
        (".npz", {}, "no rows, expected some"),
        (".xls", b"?", "expected a name that ends in .csv, .parquet, .npz"),
    ],
)
def test_other_files_are_refused_for_what_has_no_place_in_x(suffix, content, what, make):
    status, path, _, err = make(content, "--target", "y", suffix=suffix)
    assert status == 2 and len(err) == 1 and what in err[0] and not path.exists(), err


def test_a_recipe_does_not_replace_what_it_reads(make, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    old = made(make(table := "a,t\n" + "1,0\n2,1\n" * 20, "--target", "t"))
    kept, link = tmp_path / "kept.csv", tmp_path / "link.csv"
    kept.write_text(table)
    link.symlink_to(kept)
    for path, output, words in [
        (kept, kept, ["--target", "t"]),
        (link, kept, ["--target", "t"]),
        (kept, Path("~/kept.csv"), ["--target", "t"]),
        (kept, old, ["--like", old]),
    ]:
        before = output.expanduser().read_bytes()
        status, _, _, err = make(path, *words, "--output", output)
        assert status == 2 and len(err) == 1 and f"--output {output} would replace" in err[0]
        assert output.expanduser().read_bytes() == before


def test_what_is_no_file_is_one_line(make, tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for path, what in (tmp_path / "pipe.csv", "regular"), (tmp_path / "no.csv", "No such file"):
        status, _, _, err = make(path, "--target", "t")
        assert status == 2 and len(err) == 1 and what in err[0] and str(path) in err[0]


def test_arrays_that_memory_cannot_hold_are_one_line(make, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 99)
    _, _, _, err = make({"a": np.arange(9), "y": np.arange(9)}, "--target", "y", suffix=".npz")
    assert len(err) == 1 and "its arrays: " in err[0] and "the 99 of free memory" in err[0]


def test_without_pyarrow_a_line_says_how_to_install_it(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status, _, _, err = make("a,t\n1,2\n", "--target", "t")
    assert status == 2 and len(err) == 1 and 'pip install -e ".[table]"' in err[0]


# Columns of files that other programs write.


def written(path, **about):
    x, y = random.integers(5, size=(20, 3)).astype(np.float32), np.arange(20) % 2
    rows = {"train": (x, y), "test": (x, y)}
    write(path, name="Few", source="here", licence="CC0", **rows, **about)
    return path


def test_categories_are_given_by_number_or_by_name(tmp_path):
    names = [f"name {k}" for k in range(5000)]  # too many for an attribute
    data = Data(written(tmp_path / "a.h5", columns=["a", "b", "c"], categories=[0, names, 0]))
    assert data.notes == [] and data.x.categories == (0, 5000, 0)
    assert data.columns.categories == tuple(names)
    assert read_form(form_of(data).text()) == form_of(data)
    data = Data(written(tmp_path / "a.h5", categories=[5, 0, 7]))
    assert data.x.categories == (5, 0, 7) and data.columns.names == ()
    assert Data(written(tmp_path / "a.h5")).x.categories == ()


@pytest.mark.parametrize(
    ("about", "what"),
    [
        ({"categories": [0, 7]}, "attribute categories = [0, 7], expected how many each of the 3"),
        ({"categories": [0, -1, 0]}, "attribute categories = [0, -1, 0]"),
        ({"categories": [0, 7, 0], "mean": 2}, "column 1 holds categories, and is scaled"),
        ({"columns": ["a"]}, "attribute columns = 1 name, expected 3, as x has"),
    ],
)
def test_columns_that_are_not_those_of_x_are_one_line(about, what, tmp_path):
    with pytest.raises(UserError) as error:
        Data(written(tmp_path / "a.h5", **about))
    assert what in str(error.value)
