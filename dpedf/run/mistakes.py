"""Which rows of the test a trained classifier got most wrong."""

from heapq import nlargest
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from dpedf.data import Data
from dpedf.data.form import form_of
from dpedf.edf import Forward
from dpedf.errors import UserError
from dpedf.kernels.activation import sigmoid
from dpedf.program import during
from dpedf.run import config
from dpedf.run.evaluate import classifies, correct
from dpedf.run.room import bytes_of_row

ROWS, BYTES = 512, 1 << 26  # that are looked at together, at most


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


def rows_of(model):
    """The Data on which a model was trained.  UserError: it is not there, or has other rows."""
    asked, settings = model.settings.data, model.settings
    where = asked.file, asked.valid, settings.seed, config.dtype(settings)
    data = Data(*where, window=asked.window, stride=asked.stride)
    there, expected = (replace(form, names=()) for form in (form_of(data), model.form))
    if there != expected:
        raise UserError(f"{data.path}: other rows than the model was trained on")
    if not len(data.test):
        raise UserError(f"{data.path}: no row to test")
    return data


def predictions(Q):
    """(class, confidence) of each row: its largest output, or what the score of class 1 means."""
    if Q.ndim == 1:
        return Q > 0, sigmoid(np.abs(Q))
    return Q.argmax(axis=1), Q.max(axis=1)


def find(model, data, most):
    """(how many test rows are wrong, a list of the most confident ones, at most so many).

    A row whose output is nan is wrong, but nothing was predicted for it, so it is not listed.
    """
    rows = max(1, min(ROWS, BYTES // max(1, bytes_of_row(model.Q))))
    wrong = 0

    def each():
        nonlocal wrong
        for first in range(0, len(data.test), rows):
            x, y = data.test.load(data.test.numbers[first : first + rows])
            data.put(x, y)
            model.x.value = data.x.value
            with during(row=first):
                Forward(model.Q)
            Q, labels = model.Q.value, data.y.value
            mistaken = ~correct(Q, labels)
            wrong += mistaken.sum()
            predicted, confidence = predictions(Q)
            for b in np.flatnonzero(mistaken & ~np.isnan(confidence)):
                yield Mistake(x[b].copy(), int(labels[b]), int(predicted[b]), float(confidence[b]))

    listed = nlargest(most, each(), key=lambda its: its.confidence)
    return int(wrong), listed
