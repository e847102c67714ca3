"""Which rows of the test a trained classifier got most wrong."""

from heapq import nlargest
from typing import NamedTuple

import numpy as np

from dpedf.data.part import Part
from dpedf.edf import Forward
from dpedf.errors import UserError
from dpedf.kernels.activation import sigmoid
from dpedf.program import during
from dpedf.run.evaluate import classifies, rows_of_block
from dpedf.run.targets import predicted


class Mistake(NamedTuple):
    """A row: x as it is stored, its label, the class that was predicted, and how surely."""

    x: np.ndarray
    label: int
    predicted: int
    confidence: float


def expect_classifier(model):
    """UserError: a Trained model does not say one class of a row."""
    name, y, shape = model.settings.model["build"], model.y, model.Q.value.shape[1:]
    if model.settings.data.window:
        raise UserError("data.window > 0: a model of text, expected one of images")
    if not classifies(model.ell, y):
        raise UserError(f"{name}: its loss depends on no labels, expected a classifier")
    if y.shape or shape not in ((), (y.classes,)):
        found = f"labels of {y.shape} and an output of {shape} a row"
        raise UserError(f"{name}: {found}, expected one label, and a number for each class")


def tested(model):
    """The test rows of the run of a Trained model, a Part.  UserError: they are not there."""
    settings = model.settings
    part = Part(settings.data.file, model.form, model.x, model.y, settings.data, model.device)
    part.open_split("test", settings.seed)
    return part


def confidence(Q):
    """How surely each row is of its class: the largest output, or what the score of class 1 means.

    nan where a class has nan.
    """
    return sigmoid(np.abs(Q)) if Q.ndim == 1 else Q.max(axis=1)


def find(model, part, most):
    """(how many rows of a Part are wrong, a list of the most confident ones, at most so many).

    A row whose output is nan is wrong, but nothing was predicted for it, so it is not listed.
    """
    numbers, wrong = part.rows.numbers, 0
    rows = rows_of_block(model.Q, part, part.rows, model.rows)

    def each():
        nonlocal wrong
        for first in range(0, len(numbers), rows):
            x, y = part.rows.load(numbers[first : first + rows])
            part.put(x, y)
            with during(row=first, seed=model.settings.seed, step=model.step):
                Forward(model.Q)
            Q, labels = model.Q.value, model.y.value
            classes, sure = predicted(Q, 1), confidence(Q)
            differ = (classes != labels) & (labels != model.form.ignore)
            wrong += differ.sum()
            for b in np.flatnonzero(differ & (classes >= 0)):
                yield Mistake(x[b].copy(), int(labels[b]), int(classes[b]), float(sure[b]))

    listed = nlargest(most, each(), key=lambda its: its.confidence)
    return int(wrong), listed
