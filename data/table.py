"""Any table as a data file of dpedf, to predict a column from the others.

    python data/table.py FILE.csv --target COLUMN     # writes data/NAME.h5
    python data/table.py NEW.csv --like data/NAME.h5  # more rows, coded as those

FILE is a .csv, .parquet or .npz, and NAME its stem.  Numbers are kept, and are
standardised by the mean and std of the rows to train as they are read.  Texts
and truth values are categories, and so are numbers of columns in --categories:
x holds their codes, 1 and on by name; 0 is for what no row to train has, and
for what is missing.  A target of texts, integers or truth values is a label,
one of floats makes a regression, and so do several targets.  All rows of NEW
are to test, and gaps in it are filled as those of the rows to train; without
--target they have no labels.
"""

from pathlib import Path

from dpedf.data.plan import Plan
from dpedf.data.recipe import (
    about_of,
    add_options,
    beside,
    expect_kept,
    parser_of,
    recipe_errors,
    summary,
)
from dpedf.data.writer import scatter
from dpedf.errors import UserError, concerning, plural, print_line

FAR = 30  # the size of a regression's numbers that is easy to learn, at most


def lines(args, plan, output):
    """What was made of a table by a Plan."""
    for note in plan.notes:
        yield f"{args.file}: {note}"
    columns = plan.columns
    for its in columns if args.like else ():
        if its.names and its.lacking:
            found = f"{its.lacking:,} of {plural(len(plan.split), 'row')} hold what train lacks"
            yield f"{args.file}: {its.name}: {found}, such as {its.such!r}"
    yield f"{output}: {summary(plan.split, 'row')}"
    coded = sum(bool(its.names) for its in columns)
    yield f"x: {plural(len(columns) - coded, 'column')} of numbers, {coded} of categories"
    for its in plan.targets:
        if its.names:
            yield f"y: {its.name}, with {len(its.names):,} classes"
        elif its.scaled:
            yield f"y: ({its.name} - {its.mean:g}) / {its.std:g}"
        elif args.like:
            yield f"y: {its.name}"
        else:
            yield f"y: {its.name}, of mean {its.mean:g} and std {its.std:g}"
            if max(abs(its.mean), its.std) > FAR or its.std < 1 / FAR:
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
    add("--decimal", choices=[".", ","], default=".", help="the point of numbers in a .csv (.)")
    add("--encoding", default="utf8", help="of a .csv (utf8)")
    add("--like", metavar="FILE", type=Path, help="code and scale as in a file of this recipe")
    add_options(parser)
    args = parser.parse_args()
    output = args.output or beside(__file__, args.file.stem)
    about = about_of(args, args.file.stem, args.file.name, "that of the table")
    with recipe_errors(parser, output), concerning(args.file):
        if args.like and (args.valid is not None or args.test is not None):
            raise UserError("--valid or --test with --like, expected none: all rows are to test")
        expect_kept(filter(None, [args.file, args.like]), output)
        plan = Plan(args)
        scatter(output, plan.blocks(), plan.split, **about, **plan.about)
    for line in lines(args, plan, output):
        print_line(line)


if __name__ == "__main__":
    main()
