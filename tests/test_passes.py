"""Passes: how many slices each of them takes, on how many ranks, changes no bit."""

from functools import partial
from math import prod

import numpy as np
import pytest
from products import each
from threaded import on_ranks
from threadpoolctl import threadpool_limits

from dpedf import models
from dpedf.edf import Input, Package, Parameter
from dpedf.models.images import conv
from dpedf.ops import (
    Affine,
    BatchNorm,
    Conv2D,
    Dropout,
    Einsum,
    Flatten,
    LogLoss,
    MaxPool,
    Relu,
    Softmax,
    Tanh,
)
from dpedf.optim import Momentum
from dpedf.parallel.gradient import Gradient
from dpedf.phi import Phi, Uniform, dense
from dpedf.run.step import Step


@pytest.fixture(autouse=True)
def one_thread():
    """Of BLAS, as in a run with slices."""
    with threadpool_limits(1, "blas"):
        yield


def classified(z, y):
    return LogLoss(Softmax(Affine(dense(prod(z.value.shape[1:]), y.classes), z)), y)


def scaled(J):
    """A package for BatchNorm."""
    return Package(w=Parameter(np.ones(J)), b=Parameter(np.zeros(J)))


def residual(x, y):
    """A small ResNet."""
    z = Relu(BatchNorm(scaled(2), Conv2D(conv(1, 2, 3), x, padding=1)))
    inner = Relu(BatchNorm(scaled(2), Conv2D(conv(2, 2, 3), z, padding=1)))
    z = Relu(z + BatchNorm(scaled(2), Conv2D(conv(2, 2, 3), inner, padding=1)))
    return classified(Dropout(Flatten(MaxPool(z, 2)), 0.3), y)


def letters(x, y):
    """Sums of products, and parameters that are repeated along rows and along indices."""
    z = Tanh(Einsum("bij,ijk,kl->bl", x, Uniform((3, 4, 5), 0.5), Uniform((5, 6), 0.5)))
    z = z * Uniform((6,), 1.0) + Uniform((), 1.0) - Uniform((1, 6), 1.0) / (z * z + 2)
    return classified(Flatten(z), y)


def of(model, **settings):
    return lambda x, y: model(x, y, **settings)[1]


MODELS = {  # the shape of x, and ell
    "mlp": ((6,), of(models.mlp, sizes=[6, 5, 3])),
    "lenet": ((12, 12), of(models.lenet, channels=[2, 3], hidden=[4])),
    "autoencoder": ((6,), of(models.autoencoder, sizes=[6, 5, 2])),
    "logistic": ((6,), of(models.logistic)),
    "letters": ((3, 4), letters),
    "residual": ((1, 4, 4), residual),
}
TEXTS = {
    "char_lstm": of(models.char_lstm, embedding=3, hidden=4),
    "char_gru": of(models.char_gru, embedding=3, hidden=4),
    "char_transformer": of(models.char_transformer, layers=1, heads=2, width=4),
}
V = 8
SIZES = (
    16,
    13,
    8,
    5,
    30,
)  # of minibatches: slices that divide B and that do not, of one row, of none


def learner(name, dtype):
    """(ell, put, x, y) of a model, and the rows of the largest minibatch."""
    random, B = np.random.default_rng(0), max(SIZES)
    if name in TEXTS:
        T, build = 10, TEXTS[name]  # more time steps than the products that are joined
        x, y = (Input((T,), np.intp, 5) for _ in range(2))
        rows, labels = (random.integers(0, 5, (B, T)) for _ in range(2))
    else:
        shape, build = MODELS[name]
        x, y = Input(shape, dtype), Input((), np.intp, 2 if name == "logistic" else 3)
        rows, labels = random.random((B, *shape)).astype(dtype), random.integers(0, y.classes, B)

    def put(images, labels):
        x.value, y.value = images, labels

    return build(x, y), put, rows, labels


def train(ranks, name, dtype, slices=V, together=0, passes=1, **options):
    """What a step for each size of minibatch leaves on a rank: Phi, losses and running values.

    together: how many slices a pass takes, unless a node mixes them; or how many passes there are.
    """
    ell, put, rows, labels = learner(name, dtype)
    phi = Phi(ell, dtype=dtype)
    gradient = Gradient(ell, phi, ranks, put, slices, **options)
    if not gradient.mixer:
        gradient.compute_in(-(-gradient.passes.most // together) if together else passes)
    step = Step(gradient, Momentum(phi, 0.9))
    for B in SIZES:
        mine = slice(*gradient.shard(B))
        step(rows[:B][mine], labels[:B][mine], B, 0.1)
    return [phi.value, sum(ranks.gather(step.losses)), *phi.state.values()]


def bits(found):
    """The bytes of what each rank found."""
    return [[array.tobytes() for array in arrays] for arrays in found]


# How many ranks, and how many slices a pass takes of those that a rank has.
LAYOUTS = [(1, 1), (1, 2), (1, 3), (1, 8), (2, 1), (2, 2), (2, 3), (2, 4), (3, 1), (3, 2), (3, 3)]
LAYOUTS += [(4, 1), (4, 2), (5, 1), (5, 2), (8, 1)]


@pytest.mark.parametrize("name", [*MODELS, *TEXTS])
@each("dtype", [np.float32, np.float64])
def test_neither_passes_nor_ranks_change_a_bit(name, dtype):
    learn = partial(train, name=name, dtype=dtype)
    (expected,) = bits(on_ranks(1, partial(learn, together=1)))
    for size, together in LAYOUTS:
        found = on_ranks(size, partial(learn, together=together))
        assert bits(found) == [expected] * size, (size, together)


@pytest.mark.parametrize("name", ["autoencoder", "residual"])
@each("bucket", [7, 50, 1 << 18])
def test_nor_do_buckets_that_are_summed_in_the_last_pass(name, bucket):
    learn = partial(train, name=name, dtype=np.float32)
    (expected,) = bits(on_ranks(1, partial(learn, together=1)))
    for size, together in (1, 3), (2, 4), (3, 2), (5, 1):
        found = on_ranks(size, partial(learn, together=together, overlap=True, bucket=bucket))
        assert bits(found) == [expected] * size, (size, together)


@pytest.mark.parametrize("name", ["mlp", "letters", "char_lstm"])
@pytest.mark.parametrize("size", [1, 3])
def test_without_slices_passes_change_what_is_learnt_by_rounding_alone(size, name):
    """Passes of few rows, and of none."""
    learn = partial(train, name=name, dtype=np.float64, slices=0)
    whole, *_ = on_ranks(size, partial(learn, passes=1))
    for passes in 2, 3, 7:
        found = on_ranks(size, partial(learn, passes=passes))
        assert bits(found) == bits(found[:1]) * size
        for array, expected in zip(found[0], whole, strict=True):
            np.testing.assert_allclose(array, expected, rtol=1e-9, atol=1e-12)
