"""What becomes of the columns of a table: x and y of a data file, and what it says of them."""

import re

from dpedf.data.like import Like
from dpedf.data.recipe import split_of
from dpedf.data.tables import counting, table
from dpedf.data.tabular import Categories, Labels, Numbers, filled, stacked
from dpedf.errors import UserError, concerning, nearest

FEW = 100  # integers that are labels without --classes, at most


class Plan:
    """The plan for a table, by the options of data/table.py.

    columns: of x.  targets: of y.  split: the group of each row.  about: attributes of the data
    file.  notes: for the user, a line each.
    """

    def __init__(self, args):
        self.args, self.notes = args, []
        text = args.delimiter, args.encoding, args.missing_text, args.decimal
        self.table = table(args.file, *text)
        self.kinds = self.table.kinds
        if not self.table.rows:
            raise UserError("no rows, expected some")
        self.expect_names()
        if args.like:
            with concerning(f"--like {args.like}"):
                like = Like(args.like)
            self.follow(like)
        else:
            self.begin()

    def expect_names(self):
        """UserError: an option names what is no column, or a column that has been named."""
        named = {}
        for option in "target", "drop", "categories":
            for name in getattr(self.args, option):
                if name not in self.kinds:
                    of_it = [
                        its for its in self.kinds if re.fullmatch(rf"{re.escape(name)}\d+", its)
                    ]
                    near = " ".join(of_it[:8]) or nearest(name, list(self.kinds))
                    raise UserError(f"--{option} {name}: no such column, expected {near}")
                if name in named:
                    found = f"--{option} {name}: named by --{named[name]} already"
                    raise UserError(f"{found}, expected it once")
                named[name] = option

    def begin(self):
        """Find in the rows what the columns become."""
        args = self.args
        if not args.target:
            raise UserError("no --target, expected the column to predict, or --like FILE")
        names = [name for name in self.kinds if name not in (*args.target, *args.drop)]
        if "" in names:
            raise UserError("a column without a name, expected one, or --drop '' if it counts rows")
        if not names:
            raise UserError("no column beside the target, expected some to predict it from")
        self.split = split_of({"train": self.table.rows}, args)
        self.missing = args.missing
        self.columns = [self.column(name) for name in names]
        self.targets = [self.target(name) for name in args.target]
        self.look()
        for its in *self.columns, *self.targets:
            self.notes += its.finish()
        self.about = {"columns": names, "targets": args.target, "missing": self.missing}
        self.about["categories"] = [its.names or 0 for its in self.columns]
        for key in "mean", "std":
            self.about[key] = [getattr(its, key) for its in self.columns]
            if self.targets[0].scaled:
                self.about[f"target_{key}"] = [getattr(its, key) for its in self.targets]
        its, *others = self.targets
        if isinstance(its, Labels):
            self.about["classes"] = its.names
            self.expect_classes(its)
        elif its.binary and not (others or args.regression):
            self.notes.append(f"column {its.name} holds only 0 and 1: --classes makes labels")

    def expect_classes(self, its):
        """UserError: labels are of one class, or look as if they were numbers."""
        if (n := len(its.names)) < 2:
            found = f"column {its.name} is {its.names[0]} in all rows"
            raise UserError(f"{found}, expected several classes")
        if n > FEW and its.are_numbers and not self.args.classes:
            found = f"column {its.name}: {n:,} different integers"
            raise UserError(f"{found}, expected --regression, or --classes for labels")

    def follow(self, like):
        """Let the columns become what they are in a data file."""
        path, targets = self.args.like, self.args.target
        for name in like.names:
            if name not in self.kinds:
                raise UserError(f"no column {name}, expected all those of {path}")
        if targets not in ([], like.targets):
            expected = f"{' '.join(like.targets)} as in {path}"
            raise UserError(f"--target {' '.join(targets)}, expected {expected}")
        self.split = split_of({"test": self.table.rows}, self.args)
        self.missing = self.args.missing or like.missing
        columns = zip(like.names, like.categories, like.mean, like.std, strict=True)
        self.columns = [
            Categories(name, self.texts(name), known) if known else self.number(name, mean, std)
            for name, known, mean, std in columns
        ]
        if like.classes:
            self.targets = [Labels(name, self.texts(name), like.classes) for name in targets]
        else:
            scaling = zip(like.target_mean, like.target_std, strict=True)
            self.targets = [
                self.number(name, *its, scaled=like.scaled)
                for name, its in zip(targets, scaling, strict=False)
            ]
        self.about = like.about | {"missing": self.missing}
        self.look()

    def column(self, name):
        """What a column of x becomes."""
        coded = self.kinds[name] in ("text", "truth") and name not in self.table.remedies
        if coded or name in self.args.categories:
            return Categories(name, self.texts(name))
        return self.number(name)

    def target(self, name):
        """What a target becomes."""
        args = self.args
        labels = self.kinds[name] in ("text", "truth", "integer")
        doubtful = args.regression or name in self.table.remedies
        if len(args.target) > 1 and args.classes:
            raise UserError("--classes with several targets, expected one")
        if args.classes or (labels and len(args.target) == 1 and not doubtful):
            return Labels(name, self.texts(name))
        return self.number(name, scaled=args.standardise_target)

    def texts(self, name):
        """Have a column read as texts; the kind that they are of.

        A new column of truth values holds true and false, however a CSV spells them.
        """
        kind = self.kinds[name]
        if kind not in ("text", "truth", "integer", "number"):
            self.refuse(name)
        if kind != "truth" or self.args.like:
            self.kinds[name] = "text"
        return kind

    def number(self, name, mean=0.0, std=0.0, scaled=False):
        if self.kinds[name] not in ("integer", "number", "truth"):
            self.refuse(name)
        return Numbers(name, self.missing == "zero", scaled, mean, std)

    def refuse(self, name):
        """UserError: a column is of a kind that it cannot be."""
        kind, args = self.kinds[name], self.args
        holds = {"date": " holds dates", "text": " holds texts"}.get(kind, f" holds {kind}")
        found = f": {self.table.others[name]}" if name in self.table.others else holds
        expected = self.table.remedies.get(name, "numbers")
        if name in args.target:
            expected += ", or --classes" * (name in self.table.remedies and not args.like)
        elif not args.like:
            expected += f", or {'--categories or ' * (kind == 'text')}--drop {name}"
        raise UserError(f"column {name}{found}, expected {expected}")

    def look(self):
        """Have each column look at its rows.  UserError: values are missing."""
        first = 0
        for block in counting(self.read(), self.table.rows):
            train = self.split[first : first + len(block[self.columns[0].name])] == 0
            first += len(train)
            for its in *self.columns, *self.targets:
                its.look(block[its.name], train)
        self.notes += filled(self.columns, self.targets, self.missing, not self.args.like)

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
