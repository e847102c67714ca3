"""Tables that other programs wrote, CSV, Parquet or .npz, read some rows at a time by pyarrow.

A column is of one kind: integer, number, truth, text; date; or what pyarrow calls a type that has
no place in x or y.  In a CSV, where all is text, it is the first of these that all values are.
"""

import codecs
import re
from contextlib import contextmanager
from zipfile import BadZipFile, is_zipfile

import numpy as np
from tqdm import tqdm

from dpedf.data.disk import expect_regular
from dpedf.data.memory import expect_memory
from dpedf.errors import UserError, extra, one_line

BLOCK = 1 << 24  # bytes of a CSV that are read at a time
ROWS = 1 << 16  # of the other files
MISSING = "", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None"  # as in pandas
NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?"
KINDS = {  # of the texts of a CSV, and the types of pyarrow that hold them
    "integer": "int64",
    "number": "float64",
    "truth": "bool",
    "date": "timestamp[us]",
    "text": "string",
}
SUFFIXES = ".csv", ".parquet", ".npz"


def table(path, delimiter=",", encoding="utf8", missing=()):
    """The Table in a file.

    delimiter, encoding: of a CSV.  missing: what stands for no value there, beside the usual texts.
    UserError: it is no table, or pyarrow is not there.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"expected a name that ends in {', '.join(SUFFIXES)}")
    if len(delimiter.encode()) != 1:
        raise UserError(f"--delimiter {delimiter}, expected one character, such as ';'")
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        raise UserError(f"--encoding {encoding}: {error}, expected such as latin1") from None
    with extra("table", "to read a table"):
        import pyarrow.csv
        import pyarrow.parquet  # noqa: F401
    with reading():
        expect_regular(path)
        if not path.stat().st_size:
            raise UserError("an empty file, expected a table")
        if suffix == ".csv":
            return CSV(path, delimiter, encoding, {*MISSING, *missing})
        return (Parquet if suffix == ".parquet" else Arrays)(path)


def counting(blocks, total=None):
    """Yield the blocks, with a bar on a terminal that counts their rows, of so many in all."""
    unit = {"unit": " rows", "unit_scale": True}
    with tqdm(total=total, **unit, leave=False, disable=None, delay=0.5) as bar:
        for block in blocks:
            yield block
            bar.update(len(next(iter(block.values()))))


@contextmanager
def reading():
    """Inside the with block, what cannot be read is a UserError."""
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError, UnicodeError, BadZipFile) as error:
        found = one_line(error)[:200]
        if isinstance(error, UnicodeError) or "UTF8" in found:
            found += ", expected UTF-8, or --encoding latin1"
        raise UserError(found) from None


class Table:
    """Rows of named columns.  kinds: {name: kind}, in order.  rows: how many.

    doubts: {name: why a column of text may have been meant as numbers}.
    Subclasses define arrays(names), which yields {name: pyarrow's array} for some rows at a time.
    """

    doubts = {}

    def expect_names(self, names):
        """UserError: two columns have one name."""
        for at, name in enumerate(names):
            if names.index(name) < at:
                raise UserError(f"two columns {name!r}, expected names that differ")

    def blocks(self, names):
        """Yield {name: pyarrow's array, of the type of its kind} for some rows at a time."""
        types = {name: KINDS[self.kinds[name]] for name in names}
        with reading():
            for arrays in self.arrays(names):
                yield {name: its.cast(types[name]) for name, its in arrays.items()}


class CSV(Table):
    def __init__(self, path, delimiter, encoding, missing):
        import pyarrow

        self.path, self.delimiter, self.encoding = path, delimiter, encoding
        self.missing, self.doubts, self.rows = pyarrow.array(sorted(missing)), {}, 0
        header = self.open([]).schema.names
        if len(header) == 1 and (others := [d for d in ";\t|," if d in header[0]]):
            shown = others[0].replace("\t", "\\t")
            raise UserError(f"one column {header[0]!r}, expected --delimiter '{shown}'")
        if all(re.fullmatch(NUMBER, name) for name in header):
            found = f"the first line is {delimiter.join(header[:4])!r}"
            raise UserError(f"{found}, expected one with the names of the columns")
        self.expect_names(header)
        left = {name: list(KINDS) for name in header}
        numbers, others = dict.fromkeys(left, 0), {}
        for texts in counting(self.arrays(header)):
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

    def open(self, names):
        """What pyarrow reads of columns, as texts; without names of all columns, in any type."""
        from pyarrow import csv, string

        types = dict.fromkeys(names, string())
        return csv.open_csv(
            self.path,
            csv.ReadOptions(block_size=BLOCK, encoding=self.encoding),
            csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
            csv.ConvertOptions(column_types=types, include_columns=names),
        )

    def arrays(self, names):
        from pyarrow import compute, scalar

        none = scalar(None, "string")
        for batch in self.open(names):
            texts = {name: compute.utf8_trim_whitespace(batch[name]) for name in names}
            yield {
                name: compute.if_else(compute.is_in(its, self.missing), none, its)
                for name, its in texts.items()
            }


class Parquet(Table):
    def __init__(self, path):
        from pyarrow import parquet

        self.path, self.file = path, parquet.ParquetFile(path)
        schema, self.rows = self.file.schema_arrow, self.file.metadata.num_rows
        self.expect_names(schema.names)
        self.kinds = {name: kind_of(schema.field(name).type) for name in schema.names}

    def arrays(self, names):
        for batch in self.file.iter_batches(ROWS, columns=names):
            yield {name: batch[name] for name in names}


class Arrays(Table):
    """The arrays of an .npz, which are in memory: of one index, or of rows of numbers each."""

    def __init__(self, path):
        import pyarrow

        self.path, columns = path, []
        expect_memory("its arrays", path.stat().st_size)
        if not is_zipfile(path):
            raise UserError("no arrays in it, expected what numpy.savez writes")
        with np.load(path) as file:
            for name in file.files:
                try:
                    its = file[name]
                except ValueError as error:  # of objects
                    raise UserError(f"array {name}: {one_line(error)}") from None
                its = np.char.decode(its) if its.dtype.kind == "S" else its
                if its.ndim not in (1, 2):
                    found = f"array {name} of shape {its.shape}"
                    raise UserError(f"{found}, expected columns, or rows of numbers")
                split = {f"{name}{i}": column for i, column in enumerate(its.T)}
                columns += (split if its.ndim == 2 else {name: its}).items()
        self.expect_names([name for name, _ in columns])
        self.columns = {name: pyarrow.array(its) for name, its in columns}
        counts = {len(its): name for name, its in self.columns.items()}
        if len(counts) > 1:
            found = ", ".join(f"{name} has {n:,}" for n, name in sorted(counts.items()))
            raise UserError(f"arrays of other lengths: {found}, expected one length")
        self.kinds = {name: kind_of(its.type) for name, its in self.columns.items()}
        self.rows = next(iter(counts), 0)

    def arrays(self, names):
        for first in range(0, self.rows, ROWS):
            yield {name: self.columns[name][first : first + ROWS] for name in names}


def can_be(texts, kind):
    """Are all these texts of a kind?"""
    from pyarrow import ArrowInvalid, timestamp

    zoned = [timestamp("us", "UTC")] * (kind == "date")
    for type_ in (KINDS[kind], *zoned):
        try:
            texts.cast(type_)
            return True
        except ArrowInvalid:
            continue
    return False


def count_numbers(name, texts, numbers, others):
    """Add how many of these texts are numbers to numbers[name]; others[name]: one that is not."""
    from pyarrow import compute

    are = compute.match_substring_regex(texts, f"^{NUMBER}$")
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
    if types.is_string(type_) or types.is_large_string(type_):
        return "text"
    kinds = {"integer": types.is_integer, "truth": types.is_boolean, "date": types.is_temporal}
    return next((kind for kind, its in kinds.items() if its(type_)), str(type_))
