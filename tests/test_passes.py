"""Passes: how many slices each of them takes, on how many ranks, changes no bit."""

from functools import partial
from math import ceil, prod

import numpy as np
import pytest
from products import each
from threaded import on_ranks
from threadpoolctl import threadpool_limits

from dpedf import models, ops
from dpedf.edf import CompNode, Input, Package, Parameter, Parameters
from dpedf.models.images import conv
from dpedf.ops import (
    Affine,
    BatchNorm,
    Conv2D,
    Dropout,
    Einsum,
    Flatten,
    Log,
    LogLoss,
    MaxPool,
    Relu,
    Softmax,
    Sqrt,
    Square,
    Tanh,
)
from dpedf.optim import Momentum
from dpedf.parallel.gradient import Gradient
from dpedf.parallel.trial import choose_passes
from dpedf.phi import Phi, Uniform, dense
from dpedf.program import context
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


def learner(name, dtype, T=10):
    """(ell, put, x, y) of a model, and the rows of the largest minibatch; texts have T symbols."""
    random, B = np.random.default_rng(0), max(SIZES)
    if name in TEXTS:
        build = TEXTS[name]  # by default, of more time steps than the products that are joined
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

    losses: of each slice, those of each step, and of all steps.
    together: how many slices a pass takes, unless a node mixes them; or how many passes there are.
    """
    ell, put, rows, labels = learner(name, dtype)
    phi = Phi(ell, dtype=dtype)
    gradient = Gradient(ell, phi, ranks, put, slices, **options)
    if not gradient.mixer:
        gradient.compute_in(-(-gradient.passes.most // together) if together else passes)
    step, losses = Step(gradient, Momentum(phi, 0.9)), []
    for B in SIZES:
        mine = slice(*gradient.shard(B))
        step(rows[:B][mine], labels[:B][mine], B, 0.1)
        losses.append(gradient.losses.copy())
    losses = np.array([*losses, step.losses])
    return [phi.value, sum(ranks.gather(losses)), *phi.state.values()]


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


@pytest.mark.parametrize("name", [*MODELS, *TEXTS])
def test_slices_change_what_is_learnt_by_rounding_alone(name):
    learn = partial(train, name=name, dtype=np.float64)
    whole, cut = (on_ranks(1, partial(learn, slices=slices))[0] for slices in (0, V))
    whole[1], cut[1] = whole[1].sum(axis=1), cut[1].sum(axis=1)  # the losses
    for array, expected in zip(cut, whole, strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-9, atol=1e-12)


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


# Nodes of a user's that do not let slices be computed together.


class Product(ops.Affine):
    """Affine as on the slides: a product of all rows at hand."""

    def forward(self):
        self.value = self.x.value @ self.Phi.w.value - self.Phi.b.value


class Summed(ops.Affine):
    """Affine, which adds up what its parameters get."""

    def backward(self):
        self.Phi.w.addgrad(self.x.value.T @ self.grad)
        self.Phi.b.addgrad(-self.grad.sum(axis=0))


class Centred(CompNode):
    """y[b,i] = x[b,i] - mean_b x[b,i], over the rows at hand; its backward leaves out the mean"""

    def __init__(self, Phi, x):
        self.x = Affine(Phi, x)

    def forward(self):
        x = self.x.value
        self.value = x - x.sum(axis=0) / max(1, len(x))

    def backward(self):
        self.x.addgrad(self.grad)


class CentredGradient(Centred):
    """y = x, of which the backward mixes rows"""

    def forward(self):
        self.value = self.x.value

    def backward(self):
        self.x.addgrad(self.grad - self.grad.mean(axis=0))


USERS = {  # and what is said of it
    Product: "z1 = Product has other bits beside other rows",
    Summed: "z1 = Summed adds up the rows of several slices",
    Centred: "z2 = Centred has other bits beside other rows",
    CentredGradient: "the backward of a node has other bits beside other rows",
}
I, J, B = 300, 33, 40  # such that OpenBLAS adds 5 rows of a slice otherwise than 10 or more


def adds_by_rows():
    """Does BLAS give a row of a product other bits beside other rows?"""
    x, W = (np.random.default_rng(0).normal(size=size).astype("f") for size in ((B, I), (I, J)))
    return (x[:5] @ W != (x @ W)[:5]).any()


def user_step(ranks, node, slices=V, mixer=None, fit=B, classified=classified):
    """A Step of a program with this node, and B rows and labels.

    mixer: one more node, of a package and of it.  fit: how many rows fit into memory.
    classified(z, y): the loss.
    """
    x, y = Input((I,), np.float32), Input((), np.intp, 3)
    z = node(dense(I, J), x)
    ell = classified(mixer(scaled(J), z) if mixer else Tanh(z), y)

    def put(images, labels):
        if len(images) > fit:
            raise MemoryError
        x.value, y.value = images, labels

    phi = Phi(ell)
    random, step = (
        np.random.default_rng(0),
        Step(Gradient(ell, phi, ranks, put, slices), Momentum(phi)),
    )
    return step, random.normal(size=(B, I)).astype(np.float32), random.integers(0, 3, B)


def choose(step, ranks, x, y, most_rows=0, state=None):
    mine = slice(*step.gradient.shard(B))
    minibatch = x[mine], y[mine], B
    return choose_passes(step, minibatch, ranks, state or {}, {B, B - 5}, most_rows)


def learn(ranks, node, choose=lambda *_: None, **options):
    """(what choose says, slices in a pass, Phi after two steps, of other sizes)."""
    step, x, y = user_step(ranks, node, **options)
    said = choose(step, ranks, x, y)
    for n in B, B - 5:
        mine = slice(*step.gradient.shard(n))
        step(x[mine], y[mine], n, 0.5)
    return said, step.gradient.passes.together, step.gradient.phi.sha256()


@pytest.mark.parametrize("node", USERS)
def test_what_cannot_be_computed_together_is_found_and_named_and_passes_take_one_slice(node):
    """Also where rows are set."""
    if node is Product and not adds_by_rows():
        pytest.skip("with this BLAS, products can be computed together")
    _, _, expected = on_ranks(1, partial(learn, node=node))[0]
    for size in 1, 2, 4:
        for rows in 0, B:
            how = partial(choose, most_rows=rows)
            found = on_ranks(size, partial(learn, node=node, choose=how))
            assert found == [(f"a pass takes one slice: {USERS[node]}", 1, expected)] * size


# Rows that are set, and slices of 5 rows in a pass, on one rank and on two: as even as can be.
SET = {5: (1, 1), 9: (1, 1), 10: (2, 2), 15: (3, 2), 19: (3, 2), 20: (4, 4), 40: (8, 4), 99: (8, 4)}


@pytest.mark.parametrize("rows", SET)
def test_nodes_of_dpedf_are_computed_together_of_as_many_rows_as_are_set(rows):
    _, _, expected = on_ranks(1, partial(learn, node=Affine))[0]
    for size, together in enumerate(SET[rows], 1):
        how = partial(choose, most_rows=rows)
        found = on_ranks(size, partial(learn, node=Affine, choose=how))
        assert found == [(None, together, expected)] * size


def test_rows_that_a_slice_has_not_are_refused(refused):
    with refused("train.rows = 4", "expected 0 or at least 5"):
        on_ranks(2, partial(learn, node=Affine, choose=partial(choose, most_rows=4)))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_what_is_chosen_by_a_trial_is_the_same_on_all_ranks_and_changes_no_bit(size):
    _, _, expected = on_ranks(1, partial(learn, node=Affine))[0]
    found = on_ranks(size, partial(learn, node=Affine, choose=choose))
    assert found == [(None, found[0][1], expected)] * size


@pytest.mark.parametrize("fit", [5, 10, 20])
def test_a_pass_takes_no_more_rows_than_fit_into_memory(fit):
    _, _, expected = on_ranks(1, partial(learn, node=Affine))[0]
    for size in 1, 2:
        for said, together, found in on_ranks(
            size, partial(learn, node=Affine, fit=fit, choose=choose)
        ):
            assert said is None and 5 * together <= fit and found == expected


def note_on(ranks, node, zeros=False, **options):
    """What is said of a program with this node; zeros: does Phi begin with them?"""
    step, x, y = user_step(ranks, node, **options)
    if zeros:
        step.gradient.phi.value.fill(0)
    return choose(step, ranks, x, y)


def small(Phi, z):
    """z times the root of a parameter that is not much above zero."""
    return z * Sqrt(Parameter(np.full(J, 1e-4)))


def narrow(Phi, z):
    """z times the logarithm of what is near zero, and below it where a parameter is larger."""
    return z * Log(1 - Square(Parameter(np.full(J, 0.95))))


HIDING = {
    "noise in Phi makes everything nan": (Centred, {"mixer": narrow}),
    "one rank alone has two slices": (Centred, {"slices": 3}),
    "Phi begins with zeros": (CentredGradient, {"zeros": True}),
    "all rows do not fit into memory": (Centred, {"fit": 10}),
}


@pytest.mark.parametrize("how", HIDING)
def test_what_cannot_be_computed_together_is_found_where(how):
    node, options = HIDING[how]
    found = on_ranks(2, partial(note_on, node=node, **options))
    assert found == [f"a pass takes one slice: {USERS[node]}"] * 2


def test_a_parameter_keeps_its_sign_in_a_trial():
    """A root of one below zero is nan, whose bits depend on what is computed with it."""
    assert on_ranks(2, partial(note_on, node=Affine, mixer=small)) == [None] * 2


def test_where_not_even_a_slice_fits_into_memory_this_is_said(refused):
    with refused("one of 4 passes over 40 rows does not fit into memory"):
        on_ranks(2, partial(learn, node=Affine, fit=4, choose=choose))


def computed(ranks, name, passes):
    """The loss of a model whose gradient was computed in so many passes."""
    ell, put, rows, labels = learner(name, np.float32)
    gradient = Gradient(ell, Phi(ell), ranks, put, V)
    gradient.compute_in(passes)
    gradient(rows, labels, len(rows))
    return ell


def test_after_a_pass_nothing_is_kept_of_the_sums_over_its_slices():
    """They are as large as Phi, for each slice."""

    def kept(ranks):
        return [p.sum_over_rows.parts for p in Parameters(computed(ranks, "lenet", passes=1))]

    (parts,) = on_ranks(1, kept)
    assert len(parts) == 8 and not any(part is not None for part in parts)


def test_two_gradients_of_one_phi_do_not_disturb_each_other():
    def learn(ranks):
        ell, put, rows, labels = learner("mlp", np.float32)
        phi, found = Phi(ell), []
        gradients = [Gradient(ell, phi, ranks, put, slices) for slices in (V, 5)]
        for gradient in (*gradients, gradients[0]):
            mine = slice(*gradient.shard(len(rows)))
            gradient(rows[mine], labels[mine], len(rows))
            found.append(phi.grad.copy())
        return found

    (expected,) = bits(on_ranks(1, learn))
    assert bits(on_ranks(3, learn)) == [expected] * 3 and expected[0] == expected[2]


def test_what_mixes_rows_does_not_compute_in_several_passes():
    with pytest.raises(ValueError, match="in 2 passes, expected mixes = True"):
        on_ranks(1, partial(computed, name="residual", passes=2))


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("rows", [5, 11, 40])
def test_without_slices_a_run_that_goes_on_keeps_its_passes(size, rows, monkeypatch):
    def count(ranks, state, most_rows=0):
        step, x, y = user_step(ranks, Affine, slices=0)
        assert choose(step, ranks, x, y, most_rows, state) is None
        return step.gradient.passes.count, step.state()

    monkeypatch.setattr("dpedf.parallel.trial.fastest", lambda *_: 17)
    (passes, state), *_ = on_ranks(size, partial(count, state={}, most_rows=rows))
    assert passes == ceil(ceil(B / size) / rows)
    for there, expected in (size, passes), (size + 1, 17):  # a trial decides on other ranks
        found = on_ranks(size, partial(count, state=state | {"ranks": there}))
        assert [passes for passes, _ in found] == [expected] * size


@pytest.mark.parametrize("node", [Product, Summed])
def test_what_mixes_rows_beside_what_cannot_be_computed_together_is_refused(node, refused):
    if node is Product and not adds_by_rows():
        pytest.skip("with this BLAS, products can be computed together")
    with refused("train.slices = 8, expected 0", USERS[node], "z2 = BatchNorm"):
        on_ranks(2, partial(learn, node=node, mixer=BatchNorm, choose=choose))


def positions(z, y):
    Q = Softmax(Affine(dense(z.value.shape[1], y.classes), z))
    return LogLoss(Q, y, ops.NotEqual(y, 0), mean="positions")


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_trial_counts_nothing_over_ranks_and_so_waits_for_none(size):
    """Where a node ends the trial on the ranks that have several slices."""
    how = dict(node=Summed, choose=choose, slices=4, classified=positions)
    (_, _, expected), *_ = on_ranks(1, partial(learn, **how | {"choose": lambda *_: None}))
    found = on_ranks(size, partial(learn, **how))
    assert found == [(f"a pass takes one slice: {USERS[Summed]}", 1, expected)] * size


class Middle(CompNode):
    """y[b,j] = x[b,j] - mean_b x[b,j], which mixes rows whether it learns or not"""

    mixes = True

    def __init__(self, Phi, x):
        self.x = x

    def less_its_mean(self, x):
        sums = np.zeros((len(context.slices), x.shape[1]), x.dtype)
        for these, part in context.slices.cut(x):
            sums[these] = part.sum(axis=1)
        return x - context.add(sums) / np.float32(max(1, context.B or len(x)))

    def forward(self):
        self.value = self.less_its_mean(self.x.value)

    def backward(self):
        self.x.addgrad(self.less_its_mean(self.grad))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_what_mixes_rows_outside_of_training_waits_for_no_rank(size, refused):
    """Beside a node that ends the trial on the ranks that have several slices."""
    with refused("train.slices = 4, expected 0", "Summed adds up", "Middle needs them in one pass"):
        how = dict(node=Summed, mixer=Middle, choose=choose, slices=4)
        on_ranks(size, partial(learn, **how))
    expected, *found = (
        on_ranks(n, partial(learn, node=Affine, mixer=Middle, choose=choose, slices=4))[0][2]
        for n in (1, size)
    )
    assert found == [expected]


def test_rows_that_are_set_are_not_met_where_a_node_mixes_all_of_a_rank():
    learn_it = partial(learn, node=Affine, mixer=BatchNorm)
    _, _, expected = on_ranks(1, learn_it)[0]
    note = "train.rows = 5 is not met: z2 = BatchNorm needs all rows of a rank in one pass"
    for rows, said in (0, None), (5, note), (40, None):
        for size in 1, 2, 4:
            found = on_ranks(size, partial(learn_it, choose=partial(choose, most_rows=rows)))
            assert found == [(said, V // size, expected)] * size


@pytest.mark.parametrize("node, mixer", [(Product, None), (Summed, None), (Affine, BatchNorm)])
@pytest.mark.parametrize("overlap", [False, True])
def test_a_trial_leaves_what_is_learnt_and_how_it_is_summed_as_it_was(node, mixer, overlap):
    def check(ranks):
        step, x, y = user_step(ranks, node, mixer=mixer)
        gradient = step.gradient
        gradient.overlap, gradient.phi.value[:5] = overlap, [0, -1, 1e30, -1e-30, 3]
        held = gradient.phi.value, step.losses, *gradient.phi.state.values()
        before = [array.copy() for array in held]
        choose(step, ranks, x, y)
        assert gradient.overlap == overlap and gradient.train
        return bits([before]) == bits([held])

    assert on_ranks(2, check) == [True] * 2
