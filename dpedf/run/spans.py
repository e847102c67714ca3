"""The spans of Phi that train.rates and train.decay tell apart."""

from itertools import pairwise

import numpy as np

from dpedf.errors import UserError
from dpedf.optim import WHOLE, Span
from dpedf.run.build import named, under
from dpedf.run.settings.explain import in_toml


def spans(phi, train):
    """The Spans of phi for a [train] section: as few as it takes, so that updates are few.

    UserError: a name in train.rates is none of what learns.
    """
    if not train.rates and train.decay == "all":
        return WHOLE
    factors, leaves_out = rates(phi, train), train.weight_decay and train.decay == "matrices"
    runs = []  # of neighbours that are alike: (low, high, factor, decays)
    for p, (low, high) in zip(phi.parameters, pairwise(phi.offsets), strict=True):
        alike = factors.get(p.name, 1.0), not leaves_out or p.value.ndim >= 2
        if runs and runs[-1][2:] == alike:
            low = runs.pop()[0]
        runs.append((low, high, *alike))
    apart = np.zeros_like(phi.skipped)
    return tuple(
        Span(slice(low, high), *alike, apart if number else None)
        for number, (low, high, *alike) in enumerate(runs)
    )


def rates(phi, train):
    """{name of a parameter: its factor}; that of a parameter itself goes before its package's.

    UserError: as above.
    """
    found, setting = {}, f"train.rates = {in_toml(train.rates)}"
    every = [p.name for p in phi.parameters], phi.state
    for name in sorted(train.rates, key=len):
        learns, is_known = (any(under(its, name) for its in names) for names in every)
        if is_known and not learns:
            raise UserError(f"{setting}: {name} is frozen, expected what learns")
        for p in named(name, phi.parameters, setting):
            found[p.name] = train.rates[name]
    return found
