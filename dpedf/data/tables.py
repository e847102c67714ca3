"""Tables that other programs wrote, CSV, Parquet or .npz, read some rows at a time by pyarrow."""

import re
import struct
import zlib
from collections import Counter
from contextlib import contextmanager
from tokenize import TokenError
from zipfile import BadZipFile, is_zipfile

import numpy as np
from tqdm import tqdm

from dpedf.data.disk import expect_regular
from dpedf.data.kinds import KINDS, NUMBER, REAL, kind_of, kinds_of_texts, pointed
from dpedf.data.memory import expect_memory
from dpedf.errors import UserError, extra, one_line

BLOCK = 1 << 22  # bytes that are read at a time
MISSING = "", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None"  # as in pandas
BROKEN = (  # what NumPy raises where a file is damaged, depending on which of its bytes are
    *(OSError, ValueError, EOFError, SyntaxError, TypeError, LookupError, OverflowError),
    *(MemoryError, RuntimeError, TokenError, BadZipFile, struct.error, zlib.error),
)
SUFFIXES = ".csv", ".parquet", ".npz"


def table(path, delimiter=",", encoding="utf8", missing=(), decimal="."):
    """The Table in a file.

    delimiter, encoding, decimal: of a CSV.  missing: what stands for no value there, beside the
    usual texts.  UserError: it is no table, or pyarrow is not there.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"expected a name that ends in {', '.join(SUFFIXES)}")
    delimiter = delimiter.replace("\\t", "\t")
    if len(delimiter.encode()) != 1:
        raise UserError(f"--delimiter {delimiter}, expected one character, such as ';'")
    try:
        "1".encode(encoding).decode(encoding)
    except (LookupError, UnicodeError):
        raise UserError(f"--encoding {encoding}, expected one of texts, such as latin1") from None
    with extra("table", "to read a table"):
        import pyarrow.csv
        import pyarrow.parquet  # noqa: F401
    with reading():
        expect_regular(path)
        if not path.stat().st_size:
            raise UserError("an empty file, expected a table")
        if suffix == ".csv":
            return CSV(path, delimiter, encoding, {*MISSING, *missing}, decimal)
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
        if "UTF8" in found or "utf-8" in found:
            found += ", expected UTF-8, or --encoding latin1"
        elif isinstance(error, UnicodeError):
            found += ", expected another --encoding, such as latin1"
        elif "Expected 1 columns" in found:
            found += ", expected another --delimiter, such as ';'"
        elif "straddl" in found:
            found = f"a row of more than {BLOCK >> 20} MiB, expected less; a quote may be left open"
        raise UserError(found) from None


class Table:
    """Rows of named columns.  kinds: {name: kind}, in order.  rows: how many.

    others: {name: what is no number in a column of text}.
    remedies: {name: what is to be done where such a column may have been meant as numbers}.
    Subclasses define arrays(names), which yields {name: pyarrow's array} for some rows at a time.
    """

    others, remedies = {}, {}

    def expect_names(self, names):
        """UserError: two columns have one name."""
        name, n = Counter(names).most_common(1)[0] if names else ("", 0)
        if n > 1:
            raise UserError(f"{n} columns {name!r}, expected names that differ")

    def blocks(self, names):
        """Yield {name: pyarrow's array, of the type of its kind} for some rows at a time."""
        with reading():
            for arrays in self.arrays(names):
                yield {name: self.cast(name, its) for name, its in arrays.items()}

    def cast(self, name, array):
        """An array in the type of its kind, where nan is no value."""
        from pyarrow import compute, types

        if hasattr(array, "dictionary_decode"):
            array = array.dictionary_decode()
        if types.is_floating(array.type):
            array = compute.if_else(compute.is_nan(array), None, array)
        kind = self.kinds[name]
        return array.cast(KINDS[kind], safe=kind != "number")  # integers beyond 2**53 as well


class CSV(Table):
    def __init__(self, path, delimiter, encoding, missing, decimal):
        import pyarrow

        self.path, self.delimiter, self.encoding = path, delimiter, encoding
        self.missing, self.decimal = pyarrow.array(sorted(missing)), decimal
        header = self.open([]).schema.names
        if len(header) == 1 and (others := re.findall(r"[;\t|,]", header[0])):
            raise UserError(f"one column {header[0]!r}, expected --delimiter {others[0]!r}")
        if all(re.fullmatch(NUMBER, name) for name in header):
            found = f"the first line is {delimiter.join(header[:4])!r}"
            raise UserError(f"{found}, expected one with the names of the columns")
        self.there = {name.strip(): name for name in header}
        self.expect_names([name.strip() for name in header])
        found = kinds_of_texts(counting(self.arrays(self.there)), decimal)
        self.kinds, self.others, self.remedies, self.rows = found

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
        there = {name: self.there[name] for name in names}
        for batch in self.open([*there.values()]):
            texts = {name: compute.utf8_trim_whitespace(batch[its]) for name, its in there.items()}
            yield {
                name: compute.if_else(compute.is_in(its, self.missing), none, its)
                for name, its in texts.items()
            }

    def cast(self, name, array):
        real = self.kinds[name] in REAL
        return super().cast(name, pointed(array, self.decimal) if real else array)


class Parquet(Table):
    def __init__(self, path):
        from pyarrow import parquet

        self.path, self.file = path, parquet.ParquetFile(path)
        schema, self.rows = self.file.schema_arrow, self.file.metadata.num_rows
        self.expect_names(schema.names)
        self.kinds = {name: kind_of(schema.field(name).type) for name in schema.names}

    def arrays(self, names):
        for batch in self.file.iter_batches(rows_of_a_block(names), columns=names):
            yield {name: batch[name] for name in names}


class Arrays(Table):
    """The arrays of an .npz, which are in memory: of one index, or of rows of numbers each."""

    def __init__(self, path):
        import pyarrow

        self.path, columns = path, []
        for name, its in members(path):
            if its.ndim not in (1, 2):
                found = f"array {name} of shape {its.shape}, expected columns, or rows of numbers"
                raise UserError(f"{found}; data/arrays.py takes others")
            several = [(f"{name}{i}", column) for i, column in enumerate(its.T)]
            columns += several if its.ndim == 2 else [(name, its)]
        self.expect_names([name for name, _ in columns])
        self.columns = {name: pyarrow.array(its) for name, its in columns}
        counts = {len(its): name for name, its in self.columns.items()}
        if len(counts) > 1:
            found = ", ".join(f"{name} has {n:,} rows" for n, name in sorted(counts.items()))
            elsewhere = "data/arrays.py takes x_train, y_train, x_test, y_test"
            raise UserError(f"{found}, expected as many in all arrays; {elsewhere}")
        self.kinds = {name: kind_of(its.type) for name, its in self.columns.items()}
        self.rows = next(iter(counts), 0)

    def arrays(self, names):
        step = rows_of_a_block(names)
        for first in range(0, self.rows, step):
            yield {name: self.columns[name][first : first + step] for name in names}


def members(path):
    """Yield (name, array) of an .npz, of types that pyarrow takes.  UserError: it holds others."""
    try:
        file = np.load(path) if is_zipfile(path) else None
    except BROKEN:
        file = None
    if file is None:
        raise UserError("no arrays in it, expected what numpy.savez writes")
    with file:
        expect_memory("its arrays", sum(its.file_size for its in file.zip.infolist()))
        for name in file.files:
            try:
                its = file[name]
            except BROKEN as error:
                found = one_line(error) or "cut off"
                expected = "numbers or texts that memory can hold"
                raise UserError(f"array {name}: {found}, expected {expected}") from None
            if not isinstance(its, np.ndarray):
                raise UserError(f"{name} is no array, expected what numpy.savez writes")
            if its.dtype.kind not in "biufSUmM" or its.dtype.char == "g":
                raise UserError(f"array {name} of {its.dtype}, expected numbers or texts")
            its = np.char.decode(its) if its.dtype.kind == "S" else its
            yield name, its.astype(its.dtype.newbyteorder("="), copy=False)


def rows_of_a_block(names):
    """How many rows of these columns are read at a time, where they are no text."""
    return max(1, BLOCK // (8 * len(names)))
