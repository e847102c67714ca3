"""The small models of test_passes.py learn on a GPU.

WHAT = bits: the SHA-256 of Phi after some steps, by how these are computed, as JSON.
WHAT = launches: how many there are in a step that is replayed on a simulated GPU, of one slice and
of eight.
WHAT = time steps: how many launches one more position of a sequence is, forward and backward.
"""

import json
import sys
from itertools import product
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))
from test_passes import learner

from dpedf.device import host
from dpedf.device.gpu import acquire
from dpedf.kernels.gemm import JOINED
from dpedf.optim import Momentum
from dpedf.parallel.gradient import Gradient
from dpedf.parallel.ranks import Ranks
from dpedf.phi import Phi
from dpedf.run.step import Step

MODELS = "mlp", "lenet", "letters", "residual", "char_lstm", "char_transformer"
SIZES = 16, 13, 5  # of minibatches: eight slices are equal ones, others, and some of none
HOW = (1, True), (2, False), (3, False), (3, True), (8, False)  # slices in a pass; eager?


def learn(gpu, name, sizes, slices, together=8, dtype=np.float32, T=10):
    """The SHA-256 of Phi after each minibatch.

    There are two steps on it: the first is launched, the second recorded and replayed.
    """
    ell, put, x, y = learner(name, dtype, T)
    phi, link, found = Phi(ell, dtype=dtype, put=gpu.put), Ranks(), []
    link.recordable = True
    gradient = Gradient(ell, phi, link, put, slices)
    if not gradient.mixer:
        gradient.compute_in(-(-slices // together))
    step = Step(gradient, Momentum(phi, 0.9), gpu)
    for B in sizes:
        rows = gpu.put(x[:B]), gpu.put(y[:B])
        for _ in range(2):
            step(*rows, B, 0.1)
        assert np.isfinite(host(phi.value)).all()
        found.append(phi.sha256())
    return found


def bits(gpu):
    """{model: {how it learns: what}}"""
    found = {}
    for name, dtype in product(MODELS, (np.float32, np.float64)):
        runs = found[f"{name}, {dtype.__name__}"] = {}
        for together, eager in HOW:
            gpu.graphs.eager = eager
            runs[f"{together} slices in a pass, eager: {eager}"] = learn(
                gpu, name, SIZES, 8, together, dtype
            )
            assert eager or (not gpu.graphs.eager and len(gpu.graphs.recordings) == len(SIZES))
            gpu.graphs.recordings.clear()
    return found


def launches_of(gpu, name, slices, T=10):
    learn(gpu, name, [16], slices, T=T)
    (recording,) = gpu.graphs.recordings.values()
    gpu.graphs.recordings.clear()
    return sum(len(work) for _, work in recording.graph.queues)


def launches(gpu):
    """{model: [of one slice, of eight slices in one pass]}"""
    return {name: [launches_of(gpu, name, slices) for slices in (1, 8)] for name in MODELS}


def time_steps(gpu):
    """{model: of one time step}, in the mean over as many as there are products joined"""
    T, more = 10, JOINED
    return {
        name: (launches_of(gpu, name, 8, T + more) - launches_of(gpu, name, 8, T)) / more
        for name in ("char_lstm", "char_gru")
    }


gpu = acquire(0, "float32", True, print)
found = {"bits": bits, "launches": launches, "time steps": time_steps}[sys.argv[1]](gpu)
print(json.dumps(found))
gpu.close()
