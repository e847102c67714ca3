"""Small models that learn on a GPU in passes of several slices.

WHAT = bits: what Phi is after some steps, by how they are computed, as JSON.
WHAT = launches: on a simulated GPU, how many there are in a step that is replayed, of one slice and
of eight.
"""

import json
import sys
from itertools import product

import numpy as np

from dpedf import models
from dpedf.device import host
from dpedf.device.gpu import acquire
from dpedf.edf import Input, Package, Parameter
from dpedf.models.images import conv
from dpedf.ops import Affine, BatchNorm, Conv2D, Dropout, Flatten, LogLoss, MaxPool, Relu, Softmax
from dpedf.optim import Momentum
from dpedf.parallel.gradient import Gradient
from dpedf.parallel.ranks import Ranks
from dpedf.phi import Phi, dense
from dpedf.run.step import Step

CLASSES = 11


def resnet(x, y):
    """Two convolutions with a way around them, BatchNorm and Dropout."""

    def normalized(z):
        return BatchNorm(Package(w=Parameter(np.ones(4)), b=Parameter(np.zeros(4))), z)

    z = Relu(normalized(Conv2D(conv(1, 4, 3), x, padding=1)))
    z = Relu(z + normalized(Conv2D(conv(4, 4, 3), z, padding=1)))
    z = Dropout(Flatten(MaxPool(z, 2)), 0.3)
    Q = Softmax(Affine(dense(64, CLASSES), z))
    return Q, LogLoss(Q, y)


# How a model is built, of which rows x.
MODELS = {
    "softmax": (models.mlp, (784,), {"sizes": [784, CLASSES]}),
    "mlp": (models.mlp, (784,), {"sizes": [784, 128, CLASSES]}),
    "lenet": (models.lenet, (12, 12), {"hidden": (20,)}),
    "lstm": (models.char_lstm, (10,), {"embedding": 7, "hidden": 9}),
    "transformer": (models.char_transformer, (10,), {"layers": 2, "heads": 2, "width": 16}),
    "resnet": (resnet, (1, 8, 8), {}),
}


class Learning:
    """A model that learns from the same rows in each step."""

    def __init__(self, gpu, name, V, passes, dtype=np.float32):
        build, self.shape, sizes = MODELS[name]
        self.gpu, self.text = gpu, build.__name__.startswith("char_")
        kind, of_text = np.dtype(np.intp), self.shape if self.text else ()
        x = Input(self.shape, kind, CLASSES) if self.text else Input(self.shape, np.dtype(dtype))
        y = Input(of_text, kind, CLASSES)

        def put(images, labels):
            x.value, y.value = images, labels

        _, ell = build(x, y, **sizes)
        self.phi, link = Phi(ell, dtype=dtype, put=gpu.put), Ranks()
        link.recordable = True
        gradient = Gradient(ell, self.phi, link, put, V)
        gradient.compute_in(passes)
        self.step = Step(gradient, Momentum(self.phi), gpu)

    def learn(self, B):
        """Two steps on B rows: the first is launched, the second recorded and replayed."""
        random = np.random.default_rng(B)
        x = random.random((B, *self.shape)).astype(self.phi.value.dtype)
        y = random.integers(0, CLASSES, (B, *self.shape) if self.text else B)
        rows = self.gpu.put((x * CLASSES).astype(int) if self.text else x), self.gpu.put(y)
        for _ in range(2):
            self.step(*rows, B, 0.1)
        assert np.isfinite(host(self.phi.value)).all()


def bits(gpu):
    """{model, dtype, rows: {how they are computed in 6 slices: the SHA-256 of Phi}}"""
    found = {}
    for name, dtype in product(MODELS, (np.float32, np.float64)):
        all_in_one = name == "resnet"  # which mixes rows
        for passes, eager in product((1,) if all_in_one else (1, 2, 3, 6), (False, True)):
            gpu.graphs.eager = eager
            learning = Learning(gpu, name, 6, passes, dtype)
            for B in 24, 20, 4:
                learning.learn(B)
                runs = found.setdefault(f"{name}, {dtype.__name__}, {B} rows", {})
                runs[f"{passes} passes, eager: {eager}"] = learning.phi.sha256()
            assert eager or (not gpu.graphs.eager and len(gpu.graphs.recordings) == 3)
            gpu.graphs.recordings.clear()
    return found


def launches(gpu):
    """{model: (of one slice, of eight slices in one pass)}"""
    found = {}
    for name in MODELS:
        for V in 1, 8:
            Learning(gpu, name, V, passes=1).learn(16)
            (recording,) = gpu.graphs.recordings.values()
            count = sum(len(work) for _, work in recording.graph.queues)
            found.setdefault(name, []).append(count)
            gpu.graphs.recordings.clear()
    return found


gpu = acquire(0, "float32", True, print)
print(json.dumps({"bits": bits, "launches": launches}[sys.argv[1]](gpu)))
gpu.close()
