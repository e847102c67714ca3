"""A table in a data file: codes of its categories, and its columns beside those of a run."""

from io import BytesIO
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from dpedf.data import Data, write
from dpedf.data.form import form_of, read_form
from dpedf.data.part import Part
from dpedf.device import CPU
from dpedf.edf import Forward
from dpedf.errors import UserError
from dpedf.parallel.ranks import Ranks
from dpedf.phi import Phi
from dpedf.run.build import build
from dpedf.run.predictions import WRITERS, Predictions
from dpedf.run.settings.pointless import codes_as_numbers
from dpedf.run.settings.sections import DataSection
from dpedf.tools import data as tool

ABOUT = {"name": "a name", "source": "somewhere", "licence": "CC0"}
TABLE = ABOUT | {"columns": ["a", "town"], "categories": [0, ["(other)", "P", "Q"]]}
random = np.random.default_rng(0)
N = 30
X = np.stack([random.normal(5, 2, N), np.arange(N) % 3], axis=1).astype(np.float32)
Y = np.arange(N) % 2


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.h5"


def made(path, x=X, y=Y, layout=None, **about):
    write(path, **TABLE | about, train=(x[:20], y[:20]), test=(x[20:], y[20:]))
    if layout:
        with h5py.File(path, "r+") as file:
            for name in "train/x", "test/x":
                rows = file[name][...]
                del file[name]
                file.create_dataset(name, data=rows, **layout)
    return str(path)


def part(path, form, split="test"):
    found = Part(path, form, *form.inputs(), DataSection(file=""), CPU())
    found.open_split(split, 0)
    return found


@pytest.mark.parametrize("layout", [{}, {"chunks": (7, 2)}], ids=["contiguous", "chunked"])
@pytest.mark.parametrize(
    ("code", "dtype"),
    [(3, np.int8), (3, np.float64), (-1, np.int64), (-1, np.float32), (1.5, np.float32)],
)
def test_a_code_that_no_category_has_is_refused_wherever_rows_are_read(
    code, layout, dtype, path, refused
):
    x = np.rint(X).astype(dtype)
    form = form_of(Data(made(path, x, layout=layout)))
    x[25, 1] = code
    made(path, x, layout=layout)
    where = f"test/x: code {code} of column town in row 5", "expected 0..2"
    with refused(path, *where):
        tool.main([str(path), "--verify"])
    for its in Data(str(path)), part(str(path), form):
        with refused(path, *where):
            its.splits[-1].pack(np.array([4, 5]))
        with refused(path, *where):
            its.read_through(Ranks())


def test_a_table_says_as_much_of_its_columns_as_those_of_the_run_need(path, refused):
    form = form_of(Data(made(path, mean=[5, 0], std=[2, 1])))
    part(made(path, mean=[5, 0], std=[2, 1]), form)
    for name in "mean", "std":  # without one of them it is 0 or 1, and not that of the run
        with h5py.File(path, "r+") as file:
            del file.attrs[name]
        with refused(path, f"another attribute {name}, expected that of the run"):
            part(str(path), form)
        made(path, mean=[5, 0], std=[2, 1])
    with h5py.File(path, "r+") as file:
        for name in "scale", "mean", "std":
            del file.attrs[name]
    assert part(str(path), form).shift[0] == -2.5
    names, codes = {"columns": None}, {"categories": [0, 3]}
    for run, more in (names | codes, {}), (codes, {}), ({}, names | codes), ({}, codes):
        its = form_of(Data(made(path, **run)))
        part(made(path, **more), its)  # what one of them does not name may be the same
    write(path, **ABOUT, mean=[1, 2], train=(X, Y), test=(X, Y))
    with refused(path, "column 1 holds categories, and is scaled"):
        part(str(path), form)


def test_a_column_has_no_more_categories_than_float32_has_whole_numbers(path):
    assert Data(made(path, categories=[0, 2**24])).x.categories == (0, 2**24)
    with h5py.File(path, "r+") as file:
        file.attrs["categories"] = [0.0, 3.0]
    with pytest.raises(UserError, match="categories = .0.0, 3.0., expected how many each"):
        Data(path)
    for size in 2**24 + 1, 2**62:
        with pytest.raises(UserError, match=f"categories = {size:,} of a column, expected"):
            Data(made(path, categories=[0, size]))


def test_predictions_of_a_standardised_target_are_in_its_own_units_under_its_name(path, refused):
    y, mean, std = np.stack([1e9 + X[:, 0], X[:, 1]], axis=1), [1e9, 1.0], [2.0, 0.5]

    def written(**about):
        its = {"targets": ["mass", "time, s"], "target_mean": mean, "target_std": std} | about
        made(path, y=(y - mean) / std)
        with h5py.File(path, "r+") as file:
            file.attrs.update({key: known for key, known in its.items() if known is not None})
        return str(path)

    data = Data(written())
    note = "y is standardised: MAE and RMSE are in units of the std of each, 2, 0.5"
    assert [*data.targets.notes()] == [note]
    form = read_form(form_of(data).text())
    its = part(written(targets=None), form)
    assert its.notes == [note]
    Q, ell = build({"build": "tabular", "hidden": [4], "activation": "tanh"}, its.x, its.y)
    Phi(ell, 0, np.float32)
    found = Predictions(SimpleNamespace(Q=Q, ell=ell, y=its.y, form=form, file="a.h5"), its)
    its.put(*its.rows.load(its.rows.numbers))
    Forward(Q)
    expected = Q.value.astype(float) * std + mean
    file = BytesIO()
    WRITERS[".csv"](file, found, len(expected), [found.of(Q.value)])
    names, *lines = file.getvalue().decode().splitlines()
    assert names == 'mass,"time, s"'
    np.testing.assert_array_equal([[*map(float, line.split(","))] for line in lines], expected)

    for about, scaling in (
        ({"target_mean": None}, ((0, 0), (2, 0.5))),
        ({"target_std": None}, ((1e9, 1), (1, 1))),
    ):
        targets = Data(written(**about)).targets
        assert (targets.mean, targets.std) == scaling
    for about, what in [
        (
            {"target_std": [2.0, 0.6]},
            "std 2, 0.6, expected y standardised by mean 1000000000",
        ),
        ({"target_mean": None, "target_std": None}, "y as it is, expected y standardised by mean"),
        ({"targets": ["time, s", "mass"]}, "targets time, s, mass, expected targets mass, time, s"),
        (
            {"target_std": [1, 0]},
            "target_std = array([1, 0]), expected 2 numbers, no std",
        ),
        ({"target_mean": [1.0, 2.0, 3.0]}, "target_mean = array([1., 2., 3.]), expected 2 numbers"),
        ({"targets": ["mass"]}, "attribute targets = 1 name, expected 2, as y has"),
    ]:
        with refused(path, what):
            part(written(**about), form)
    before = form_of(data).text().replace('"targets":', '"unknown":')  # as older versions wrote it
    part(written(), read_form(before))
    form = form_of(Data(written(targets=None)))
    part(written(), form)


def test_a_model_that_takes_codes_for_numbers_is_said_to_do_so(path):
    columns = Data(made(path)).columns
    line = 'column town is of categories, whose codes mlp takes as numbers; model.build = "tabular"'
    assert [*codes_as_numbers("mlp", columns)] == [f"{line} embeds it"]
    assert not [*codes_as_numbers("tabular", columns), *codes_as_numbers("mine.py:net", columns)]
    columns = Data(made(path, X[..., np.newaxis])).columns  # an image has none
    assert columns is None and not [*codes_as_numbers("mlp", columns)]


def test_a_class_that_no_row_is_learnt_from_is_said(path):
    about = {"classes": ["no", "yes", "rare"]}
    for ignore, names in (None, "'rare'"), (1, "'yes', 'rare'"):
        (note,) = Data(made(path, ignore=ignore, **about)).notes
        assert note == f"{path}: train/y: no row of class {names} to learn from"


def lines_of(capsys, *words):
    tool.main([*map(str, words)])
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines[1:] if "rows.h5" not in line)
    return lines


def test_a_table_is_described_column_by_column(path, capsys):
    numbers = X[:20, 0].astype(float)
    expected = [numbers.mean(), numbers.std(), numbers.min(), numbers.max()]
    line = "0 a        " + "".join(f"{its:>11.4g}" for its in expected)
    for about in {}, {"mean": [5, 0], "std": [2, 1]}:  # as they are in the table
        lines = lines_of(capsys, made(path, **about, classes=["x", "y" * 70_000]))
        at = lines.index("2 columns         mean        std        low       high")
        assert lines[at + 1 : at + 3] == [line, "1 town     2 categories and (other): P, Q"]
        assert not any(line.startswith(("x ", "inputs")) for line in lines)
    made(path, columns=None, categories=[0, 3])
    assert "1          3 categories" in lines_of(capsys, path)
    y = np.where(Y, 255, 0)  # of one class, but for what does not count
    *_, head, row = lines_of(capsys, made(path, y=y, ignore=255))
    assert [head.split(), row.split()] == [["1", "class", "train", "test"], ["0", "10", "5"]]


@pytest.mark.parametrize("y", [Y / 2, Y, None], ids=["targets", "labels", "nothing"])
def test_a_file_without_rows_to_learn_from_is_described_and_checked(y, path, capsys, refused):
    write(path, **TABLE, test=(X, Y if y is None else y))
    with h5py.File(path, "r+") as file:
        file.attrs.update({"targets": ["mass"], "target_mean": 3.0, "target_std": 0.5})
        if y is None:
            del file["test/y"]
    lines = lines_of(capsys, path)
    tools = "predict" if y is None else "evaluate and predict"
    assert lines[-1] == f"{path}: no train/x, so it is for dpedf {tools} alone"
    assert "1 town     2 categories and (other): P, Q" in lines
    standardised = "          mass, standardised by mean 3 and std 0.5" in lines
    assert standardised == (y is not None and y.dtype.kind == "f")
    whole = f"{path}: whole, 30 rows, all checksums are right"
    assert lines_of(capsys, path, "--verify") == [whole]
    with refused(path, "a table, expected images to draw"):
        tool.main([str(path), "-o", str(path.with_suffix(".png"))])
    with h5py.File(path, "r+") as file:
        file["test/x"][4, 1] = 7
        del file["test/x"].attrs["crc32"]
    with refused(path, "test/x: code 7 of column town in row 4, expected 0..2"):
        tool.main([str(path), "--verify"])


def test_what_is_no_rows_or_of_another_shape_is_refused_in_such_a_file_too(path, refused):
    with h5py.File(path, "w") as file:
        file["test/x"], file["valid/x"] = X, X[:, :1]
    with refused(path, "valid/x: rows of (1,), expected (2,) as in test"):
        tool.main([str(path)])
    with h5py.File(path, "w") as file:
        file.create_group("test/x")
    with refused(path, "no dataset test/x, expected rows there"):
        tool.main([str(path)])


def test_the_label_that_does_not_count_is_that_of_the_run(path, refused):
    form = form_of(Data(made(path, ignore=1, classes=3)))
    part(made(path, classes=3), form)
    with refused(path, "attribute ignore = 0, expected 1 as in the run"):
        part(made(path, ignore=0, classes=3), form)


def test_what_is_no_data_file_yet_is_said_to_become_one(tmp_path, refused):
    (tmp_path / "odd.csv").write_text("a,b")
    made(tmp_path / "even.h5")
    for name, what in {"odd.csv": "data/table.py", ".": "data/images.py"}.items():
        with refused(tmp_path / name, f"no data file, expected what {what} makes of it"):
            Data(str(tmp_path / name))
    with refused(tmp_path / "odd.h5", "no such file, make it with: dpedf.data.write"):
        Data(str(tmp_path / "odd.h5"))
    with refused(tmp_path / "evn.h5", f"no such file, expected {tmp_path / 'even.h5'}"):
        Data(str(tmp_path / "evn.h5"))
