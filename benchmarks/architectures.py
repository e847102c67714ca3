"""LeNet, an LSTM and a transformer: a step of each, ours and PyTorch's, on random rows."""

from contextlib import suppress

import numpy as np
from pairs import step_of

from dpedf.edf import Input
from dpedf.models import char_lstm, char_transformer, lenet

with suppress(ImportError):  # ours needs no PyTorch
    import peers
    import torch

LENETS = {
    "LeNet 6/16": dict(channels=(6, 16), hidden=(120, 84), padding=2),
    "LeNet 20/50": dict(channels=(20, 50), hidden=(500,), padding=0),
}
TEXTS = {"LSTM 64-192-65": char_lstm, "transformer 4x128": char_transformer}
T, CLASSES = 64, 65  # of a row of text
NAMES = [(name, B) for name in LENETS for B in (64, 256)]
NAMES += [("LSTM 64-192-65", 32), ("LSTM 64-192-65", 64), ("transformer 4x128", 12)]


def rows(name, B):
    """x, y: random images and labels, or random texts."""
    random = np.random.default_rng(0)
    if name in LENETS:
        return random.random((B, 28, 28), np.float32), random.integers(0, 10, B)
    return random.integers(0, CLASSES, (B, T)), random.integers(0, CLASSES, (B, T))


def ours(name, B, slices=0):
    """(a function that makes one SGD step, the program's loss)"""
    if name in LENETS:
        x, y = Input((28, 28), np.float32), Input((), np.intp, 10)
        Q, ell = lenet(x, y, **LENETS[name])
    else:
        x, y = Input((T,), np.intp, CLASSES), Input((T,), np.intp, CLASSES)
        Q, ell = TEXTS[name](x, y)

    def put(images, labels):
        x.value, y.value = images, labels

    return step_of(ell, put, *rows(name, B), slices), ell


def theirs(name, B):
    """Functions that make one SGD step each, in the ways that PyTorch offers."""
    x, y = map(torch.from_numpy, rows(name, B))
    if name not in LENETS:
        model = peers.LSTM if name.startswith("LSTM") else peers.Transformer
        return [peers.step_of(model(CLASSES), x, y)]
    x, formats = x[:, None], (torch.contiguous_format, torch.channels_last)
    return [
        peers.step_of(peers.lenet(**LENETS[name]).to(memory_format=f), x.to(memory_format=f), y)
        for f in formats
    ]
