"""What an evaluation measures beside the loss and the accuracy: run.metrics.

Of a classifier, where Q are its outputs and y the labels that count:

top5: the share of labels among the five classes of the largest Q, of equal ones the first
f1: the macro average of F1: its mean over classes (scores.py)

Of a regression, for each target, and then the mean over targets, as scikit-learn has them:

r2: 1 - sum_b (Q[b] - y[b])**2 / sum_b (y[b] - mean y)**2, where y does not vary 1 or 0
mae: mean_b |Q[b] - y[b]|
rmse: sqrt(mean_b (Q[b] - y[b])**2)
"""

from dpedf.errors import UserError, percent, short
from dpedf.program import program
from dpedf.run.scores import MOST
from dpedf.run.targets import TOP

OF = {"classifier": ("top5", "f1"), "regression": ("r2", "mae", "rmse")}
DEFAULTS = {"regression": ("r2", "mae")}
TITLES = {"top5": "top-5", "f1": "F1", "r2": "R2", "mae": "MAE", "rmse": "RMSE"}
OTHERS = "loss", "accuracy"  # what is measured of every model


def kind_of(Q, ell, y):
    """ "classifier", "regression", which predicts all numbers of y, or "" of another model."""
    if y not in program(ell).inputs:
        return ""  # such as an autoencoder
    if y.classes is not None:
        return "classifier"
    known = Q.value is not None and Q.value.shape[1:] == y.shape
    likely = any(hasattr(n, "counted") and n.y is y for n in program(ell).nodes)  # probabilities
    return "regression" if known and not likely else ""


def chosen(asked, Q, ell, y):
    """The names of what is measured of a model.  UserError: it has no such thing.

    asked: run.metrics.  By default, of a regression r2 and mae.
    """
    kind = kind_of(Q, ell, y)
    for name in asked:
        expected = f"{', '.join(OF[kind])}, or none" if kind in OF else "none"
        found = f'run.metrics = "{name}" of {f"a {kind}" if kind else "a model without targets"}'
        if kind and name in OF[kind]:
            small, large = name == "top5" and y.classes <= TOP, name == "f1" and y.classes > MOST
            if not (small or large):
                continue
            found, expected = f"{found} of {y.classes:,} classes", "more" if small else "fewer"
        raise UserError(f"{found}, expected {expected}")
    return tuple(dict.fromkeys(asked)) or DEFAULTS.get(kind, ())


def measured(rows, event):
    """{name: value} of the metrics and parts of a loss that an event has for the rows "test"."""
    found = {
        key.removeprefix(f"{rows}_"): its
        for key, its in event.items()
        if key.startswith(f"{rows}_") and isinstance(its, float)
    }
    return {name: its for name, its in found.items() if name.isidentifier() and name not in OTHERS}


def said(metrics):
    """["top-5 99.12 %", "R2 0.9501"], and parts of a loss under their own names"""
    return [
        f"{TITLES.get(name, name)} {percent(value) if name == 'top5' else short(value)}"
        for name, value in metrics.items()
    ]
