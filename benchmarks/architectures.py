"""LeNet, an LSTM and a transformer: a step of each, ours and PyTorch's, on random rows."""

import copy
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


def ours(name, B, slices=0, **where):
    """(a function that makes one SGD step, the program's loss); where: as step_of has it."""
    if name in LENETS:
        x, y = Input((28, 28), np.float32), Input((), np.intp, 10)
        Q, ell = lenet(x, y, **LENETS[name])
    else:
        x, y = Input((T,), np.intp, CLASSES), Input((T,), np.intp, CLASSES)
        Q, ell = TEXTS[name](x, y)

    def put(images, labels):
        x.value, y.value = images, labels

    return step_of(ell, put, *rows(name, B), slices, **where), ell


def peer(name, B):
    """(PyTorch's model, x, y)"""
    x, y = map(torch.as_tensor, rows(name, B))
    if name in LENETS:
        return peers.lenet(**LENETS[name]), x[:, None], y
    return (peers.LSTM if name.startswith("LSTM") else peers.Transformer)(CLASSES), x, y


def theirs(name, B):
    """Functions that make one SGD step each, in the ways that PyTorch offers."""
    model, x, y = peer(name, B)
    formats = (torch.contiguous_format, torch.channels_last)[: 1 + (name in LENETS)]
    return [
        peers.step_of(copy.deepcopy(model).to(memory_format=f), x.to(memory_format=f), y)
        for f in formats
    ]
