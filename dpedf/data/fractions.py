"""The split of rows into those to train, to validate and to test, as recipes draw it."""

import numpy as np

from dpedf.data.writer import GROUPS
from dpedf.errors import UserError, plural

DEFAULTS = {"test": 0.1, "valid": 0}


def add_fractions(parser):
    """Give a recipe the options --valid, --test and --seed."""
    add = parser.add_argument
    for group, does in ("valid", "validates"), ("test", "tests"):
        what = f"how much of the rows {does}, drawn by seed ({DEFAULTS[group]:g})"
        add(f"--{group}", metavar="FRACTION", type=float, help=what)
    add("--seed", metavar="N", type=int, default=0, help="another seed draws other rows (0)")


def drawn(n, valid, test, seed, given=()):
    """The group of each of n rows: (n,), 0 to train, 1 to validate, 2 to test.

    valid, test: fractions, None for the defaults.  given: which of these groups the source has
    itself.  Which rows test is a function of (n, test, seed).  UserError: a fraction is none, or
    leaves a group without rows.
    """
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed {seed}, expected an integer from 0 on, and less than 2**63")
    left = np.random.Generator(np.random.Philox(key=[seed, 0])).permutation(n)
    split = np.zeros(n, np.uint8)
    for group, number, fraction in ("test", 2, test), ("valid", 1, valid):
        if fraction is None:
            fraction = 0 if group in given else DEFAULTS[group]
        elif group in given:
            found = f"--{group} {fraction:g}, but there are rows for that already"
            raise UserError(f"{found}, expected no such option")
        needed = group == "test" and group not in given  # a run ends with rows to test
        if not 0 <= fraction < 1 or (needed and not fraction):  # nan as well
            expected = "more than 0 and less than 1" if needed else "from 0 to less than 1"
            raise UserError(f"--{group} {fraction:g}, expected a fraction {expected}")
        size = round(n * fraction)
        if fraction and not size:
            found = f"--{group} {fraction:g} of {plural(n, 'row')} is none"
            raise UserError(f"{found}, expected one at least")
        if size >= len(left):
            found = f"--{group} {fraction:g} takes all that is left of {plural(n, 'row')}"
            raise UserError(f"{found}, expected some to train")
        split[left[:size]], left = number, left[size:]
    return split


def split_of(counts, args):
    """The group of each row of a source, as scatter takes it.

    counts: {"train": how many rows there are to draw from, ...}, in the order of GROUPS, of the
    groups that the source has itself.  args: those of add_fractions.
    """
    (_, n), *others = counts.items()
    split = drawn(n, args.valid, args.test, args.seed, [group for group, _ in others])
    known = [np.full(n, GROUPS.index(group), np.uint8) for group, n in others]
    return np.concatenate([split, *known])
