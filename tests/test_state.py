"""Programs, threads and devices in one process do not disturb each other."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import numpy as np
import pytest
from conftest import ROOT

from dpedf.edf import CompNode, Forward, Input
from dpedf.models import mlp
from dpedf.ops import Affine, Dropout, LogLoss, Softmax, SquareLoss, Tanh
from dpedf.optim import Momentum
from dpedf.parallel.gradient import Gradient
from dpedf.parallel.ranks import Ranks
from dpedf.phi import Phi, dense
from dpedf.program import context, during, program
from dpedf.run.step import Step

ROWS = np.random.default_rng(0).normal(size=(12, 4))


class Same(CompNode):
    """y = x, computed after meet() where there are rows"""

    def __init__(self, x, meet):
        self.x, self.meet = x, meet

    def forward(self):
        if len(self.x.value):
            self.meet()
        self.value = self.x.value

    def backward(self):
        self.x.addgrad(self.grad)


def training(dtype, seed, layers=1, meet=lambda: None):
    """A function that makes a step of training with Dropout, and returns Phi's hash.

    meet: is called in each forward pass, before the draws.
    """
    x, y = Input((4,), dtype), Input((), np.intp, 3)
    z = Same(x, meet)
    for _ in range(layers):
        z = Dropout(Tanh(Affine(dense(4, 4), z)), 0.4)
    ell = LogLoss(Softmax(Affine(dense(4, 3), z)), y)
    phi = Phi(ell, seed, dtype)

    def put(images, labels):
        x.value, y.value = images.astype(dtype), labels

    gradient = Gradient(ell, phi, Ranks(), put, slices=4)
    step = Step(gradient, Momentum(phi, 0.9), seed=seed)

    def make_step():
        step(ROWS, np.arange(12) % 3, 12, 0.1)
        return phi.sha256()

    return make_step


KINDS = [(np.float64, 0, 1), (np.float32, 1, 2)]
ALONE = [[step() for _ in range(5)] for step in [training(*kind) for kind in KINDS]]


def test_two_models_that_train_in_turn_end_as_each_does_alone():
    first, second = (training(*kind) for kind in KINDS)
    found = [(first(), second()) for _ in range(5)]
    assert [*map(list, zip(*found, strict=True))] == ALONE
    assert len({*ALONE[0], *ALONE[1]}) == 10


def test_two_models_that_train_in_two_threads_end_as_each_does_alone():
    """The passes of one thread begin while those of the other run."""
    both = Barrier(2)

    def run(kind):
        step = training(*kind, meet=partial(both.wait, timeout=60))
        return [step() for _ in range(5)]

    with ThreadPoolExecutor(2) as threads:
        assert [*threads.map(run, KINDS)] == ALONE


def test_a_step_leaves_nothing_in_the_context():
    training(np.float64, 7)()
    assert vars(context) == {} and context.add(np.array([[3]])) == 3


class Failing(CompNode):
    def __init__(self, x):
        self.x = x

    def forward(self):
        assert not len(self.x.value), "it cannot run"
        self.value = self.x.value


def test_a_pass_that_fails_leaves_nothing_in_the_context():
    x = Input((3,))
    ell = SquareLoss(Failing(x), x)
    x.value = np.ones((2, 3))
    with pytest.raises(AssertionError, match="it cannot run"):
        Forward(ell, train=True)
    assert vars(context) == {}


def test_a_node_of_two_programs_has_a_number_and_a_name_in_each():
    x = Input((3,))
    x.value = np.ones((50, 3))
    early = Tanh(x)
    shared = Dropout(x, 0.5)
    long, short = SquareLoss(shared, early), SquareLoss(shared, x)
    drawn = []
    for ell in long, short, long, short:
        with during(step=0):
            Forward(ell, train=True)
        drawn.append(shared.keep)
    np.testing.assert_array_equal(drawn[0], drawn[2])
    np.testing.assert_array_equal(drawn[1], drawn[3])
    assert (drawn[0] != drawn[1]).any()  # it is number 2 of one program and number 1 of the other
    assert [program(ell).names[shared] for ell in (long, short)] == ["z2", "z1"]


def test_a_model_that_is_built_between_two_steps_changes_neither():
    step = training(*KINDS[0])
    found = []
    for _ in range(5):
        found.append(step())
        mlp(Input((4,)), Input((), int, 3), [4, 5, 3])
    assert found == ALONE[0]


TWICE = """
import sys
from threadpoolctl import threadpool_info
from dpedf import train
from dpedf.parallel.ranks import Ranks

def threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

before, words = threads(), sys.argv[1:]
for precision in "float64", "float32":
    more = f"train.precision={precision}", "--overwrite"
    assert train.main(Ranks(), [*words, *more]) == 0
assert threads() == before, (threads(), before)
"""


def test_a_run_in_a_process_that_had_another_ends_as_it_does_alone(python, digits, tmp_path):
    config = ROOT / "configs" / "digits_mlp.toml"
    words = config, f"data.file={digits}", f"run.dir={tmp_path}", "train.steps=20"
    threads = {"OPENBLAS_NUM_THREADS": "2"}  # of which a run with slices takes one
    twice = python("-c", TWICE, *words, **threads)
    assert twice.returncode == 0, twice.stderr
    alone = python("-m", "dpedf.train", *words, "--overwrite", **threads)
    assert twice.stdout.splitlines()[-1] == alone.stdout.splitlines()[-1]


IN_TURN = """
import sys
import numpy as np
from dpedf.device import host
from dpedf.device.gpu import acquire
from dpedf import kernels
from dpedf.errors import UserError
from dpedf.kernels.gemm import product

def rounded(precision, gpu):
    x = gpu.put(np.full((2, 2), 1 + 2**-10, np.float32))
    return host(product(x, x))[0, 0] == 2  # 1 + 2**-10 is 1 in bfloat16

first = acquire(0, "float32", True, print)
print(rounded("float32", first))
try:
    acquire(0, "bfloat16", True, print)
except UserError as error:
    print(error)
print(rounded("float32", first))
first.close()
second = acquire(0, "bfloat16", True, print)
print(rounded("bfloat16", second))
second.close()
print(any(second.cupy.ndarray in function.versions for function in kernels.FUNCTIONS))
"""


def test_a_process_has_one_gpu_at_a_time_in_one_precision(python, simulated):
    done = python("-c", IN_TURN, **simulated)
    assert done.returncode == 0, done.stderr
    before, refused, still, after, left = done.stdout.splitlines()
    assert (before, still, after, left) == ("False", "False", "True", "False")
    assert "is open, expected its close() before another" in refused


FAILED = """
import sys
from dpedf import train
from dpedf.errors import UserError
from dpedf.parallel.ranks import Ranks

for more in ["model.sizes=[64, 9]"], []:
    words = [*sys.argv[1:6], *more]
    try:
        print("status", train.main(Ranks(), words))
    except UserError as error:
        print(error)
"""


def test_a_run_that_cannot_be_set_up_closes_its_gpu(python, digits, tmp_path, simulated):
    words = f"data.file={digits}", f"run.dir={tmp_path}/run", "train.steps=2", "run.device=gpu"
    done = python("-c", FAILED, ROOT / "configs" / "digits_mlp.toml", *words, **simulated)
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert "model.sizes" in first and last == "status 0"
