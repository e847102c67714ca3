"""Tables that other programs wrote, CSV, Parquet or .npz, read some rows at a time by pyarrow.

A column is of one kind: integer, number, truth, text; date; or what pyarrow calls a type that has
no place in x or y.  In a CSV, where all is text, it is the first of these that all values are.
"""

from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dpedf.data.disk import expect_regular
from dpedf.data.memory import expect_memory
from dpedf.errors import UserError, extra, one_line

BLOCK = 1 << 24  # bytes of a CSV that are read at a time
ROWS = 1 << 16  # of the other files
MISSING = "", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None"  # as in pandas
KINDS = {  # of the texts of a CSV, and the types of pyarrow that can hold them
    "integer": ["int64"],
    "number": ["float64"],
    "truth": ["bool"],
    "date": ["timestamp[us]", "timestamp[us, tz=UTC]"],
    "text": ["string"],
}
READ = "integer", "number", "truth", "text"  # kinds that become numbers or categories
SUFFIXES = ".csv", ".parquet", ".npz"


def table(path, drop=(), delimiter=",", encoding="utf8", missing=()):
    """The Table in a file.  drop: columns that are not read.  The others: how to read a CSV.

    missing: texts that say so of a value, beside the usual ones.
    UserError: it is none, or pyarrow is not there.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}")
    with extra("table", f"{path}: to read a table"):
        import pyarrow.csv
        import pyarrow.parquet  # noqa: F401
    with reading(path):
        expect_regular(path)
        if path.suffix.lower() == ".csv":
            return CSV(path, drop, delimiter, encoding, {*MISSING, *missing})
        return (Parquet if path.suffix.lower() == ".parquet" else Arrays)(path, drop)


@contextmanager
def reading(path):
    """Inside the with block, what pyarrow or NumPy cannot read is a UserError."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError) as error:  # an ArrowInvalid too
        found = one_line(error)
        hint = ", expected UTF-8, or --encoding latin1" if "utf8" in found.lower() else ""
        hint = hint or ", expected UTF-8, or --encoding" * isinstance(error, UnicodeError)
        raise UserError(
            f"{path}: {found}{hint or f', expected a {path.suffix[1:]} file'}"
        ) from None


class Table:
    """Rows of named columns.  kinds: {name: kind}, in order.  rows: how many.

    doubts: {name: why a column of text may have been meant as numbers}.
    Subclasses define arrays(), which yields {name: pyarrow's array} for some rows at a time.
    """

    doubts = {}

    def keep(self, names, drop):
        """The names of all columns but those to be dropped.  UserError: they are no such names."""
        for at, name in enumerate(names):
            if names.index(name) < at:
                raise UserError(f"{self.path}: two columns {name!r}, expected names that differ")
        for name in drop:
            if name not in names:
                raise UserError(f"{self.path}: --drop {name}: {no_column(name, names)}")
        return [name for name in names if name not in drop]

    def blocks(self):
        """Yield {name: pyarrow's array, of the first type of its kind} for some rows at a time."""
        with reading(self.path):
            for arrays in self.arrays():
                yield {name: its.cast(KINDS[self.kinds[name]][0]) for name, its in arrays.items()}


class CSV(Table):
    def __init__(self, path, drop, delimiter, encoding, missing):
        import pyarrow

        self.path, self.delimiter, self.encoding = path, delimiter, encoding
        self.missing, self.names, self.rows = pyarrow.array(sorted(missing)), [], 0
        self.doubts = {}
        header = self.open().schema.names
        if len(header) == 1 and (others := [d for d in ";\t|," if d in header[0]]):
            shown = others[0].replace("\t", "\\t")
            raise UserError(f"{path}: one column {header[0]!r}, expected --delimiter '{shown}'")
        if all(map(is_number, header)):
            found = f"the first line is {delimiter.join(header[:4])!r}"
            raise UserError(f"{path}: {found}, expected one with the names of the columns")
        self.names = self.keep(header, drop)
        left = {name: list(KINDS) for name in self.names}
        numbers, others = dict.fromkeys(left, 0), {}
        for texts in self.arrays():
            for name, its in texts.items():
                before, left[name] = left[name], [k for k in left[name] if can_be(its, k)]
                if left[name][0] == "text":
                    numbers[name] += self.rows * ("number" in before)
                    count_numbers(name, its, numbers, others)
            self.rows += len(its)
        self.kinds = {name: kinds[0] for name, kinds in left.items()}
        for name, n in numbers.items():
            if 2 * n > self.rows:
                found = f"{others[name]!r} is no number, as {n:,} of {self.rows:,} rows have"
                what = f"--missing-text {others[name]!r}, or --categories or --drop {name}"
                self.doubts[name] = f"{found}, expected {what}"

    def open(self):
        from pyarrow import csv

        types = {"column_types": dict.fromkeys(self.names, "string")} if self.names else {}
        return csv.open_csv(
            self.path,
            csv.ReadOptions(block_size=BLOCK, encoding=self.encoding),
            csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
            csv.ConvertOptions(include_columns=self.names, strings_can_be_null=False, **types),
        )

    def arrays(self):
        from pyarrow import compute

        for batch in self.open():
            texts = {name: compute.utf8_trim_whitespace(batch[name]) for name in self.names}
            yield {
                name: compute.replace_with_mask(its, compute.is_in(its, self.missing), None)
                for name, its in texts.items()
            }


class Parquet(Table):
    def __init__(self, path, drop):
        from pyarrow import parquet

        self.path, self.file = path, parquet.ParquetFile(path)
        self.names = self.keep(self.file.schema_arrow.names, drop)
        self.kinds = {name: kind_of(self.file.schema_arrow.field(name).type) for name in self.names}
        self.rows = self.file.metadata.num_rows

    def arrays(self):
        for batch in self.file.iter_batches(ROWS, columns=self.names):
            yield {name: decoded(batch[name]) for name in self.names}


class Arrays(Table):
    """The arrays of an .npz, which are in memory: of one index, or of rows of numbers each."""

    def __init__(self, path, drop):
        import pyarrow

        self.path, columns = path, []
        expect_memory(f"{path}: its arrays", path.stat().st_size)
        with np.load(path) as file:
            for name in file.files:
                its = file[name]
                its = np.char.decode(its) if its.dtype.kind == "S" else its
                if its.ndim not in (1, 2):
                    found = f"array {name} of shape {its.shape}"
                    raise UserError(f"{path}: {found}, expected columns, or rows of numbers")
                split = {f"{name}{i}": column for i, column in enumerate(its.T)}
                columns += (split if its.ndim == 2 else {name: its}).items()
        names = self.keep([name for name, _ in columns], drop)
        self.columns = {name: pyarrow.array(its) for name, its in columns if name in names}
        counts = {len(its): name for name, its in self.columns.items()}
        if len(counts) > 1:
            found = ", ".join(f"{name} has {n:,}" for n, name in sorted(counts.items()))
            raise UserError(f"{path}: arrays of other lengths: {found}, expected one length")
        self.kinds = {name: kind_of(its.type) for name, its in self.columns.items()}
        self.rows = next(iter(counts), 0)

    def arrays(self):
        for first in range(0, self.rows, ROWS):
            yield {name: its[first : first + ROWS] for name, its in self.columns.items()}


def no_column(name, names):
    """There is none of this name."""
    from difflib import get_close_matches

    near = get_close_matches(name, names, 1) or [f"one of {', '.join(map(str, names))}"[:200]]
    return f"no such column, expected {near[0]}"


def is_number(text):
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def can_be(texts, kind):
    """Are all these texts of a kind?"""
    from pyarrow import ArrowInvalid

    for type_ in KINDS[kind]:
        try:
            texts.cast(type_)
            return True
        except ArrowInvalid:
            continue
    return False


def count_numbers(name, texts, numbers, others):
    """Add how many of these texts are numbers to numbers[name]; others[name]: one that is not."""
    from pyarrow import compute

    are = compute.match_substring_regex(texts, r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
    numbers[name] += compute.sum(are).as_py() or 0
    rest = texts.filter(compute.invert(are))
    if name not in others and len(rest):
        others[name] = rest[0].as_py()


def kind_of(type_):
    """The kind of a type of pyarrow."""
    from pyarrow import types

    if types.is_dictionary(type_):
        return kind_of(type_.value_type)
    if types.is_uint64(type_) or types.is_floating(type_) or types.is_decimal(type_):
        return "number"
    kinds = {
        "integer": types.is_integer,
        "truth": types.is_boolean,
        "text": lambda its: types.is_string(its) or types.is_large_string(its),
        "date": types.is_temporal,
    }
    return next((kind for kind, its in kinds.items() if its(type_)), str(type_))


def decoded(array):
    """The values of an array that may hold their codes."""
    return array.dictionary_decode() if hasattr(array, "dictionary_decode") else array
