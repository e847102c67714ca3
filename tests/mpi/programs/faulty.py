"""A perceptron that does WHAT, an environment variable, at a place WHERE, on the rank WHO."""

import os
import signal  # noqa: F401, for WHAT
import sys  # noqa: F401
import time  # noqa: F401
from pathlib import Path

from dpedf import models
from dpedf.edf import CompNode, context
from dpedf.run import evaluate

evaluate.LABELS = int(os.environ.get("LABELS", evaluate.LABELS))
RANK = os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK", "0"))


def here(place):
    if (place, RANK) == (os.environ["WHERE"], os.environ["WHO"]):
        Path(os.environ["REACHED"]).touch()
        exec(os.environ["WHAT"])


class Fault(CompNode):
    def __init__(self, x):
        self.x = x

    def forward(self):
        self.value = self.x.value
        if context.train and context.step == 20:
            here("forward")
        if not context.train and context.step > 20:
            here("evaluation")

    def backward(self):
        self.x.addgrad(self.grad)


def faulty(x, y, sizes, activation="relu"):
    here("build")
    Q, ell = models.mlp(x, y, sizes, activation)
    return Q, Fault(ell)


here("import")
