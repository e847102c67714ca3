"""The parts of Phi that train.rates and train.decay tell apart."""

from itertools import groupby, pairwise

import numpy as np

from dpedf.errors import UserError
from dpedf.optim import WHOLE, Part
from dpedf.run.build import named, under
from dpedf.run.settings.explain import in_toml


def parts(phi, train):
    """The Parts of phi for a [train] section: as few as it takes, so that updates are few.

    UserError: a name in train.rates is none of what learns.
    """
    if not train.rates and train.decay == "all":
        return WHOLE
    factors, leaves_out = rates(phi, train), train.weight_decay and train.decay == "matrices"
    each = [
        (factors.get(p.name, 1.0), not leaves_out or p.value.ndim >= 2, slice(*ends))
        for p, ends in zip(phi.parameters, pairwise(phi.offsets), strict=True)
    ]
    found, apart = [], np.zeros_like(phi.skipped)
    for alike, those in groupby(each, key=lambda its: its[:2]):
        _, _, first, *others = [*alike, *(where for _, _, where in those)]
        where = slice(first.start, [first, *others][-1].stop)
        found.append(Part(where, *alike, apart if found else None))
    return tuple(found)


def rates(phi, train):
    """{name of a parameter: its factor}; that of a parameter itself goes before its package's.

    UserError: as above.
    """
    found, setting = {}, f"train.rates = {in_toml(train.rates)}"
    names = {p.name for p in phi.parameters}
    for name in sorted(train.rates, key=len):
        if any(under(its, name) for its in phi.state) and not any(
            under(its, name) for its in names
        ):
            raise UserError(f"{setting}: {name} is frozen, expected what learns")
        for p in named(name, phi.parameters, setting):
            found[p.name] = train.rates[name]
    return found
