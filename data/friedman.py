"""Friedman's function: a table for regression, made by a formula with noise; needs no network.

    python data/friedman.py   # writes data/friedman.h5

Each of x1..x10 is uniform in [0, 1), and the last five do not matter:

    y = 10 sin(pi x1 x2) + 20 (x3 - 1/2)^2 + 10 x4 + 5 x5 + noise, normal, of variance 1

So no model has a mean square error below 1, nor an R2 above 0.96, since y has variance 24.8.
"""

import numpy as np

from dpedf.data import write
from dpedf.data.recipe import beside, parser_of, recipe_errors
from dpedf.data.split import expect_integer
from dpedf.errors import print_line

ABOUT = {
    "name": "Friedman #1",
    "source": "J. H. Friedman, Multivariate Adaptive Regression Splines, Annals of Statistics 19, "
    "1991, https://doi.org/10.1214/aos/1176347963",
    "licence": "CC0",
}
SIZES = {"train": 8000, "valid": 1000, "test": 1000}
COLUMNS = [f"x{i}" for i in range(1, 11)]


def rows(n, random):
    """x (n, 10) and y (n,)."""
    x = random.random((n, len(COLUMNS)))
    x1, x2, x3, x4, x5 = x.T[:5]
    y = 10 * np.sin(np.pi * x1 * x2) + 20 * (x3 - 0.5) ** 2 + 10 * x4 + 5 * x5
    y += random.standard_normal(n)
    return x.astype(np.float32), y.astype(np.float32)


def main():
    parser = parser_of(__doc__, beside(__file__, "friedman"))
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="another table (0)")
    args = parser.parse_args()
    with recipe_errors(parser, args.output):
        expect_integer("--seed", args.seed)
        random = np.random.Generator(np.random.Philox(key=[args.seed, 0]))
        groups = {group: rows(n, random) for group, n in SIZES.items()}
        x = groups["train"][0].astype(np.float64)
        scaling = {"mean": x.mean(axis=0), "std": x.std(axis=0)}
        write(args.output, **ABOUT, **scaling, columns=COLUMNS, **groups)
    train, valid, test = (f"{n:,}" for n in SIZES.values())
    print_line(f"{args.output}: {train} rows to train, {valid} to validate, {test} to test")


if __name__ == "__main__":
    main()
