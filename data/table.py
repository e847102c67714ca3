"""Any table as a data file of dpedf, to predict a column from the others.

    python data/table.py FILE.csv --target COLUMN     # writes data/NAME.h5
    python data/table.py NEW.csv --like data/NAME.h5  # more rows, coded as those

FILE is a .csv, .parquet or .npz, and NAME its stem.  Numbers are kept, and are
standardised by the mean and std of the rows to train as they are read.  Texts
and truth values are categories, and so are numbers of columns in --categories:
x holds their codes, 1 and on by name; 0 is for what no row to train has, and
for what is missing.  A target of texts, integers or truth values is a label,
one of floats makes a regression, and so do several targets.  All rows of NEW
are to test; without --target they have no labels.
"""

from pathlib import Path

import numpy as np

from dpedf.data.columns import columns_of
from dpedf.data.fractions import add_fractions, drawn
from dpedf.data.recipe import (
    about_of,
    add_about,
    beside,
    expect_kept,
    parser_of,
    recipe_errors,
    summary,
)
from dpedf.data.stored import Stored
from dpedf.data.tables import counting, table
from dpedf.data.tabular import Categories, Labels, Numbers, expect_complete, stacked
from dpedf.data.writer import GROUPS, scatter
from dpedf.errors import UserError, concerning, nearest, plural, print_line

FAR = 30  # the size of a regression's numbers that is easy to learn, at most
FEW = 100  # integers that are labels without --classes, at most


class Recipe:
    """A table, and what its columns become.

    columns: of x.  targets: of y.  split: the group of each row.  about: attributes of the data
    file.  notes: for the user, a line each.
    """

    def __init__(self, args):
        self.args, self.notes = args, []
        self.table = table(args.file, args.delimiter, args.encoding, args.missing_text)
        self.kinds = self.table.kinds
        if not self.table.rows:
            raise UserError("no rows, expected some")
        for option in "target", "drop", "categories":
            for name in getattr(args, option):
                if name not in self.kinds:
                    near = nearest(name, list(self.kinds))
                    raise UserError(f"--{option} {name}: no such column, expected {near}")
        if args.like:
            self.plan_like(args.like)
        else:
            self.plan()
        self.about["columns"] = [its.name for its in self.columns]
        self.about["categories"] = [its.names or 0 for its in self.columns]
        for name in "mean", "std":
            self.about[name] = [getattr(its, name) for its in self.columns]
            if self.targets and self.args.standardise_target:
                self.about[f"target_{name}"] = [getattr(its, name) for its in self.targets]

    def plan(self):
        """Find in the rows what the columns become."""
        args = self.args
        if not args.target:
            raise UserError("no --target, expected the column to predict, or --like FILE")
        names = [name for name in self.kinds if name not in (*args.target, *args.drop)]
        if "" in names:
            raise UserError("a column without a name, expected one, or --drop '' if it counts rows")
        if not names:
            raise UserError("no column beside the target, expected some to predict it from")
        self.split = drawn(self.table.rows, args.valid, args.test, args.seed)
        self.columns = [self.column(name) for name in names]
        self.targets = [self.target(name) for name in args.target]
        self.look()
        for its in *self.columns, *self.targets:
            self.notes += its.finish()
        self.about = {}
        if isinstance(its := self.targets[0], Labels):
            self.about["classes"], n = its.names, len(its.names)
            if n < 2:
                found = f"column {its.name} is {its.names[0]} in all rows"
                raise UserError(f"{found}, expected several classes")
            if n > FEW and its.key and not args.classes:
                found = f"column {its.name}: {n:,} different integers"
                raise UserError(f"{found}, expected --regression, or --classes for labels")

    def plan_like(self, path):
        """Let the columns become what they are in a data file that this recipe wrote."""
        with concerning(f"--like {path}"):
            try:
                stored = Stored(path)
            except FileNotFoundError:
                raise UserError("no such file, expected one that data/table.py wrote") from None
            names = np.atleast_1d(stored.attribute("columns", ()))
            found = columns_of(stored, names.shape)
            if not names.size or sum(found.sizes) != len(found.categories):
                raise UserError("no names of its columns, expected a file of data/table.py")
        self.split = np.full(self.table.rows, GROUPS.index("test"), np.uint8)
        self.columns, categories = [], list(found.categories)
        for name, size in zip(found.names, found.sizes, strict=True):
            if name not in self.kinds:
                raise UserError(f"no column {name}, expected all those of {path}")
            known, categories = categories[:size], categories[size:]
            its = Categories(name, self.texts(name, known), known) if size else self.number(name)
            self.columns.append(its)
        self.scaled_as(self.columns, stored, "")
        self.about, targets = {"classes": stored.attribute("classes", None)}, self.args.target
        self.args.standardise_target = stored.attribute("target_mean", None) is not None
        if self.about["classes"] is None:
            self.targets = [self.number(name, self.args.standardise_target) for name in targets]
            self.scaled_as(self.targets, stored, "target_")
        elif len(targets) > 1:
            raise UserError(f"--target {' '.join(targets)}, expected one, as in {path}")
        else:
            known = np.atleast_1d(self.about["classes"]).tolist()
            self.targets = [Labels(name, self.texts(name, known), known) for name in targets]
        self.look()

    def scaled_as(self, columns, stored, prefix):
        """Have these columns the mean and std that a data file says."""
        for key in "mean", "std":
            known = np.atleast_1d(stored.attribute(prefix + key, np.zeros(len(columns))))
            if columns and len(known) != len(columns):
                found = f"--target {' '.join(self.args.target)}, expected {len(known)} targets"
                raise UserError(f"{found} as in {self.args.like}")
            for its, number in zip(columns, known.tolist(), strict=False):
                setattr(its, key, number)

    def column(self, name):
        """What a column of x becomes."""
        coded = self.kinds[name] in ("text", "truth") and name not in self.table.doubts
        if coded or name in self.args.categories:
            return Categories(name, self.texts(name))
        return self.number(name)

    def target(self, name):
        """What a target becomes."""
        args, labels = self.args, self.kinds[name] in ("text", "truth", "integer")
        if len(args.target) > 1 and args.classes:
            raise UserError("--classes with several targets, expected one")
        if args.classes or (labels and len(args.target) == 1 and not args.regression):
            return Labels(name, self.texts(name))
        return self.number(name, scaled=args.standardise_target)

    def texts(self, name, known=("true",)):
        """Read a column as texts, of which some may be known; the kind that they are of.

        Truth values are true and false, however a CSV spells them.
        """
        kind = self.expect(name, "text", "truth", "integer", "number")
        if kind != "truth" or not {"true", "false"} & {*known}:
            self.kinds[name] = "text"
        return kind

    def number(self, name, scaled=False):
        if name in self.table.doubts:
            raise UserError(f"column {name}: {self.table.doubts[name]}")
        self.expect(name, "integer", "number", "truth")
        return Numbers(name, self.args.missing == "zero", scaled)

    def expect(self, name, *kinds):
        """The kind of a column.  UserError: it is none of these."""
        if self.kinds[name] in kinds:
            return self.kinds[name]
        found = {"date": "dates", "text": "texts"}.get(self.kinds[name], self.kinds[name])
        expected = "numbers" if name in self.args.target else f"numbers, or --drop {name}"
        raise UserError(f"column {name} holds {found}, expected {expected}")

    def look(self):
        """Have each column look at its rows.  UserError: values are missing."""
        first = 0
        for block in counting(self.read(), self.table.rows):
            train = self.split[first : first + len(block[self.columns[0].name])] == 0
            first += len(train)
            for its in *self.columns, *self.targets:
                its.look(block[its.name], train)
        expect_complete(self.columns, self.targets, self.args.missing)

    def read(self):
        return self.table.blocks([its.name for its in (*self.columns, *self.targets)])

    def blocks(self):
        """Yield (x, y) for some rows at a time; without targets (x,)."""
        for block in self.read():
            x = stacked(self.columns, block)
            if not self.targets:
                yield (x,)
            elif isinstance(self.targets[0], Labels):
                yield x, self.targets[0].encode(block[self.targets[0].name])
            else:
                y = stacked(self.targets, block)
                yield x, y if len(self.targets) > 1 else y[:, 0]

    def lines(self, output):
        """What was made of the table."""
        for note in self.notes:
            yield f"{self.args.file}: {note}"
        n = plural(len(self.split), "row")
        yield f"{output}: {f'{n} to test' if self.args.like else summary(self.split, 'row')}"
        coded = sum(bool(its.names) for its in self.columns)
        yield f"x: {plural(len(self.columns) - coded, 'column')} of numbers, {coded} of categories"
        for its in self.targets:
            if its.names:
                yield f"y: {its.name}, with {len(its.names):,} classes"
            elif its.scaled:
                yield f"y: ({its.name} - {its.mean:g}) / {its.std:g}"
            elif self.args.like:
                yield f"y: {its.name}"
            else:
                yield f"y: {its.name}, of mean {its.mean:g} and std {its.std:g}"
                if max(abs(its.mean), its.std) > FAR:
                    yield "y is far from 0 and 1: --standardise-target makes it easier to learn"


def main():
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("file", metavar="FILE", type=Path, help="the table")
    some = {"metavar": "COLUMN", "nargs": "+", "default": []}
    add("--target", **some, help="what is to be predicted")
    add("--drop", **some, help="what is not read")
    add("--categories", **some, help="numbers that stand for categories")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--classes", action="store_true", help="the target is a label")
    kind.add_argument("--regression", action="store_true", help="the target is a number")
    add("--standardise-target", action="store_true", help="y is (target - mean) / std of train")
    add("--missing", choices=["mean", "zero"], help="fill what is missing, in numbers")
    add("--missing-text", metavar="TEXT", action="append", default=[], help="such as ?, of a .csv")
    add("--delimiter", metavar="C", default=",", help="of a .csv (,)")
    add("--encoding", default="utf8", help="of a .csv (utf8)")
    add("--like", metavar="FILE", type=Path, help="code and scale as in a file of this recipe")
    add_fractions(parser)
    add_about(parser)
    args = parser.parse_args()
    output = args.output or beside(__file__, args.file.stem)
    about = about_of(args, args.file.stem, args.file.name, "that of the table")
    with recipe_errors(parser, output), concerning(args.file):
        if args.like and (args.valid is not None or args.test is not None):
            raise UserError("--valid or --test with --like, expected none: all rows are to test")
        expect_kept([args.file, *[args.like] * bool(args.like)], output)
        recipe = Recipe(args)
        scatter(output, recipe.blocks(), recipe.split, **about, **recipe.about)
    for line in recipe.lines(output):
        print_line(line)


if __name__ == "__main__":
    main()
