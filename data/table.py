"""Any table as a data file of dpedf, to predict a column from the others.

    python data/table.py FILE.csv --target COLUMN     # writes data/NAME.h5 of FILE's stem NAME
    python data/table.py NEW.csv --like data/NAME.h5  # more rows, coded and scaled as those

FILE is a .csv, .parquet or .npz.  Numbers are kept, and standardised by the mean and std of the
rows to train as they are read.  Texts and truth values are categories, and so are integers of
columns in --categories: x holds their codes, 1 and on by name; 0 is a category that no row to
train has.  A target of texts, integers or truth values is a label; one of floats makes a
regression, and so do several targets.  All rows of NEW are to test; without --target, they have
no labels.
"""

from pathlib import Path

import numpy as np

from dpedf.data.columns import columns_of
from dpedf.data.fractions import add_fractions, drawn
from dpedf.data.recipe import parser_of, recipe_errors
from dpedf.data.stored import Stored
from dpedf.data.tables import counting, table
from dpedf.data.tabular import Categories, Labels, Numbers, expect_complete, stacked
from dpedf.data.writer import GROUPS, scatter
from dpedf.errors import UserError, concerning, nearest, plural, print_line

FAR = 30  # the size of a regression's numbers that is easy to learn, at most
FEW = 100  # integers that are labels without --classes, at most
CATEGORIES = "text", "truth", "integer", "number"  # kinds of columns that can hold some


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
            if self.args.standardise_target:
                self.about[f"target_{name}"] = [getattr(its, name) for its in self.targets]

    def plan(self):
        """Find in the rows what the columns become."""
        args = self.args
        if not args.target:
            raise UserError("no --target, expected the column to predict, or --like FILE")
        names = [name for name in self.kinds if name not in (*args.target, *args.drop)]
        if "" in names:
            raise UserError(
                "a column without a name, expected one, or --drop '' where it counts rows"
            )
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
            self.about["classes"] = its.names
            if its.key and len(its.names) > FEW and not args.classes:
                found = f"column {its.name}: {len(its.names):,} different integers"
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
            self.columns.append(Categories(name) if size else self.number(name))
            self.columns[-1].names, categories = categories[:size], categories[size:]
        classes, target_mean = (stored.attribute(key, None) for key in ("classes", "target_mean"))
        self.about = {"classes": classes}
        self.args.standardise_target = scaled = target_mean is not None
        if classes is None:
            self.targets = [self.number(name, scaled) for name in self.args.target]
        else:
            self.targets = [Labels(name) for name in self.args.target[:1]]
            for its in self.targets:
                its.names = np.atleast_1d(classes).tolist()
        self.look()
        for columns, prefix in (self.columns, ""), (self.targets, "target_"):
            for key in "mean", "std":
                known = np.broadcast_to(stored.attribute(prefix + key, 0), len(columns))
                for its, number in zip(columns, known.tolist(), strict=True):
                    setattr(its, key, number)

    def column(self, name):
        """What a column of x becomes."""
        asked = name in self.args.categories
        if self.kinds[name] not in ("text", "truth") and not asked:
            return self.number(name)
        if name in self.table.doubts and not asked:
            raise UserError(f"column {name}: {self.table.doubts[name]}")
        return Categories(name, self.expect(name, *CATEGORIES))

    def target(self, name):
        """What a target becomes."""
        args, labels = self.args, self.kinds[name] in ("text", "truth", "integer")
        if len(args.target) > 1 and args.classes:
            raise UserError("--classes with several targets, expected one")
        if args.classes or (labels and len(args.target) == 1 and not args.regression):
            return Labels(name, self.expect(name, *CATEGORIES))
        return self.number(name, scaled=args.standardise_target)

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
        counts = np.bincount(self.split, minlength=len(GROUPS)).tolist()
        pairs = zip(counts, ("train", "validate", "test"), strict=True)
        rows = ", ".join(f"{plural(n, 'row')} to {does}" for n, does in pairs if n)
        yield f"{output}: {rows}"
        coded = sum(bool(its.names) for its in self.columns)
        yield f"x: {plural(len(self.columns) - coded, 'column')} of numbers, {coded} of categories"
        for its in self.targets:
            if its.names:
                yield f"y: {its.name}, with {len(its.names):,} classes"
            elif its.scaled:
                yield f"y: ({its.name} - {its.mean:g}) / {its.std:g}"
            else:
                far = max(abs(its.mean), its.std) > FAR
                hint = "; --standardise-target makes it easier to learn" * (
                    far and not self.args.like
                )
                yield f"y: {its.name}, of mean {its.mean:g} and std {its.std:g}{hint}"


def main():
    parser = parser_of(__doc__, None)
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
    add("--missing", choices=["mean", "zero"], help="fill numbers that are missing: mean of train")
    add("--missing-text", metavar="TEXT", action="append", default=[], help="such as ?, of a .csv")
    add("--delimiter", metavar="C", default=",", help="of a .csv (,)")
    add("--encoding", default="utf8", help="of a .csv (utf8)")
    add("--like", metavar="FILE", type=Path, help="code and scale as in a file of this recipe")
    add_fractions(parser)
    args = parser.parse_args()
    output = args.output or Path(__file__).with_name(f"{args.file.stem}.h5")
    about = {"name": args.file.stem, "source": args.file.name, "licence": "that of the table"}
    with recipe_errors(parser, output), concerning(args.file):
        if args.like and (args.valid is not None or args.test is not None):
            raise UserError("--valid or --test with --like, expected none: all rows are to test")
        if args.like and output.exists() and output.samefile(args.like):
            raise UserError(f"{output} would be replaced, expected another --output")
        recipe = Recipe(args)
        scatter(output, recipe.blocks(), recipe.split, **about, **recipe.about)
    for line in recipe.lines(output):
        print_line(line)


if __name__ == "__main__":
    main()
