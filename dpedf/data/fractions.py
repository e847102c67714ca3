"""The split of rows into those to train, to validate and to test, as recipes draw it."""

import numpy as np

from dpedf.errors import UserError


def add_fractions(parser, test=0.1):
    """Give a recipe the options --valid, --test and --seed.  test: what it tests on by default."""
    add = parser.add_argument
    add("--valid", metavar="FRACTION", type=float, default=0, help="so much of it validates (0)")
    add("--test", metavar="FRACTION", type=float, default=test, help=f"so much tests ({test})")
    add("--seed", metavar="N", type=int, default=0, help="another one draws other rows (0)")


def drawn(n, valid, test, seed):
    """The group of each of n rows: (n,), 0 to train, 1 to validate, 2 to test.

    It is a function of these numbers alone, and which rows test is one of n, test and seed.
    UserError: a fraction is none, or a group would be empty.
    """
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed {seed}, expected an integer from 0 on, and less than 2**63")
    counts = {}
    for option, fraction in ("--test", test), ("--valid", valid):
        if not 0 <= fraction < 1:  # nan as well
            raise UserError(f"{option} {fraction:g}, expected a fraction from 0 to less than 1")
        counts[option] = round(n * fraction)
        if fraction and not counts[option]:
            raise UserError(f"{option} {fraction:g} of {n:,} rows is none, expected more, or 0")
    if sum(counts.values()) >= n:
        options = " and ".join(f"{option} {its:,}" for option, its in counts.items())
        raise UserError(f"{n:,} rows: {options}, expected some left to train")
    order = np.random.Generator(np.random.Philox(key=[seed, 0])).permutation(n)
    split, (tests, valids) = np.zeros(n, np.uint8), counts.values()
    split[order[:tests]], split[order[tests : tests + valids]] = 2, 1
    return split
