"""Nodes that know the minibatch: BatchNorm, whose means are over its rows, and Dropout."""

from itertools import combinations
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from damage import prove
from strict import DeviceArray, get, put
from threaded import on_ranks

from dpedf.check import check
from dpedf.device import CPU
from dpedf.edf import CompNode, Forward, Input, Package, Parameter, Parameters
from dpedf.ops import Affine, BatchNorm, Dropout, LogLoss, NotEqual, Shift, Softmax, Sum
from dpedf.ops.draws import uniform
from dpedf.optim import Momentum
from dpedf.parallel.gradient import Gradient
from dpedf.parallel.ranks import Ranks
from dpedf.parallel.trial import choose_overlap
from dpedf.phi import Phi, dense
from dpedf.program import during
from dpedf.run import checkpoint
from dpedf.run.setup import Setup, expect_rows_to_learn_from
from dpedf.run.step import Step


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(0.5, 2, shape)


def batch_norm(shape, dtype=np.float64):
    """BatchNorm of a parameter that holds the rows of a minibatch, so that it gets a gradient."""
    w, b = (Parameter(numbers(shape[1], seed=seed).astype(dtype)) for seed in (1, 2))
    x = Parameter(numbers(*shape).astype(dtype))
    x.batched = True
    return BatchNorm(Package(w=w, b=b), x)


def learn(z, g):
    """A step of training, in which g is the gradient of what z computes."""
    for p in z.x, z.Phi.w, z.Phi.b:
        p.differentiate_into(p.grads)  # which nothing was added to yet
    with during(train=True):
        z.forward()
        z.grad = g
        z.backward()


@pytest.mark.parametrize("shape", [(5, 3), (2, 1), (4, 3, 2, 5), (1, 3, 2, 2)])
def test_batch_norm_learns_as_that_of_pytorch_and_is_evaluated_by_running_values(shape):
    torch = pytest.importorskip("torch", reason="the reference is PyTorch")
    z, norms = batch_norm(shape), {2: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}
    theirs = norms[len(shape)](shape[1], dtype=torch.float64)
    theirs.weight.data, theirs.bias.data = map(torch.tensor, (z.Phi.w.value, -z.Phi.b.value))
    for step in range(3):
        z.x.value, g = numbers(*shape, seed=3 + step), numbers(*shape, seed=9 + step)
        learn(z, g)
        x = torch.tensor(z.x.value, requires_grad=True)
        y = theirs(x)
        theirs.zero_grad()
        y.backward(torch.tensor(g))
        for found, expected in (
            (z.value, y.detach()),
            (z.x.grad, x.grad),
            (z.Phi.w.grad, theirs.weight.grad),
            (-z.Phi.b.grad, theirs.bias.grad),
            (z.state["mean"], theirs.running_mean),
            (z.state["variance"], theirs.running_var),
        ):
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    z.forward()
    np.testing.assert_allclose(z.value, theirs.eval()(x).detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 2, 2)])
def test_batch_norm_of_no_rows_learns_nothing(shape):
    z = batch_norm(shape)
    with np.errstate(all="raise"):
        learn(z, np.ones(shape))
    assert z.value.shape == z.x.grad.shape == shape and not z.Phi.w.grad.any()
    assert (z.state["mean"] == 0).all() and (z.state["variance"] == 1).all()


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1)])
def test_batch_norm_does_not_learn_from_one_row_with_one_number_of_a_channel(shape):
    z = batch_norm(shape)
    with pytest.raises(ValueError, match="cannot learn from 1 row with 1 number for each channel"):
        learn(z, np.ones(shape))
    z.forward()  # by the running values, which are as they were
    np.testing.assert_allclose(z.n, z.x.value, rtol=1e-5)


@pytest.mark.parametrize("dtype, rtol", [(np.float32, 1e-5), (np.float64, 1e-9)])
def test_batch_norm_of_large_numbers_and_of_constants_is_that_of_pytorch(dtype, rtol):
    """In float32, a mean of 1e6 is off by more than the numbers differ."""
    torch = pytest.importorskip("torch", reason="the reference is PyTorch")
    z = batch_norm((60, 4), dtype)
    z.x.value[:, 0] += 1e6
    z.x.value[:, 1] = 1e6 + 0.3
    z.x.value[:, 2] = 0.1
    learn(z, numbers(60, 4, seed=9).astype(dtype))
    theirs = torch.nn.BatchNorm1d(4, dtype=torch.float64)
    n = theirs(torch.tensor(z.x.value.astype(float))).detach()
    np.testing.assert_allclose(z.n, n, rtol=10 * rtol, atol=1e-5)
    np.testing.assert_allclose(z.state["mean"], theirs.running_mean, rtol=1e-6)
    np.testing.assert_allclose(z.state["variance"], theirs.running_var, rtol=rtol)


@pytest.mark.parametrize("slices", [0, 5])
@pytest.mark.parametrize("size, B", [(1, 7), (2, 7), (3, 7), (3, 2), (4, 2)])
def test_batch_norm_of_the_rows_of_all_ranks_is_that_of_pytorch(size, B, slices):
    """Some ranks have fewer rows, or none."""
    torch = pytest.importorskip("torch", reason="the reference is PyTorch")
    images, labels = numbers(B, 4, seed=5), np.arange(B) % 3

    def rank_learns(ranks):
        x, y, ell, phi = normalized()
        phi.value += numbers(len(phi.value), seed=4)
        start = {p.name: p.value.copy() for p in Parameters(ell)}
        gradient = gradient_of(x, y, ell, phi, slices, ranks)
        rows = slice(*gradient.shard(B))
        for _ in range(2):
            gradient(images[rows], labels[rows], B)
        return start, {p.name: p.grad for p in Parameters(ell)}, phi.state

    learnt = on_ranks(size, rank_learns)
    start = {name: torch.tensor(value, requires_grad=True) for name, value in learnt[0][0].items()}
    below, scale, top = (
        [start[f"{name}.{key}"] for key in "wb"] for name in ("Phi2", "Phi1", "Phi3")
    )
    norm = torch.nn.BatchNorm1d(5, dtype=torch.float64)
    norm.weight, norm.bias = None, None
    for _ in range(2):
        n = norm(torch.tensor(images) @ below[0] - below[1])
    scores = (n * scale[0] - scale[1]) @ top[0] - top[1]
    torch.nn.functional.cross_entropy(scores, torch.tensor(labels)).backward()
    for _, gradients, state in learnt:
        for name, grad in gradients.items():
            np.testing.assert_allclose(grad, start[name].grad, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(state["z2.mean"], norm.running_mean, rtol=1e-12)
        np.testing.assert_allclose(state["z2.variance"], norm.running_var, rtol=1e-12)


def test_one_row_in_a_minibatch_of_all_ranks_is_an_error_on_each_of_them():
    def learn_from_one(ranks):
        x, y, ell, phi = normalized()
        gradient = gradient_of(x, y, ell, phi, 0, ranks)
        rows = slice(*gradient.shard(1))
        with pytest.raises(ValueError, match="cannot learn from 1 row"):
            gradient(numbers(1, 4)[rows], np.zeros(1, int)[rows], 1)

    on_ranks(3, learn_from_one)


@pytest.mark.parametrize(
    "rows, B, steps, words",
    [
        (129, 64, 0, ["train.batch_size = 64", "the last minibatch of 129 rows", "z2 = BatchNorm"]),
        (129, 64, 3, ["the last minibatch of 129 rows", "another train.batch_size or data.valid"]),
        (8, 1, 0, ["train.batch_size = 1", "a minibatch has 1"]),
        (1, 64, 0, ["a minibatch has 1"]),
        (129, 64, 2, None),  # it ends before
        (128, 64, 0, None),
        (130, 64, 0, None),
        (2, 64, 0, None),
    ],
)
def test_a_run_whose_batch_norm_would_meet_one_row_is_refused(rows, B, steps, words, refused):
    x, y, ell, phi = normalized()
    train = SimpleNamespace(batch_size=B, steps=steps)
    if words is None:
        expect_rows_to_learn_from(ell, rows, train)
    else:
        with refused(words[0], *words[1:]):
            expect_rows_to_learn_from(ell, rows, train)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(4, 3), (0, 3), (4, 3, 2, 5)])
def test_batch_norm_learns_on_a_device_with_the_same_bits_and_in_its_dtype(shape, dtype):
    host, device = batch_norm(shape, dtype), batch_norm(shape, dtype)
    for p in device.x, device.Phi.w, device.Phi.b:
        p.value = put(p.value)
        p.differentiate_into(put(p.grads))
    device.state = {name: put(array) for name, array in device.state.items()}
    g = numbers(*shape, seed=9).astype(dtype)
    learn(host, g)
    learn(device, put(g))
    for here, there in zip(left_by(host), left_by(device), strict=True):
        assert type(there) is DeviceArray and there.dtype == here.dtype == dtype
        assert get(there).tobytes() == here.tobytes()


def left_by(z):
    """All that a step leaves."""
    return z.value, z.x.grad, z.Phi.w.grad, z.Phi.b.grad, *z.state.values()


def normalized(dtype=np.float64, rows=6):
    """(x, y, ell, Phi) of a layer with BatchNorm."""
    x, y = Input((4,), dtype), Input((), np.intp, 3)
    x.value, y.value = numbers(rows, 4).astype(dtype), np.arange(rows) % 3
    scale = Package(w=Parameter(np.ones(5)), b=Parameter(np.zeros(5)))
    z = BatchNorm(scale, Affine(dense(4, 5), x))
    ell = LogLoss(Softmax(Affine(dense(5, 3), z)), y)
    return x, y, ell, Phi(ell, dtype=dtype)


def gradient_of(x, y, ell, phi, slices=0, ranks=None):
    def put_rows(images, labels):
        x.value, y.value = images, labels

    return Gradient(ell, phi, ranks or Ranks(), put_rows, slices)


def test_phi_holds_running_values_in_its_dtype_by_the_name_of_their_node():
    x, y, ell, phi = normalized(np.float32)
    assert {name: a.shape for name, a in phi.state.items()} == {
        "z2.mean": (5,),
        "z2.variance": (5,),
    }
    gradient_of(x, y, ell, phi)(x.value, y.value, 6)
    assert all(array.dtype == np.float32 for array in phi.state.values())
    assert phi.state["z2.mean"].all() and (phi.state["z2.variance"] != 1).all()


def test_a_node_of_the_users_may_hold_an_input_that_it_calls_state():
    class Cell(CompNode):
        def __init__(self, state):
            self.state = state

        def forward(self):
            self.value = self.state.value

        def backward(self):
            self.state.addgrad(self.grad)

    phi = Phi(Cell(Affine(dense(4, 5), Input((4,)))))
    assert phi.state == {}


@pytest.mark.parametrize("slices", [1, 2, 4, 6, 9])
def test_slices_change_a_gradient_through_batch_norm_by_rounding_alone(slices):
    """Uneven ones, slices of one row and of none too: all of them are in one pass."""
    found = []
    for V in 0, slices:
        x, y, ell, phi = normalized()
        gradient_of(x, y, ell, phi, V)(x.value, y.value, 6)
        found.append([phi.grad, *phi.state.values()])
    for expected, array in zip(*found, strict=True):
        assert expected.any()
        np.testing.assert_allclose(array, expected, rtol=1e-12, atol=1e-15)


def test_a_trial_of_how_sums_are_made_leaves_running_values_as_they_were():
    x, y, ell, phi = normalized()
    gradient = gradient_of(x, y, ell, phi)
    minibatch = x.value, y.value, 6
    gradient(*minibatch)
    before = {name: array.copy() for name, array in phi.state.items()}
    step = Step(gradient, Momentum(phi))
    choose_overlap(step, minibatch, Ranks(), {})
    for name, array in before.items():
        np.testing.assert_array_equal(phi.state[name], array)


def test_a_check_of_gradients_before_a_run_leaves_running_values_as_they_were():
    x, y, ell, phi = normalized()
    run = SimpleNamespace(check_nan=False, check_gradients=True)
    rows = SimpleNamespace(numbers=np.arange(6), load=lambda numbers: (x.value, y.value))
    data = SimpleNamespace(train=rows, put=lambda images, labels: None)
    setup = SimpleNamespace(settings=SimpleNamespace(run=run), ranks=Ranks(), data=data)
    setup.ell, step = ell, Step(gradient_of(x, y, ell, phi), Momentum(phi))
    before = {name: array.copy() for name, array in phi.state.items()}
    Setup.check_gradients(setup, step)
    for name, array in before.items():
        np.testing.assert_array_equal(phi.state[name], array)


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("kind", ["of rows", "mixes", "counts"])
def test_sums_through_the_host_in_the_midst_of_a_pass_are_not_recorded(kind, overlap):
    """A CUDA graph would hold no sum of MPI, so that replayed steps would leave it out."""
    recorded = []

    class Device(CPU):
        def run(self, key, function, *arguments):
            recorded.append(key[0])
            return function(*arguments)

    x, y, ell, phi = normalized()
    if kind != "mixes":
        how = {"mask": NotEqual(y, 0), "mean": "positions"} if kind == "counts" else {}
        ell = LogLoss(Softmax(Affine(dense(4, 3), x)), y, **how)
        phi = Phi(ell, dtype=np.float64)
    gradient = gradient_of(x, y, ell, phi)
    gradient.link.recordable, gradient.overlap = False, overlap
    Step(gradient, Momentum(phi), Device())(x.value, y.value, 6, 0.1)
    alone = kind == "of rows" and not overlap
    assert recorded == (["add_slices", "update_phi"] if alone else ["update_phi"])


def test_a_checkpoint_brings_running_values_back_to_the_bit(tmp_path):
    x, y, ell, phi = normalized()
    gradient_of(x, y, ell, phi)(x.value, y.value, 6)
    Forward(ell)
    checkpoint.save(tmp_path / "checkpoint.h5", phi)
    *_, other, loaded = normalized()
    checkpoint.load(tmp_path / "checkpoint.h5", loaded)
    Forward(other)
    assert other.value.tobytes() == ell.value.tobytes()


def test_a_checkpoint_without_running_values_is_refused_and_changes_nothing(tmp_path, refused):
    path = tmp_path / "checkpoint.h5"
    x, y, ell, phi = normalized()
    checkpoint.save(path, phi)
    for name in "z2.variance", "z2.mean":
        with h5py.File(path, "a") as file:
            del file[f"running/{name}"]
            file["phi"][...] = 7
        prove(path)
        before = phi.value.copy()
        with refused(path, name, "(5,)"):
            checkpoint.load(path, phi)
        np.testing.assert_array_equal(phi.value, before)


# Dropout.


def dropout(rows=slice(None), rate=0.3, dtype=np.float64, train=True, shape=(2000, 7), **facts):
    """Dropout of some rows of a minibatch of ones, after a pass at step 5, or with other facts."""
    x = Input(shape[1:], dtype)
    x.value = np.ones(shape, dtype)[rows]
    z = Dropout(x, rate)
    with during(**{"row": rows.start or 0, "step": 5} | facts):
        Forward(z, train)
    return z


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout_keeps_one_minus_rate_and_so_the_expectation(rate):
    value = dropout(rate=rate).value
    kept = (value != 0).mean()
    assert abs(kept - (1 - rate)) <= 5 * (rate * (1 - rate) / value.size) ** 0.5
    np.testing.assert_allclose(value, np.where(value != 0, 1 / (1 - rate), 0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dropout_is_the_identity_out_of_training_and_keeps_its_dtype(dtype):
    np.testing.assert_array_equal(dropout(train=False).value, 1)
    assert dropout(dtype=dtype).value.dtype == dtype


def test_rows_are_dropped_alike_in_any_slices_and_otherwise_in_another_step_seed_or_node():
    whole = dropout().value
    parts = [dropout(slice(first, first + 500)).value for first in range(0, 2000, 500)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert dropout(slice(7, 7)).value.shape == (0, 7)
    for other in dict(step=6), dict(seed=1):
        assert (dropout(**other).value != whole).any()
    Forward(twice := Dropout(Dropout(dropout().x, 0.3), 0.3), train=True)
    assert (twice.keep != twice.x.keep).any()


def test_the_gradient_goes_through_what_dropout_keeps():
    p, g = Parameter(numbers(50, 7)), numbers(50, 7, seed=1)
    z = Dropout(p, 0.4)
    for train in True, False:
        Forward(z, train)
        z.grad = g
        p.differentiate_into(p.grads)  # which nothing was added to yet
        z.backward()
        kept = z.value != 0
        assert (0 < kept.mean() < 1) == train
        np.testing.assert_allclose(p.grad, g * kept / 0.6 if train else g)


@pytest.mark.parametrize("slices", [2, 5, 12])
def test_slices_change_a_gradient_through_dropout_by_rounding_alone(slices):
    found = []
    for V in 1, slices:
        x, y = Input((4,), np.float64), Input((), np.intp, 3)
        ell = LogLoss(Softmax(Affine(dense(4, 3), Dropout(x, 0.5))), y)
        phi = Phi(ell, dtype=np.float64)
        gradient_of(x, y, ell, phi, V)(numbers(12, 4), np.arange(12) % 3, 12)
        found.append(phi.grad)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-12, atol=1e-15)


class Noise(CompNode):
    """z = x + u, drawn in evaluation as well"""

    def __init__(self, x):
        self.x = x

    def forward(self):
        self.value = self.x.value + uniform(self, self.x.value)

    def backward(self):
        self.x.addgrad(self.grad)


def test_a_loop_of_ones_own_draws_anew_in_each_pass_of_training_and_by_its_seed():
    def drawn(seed):
        z, masks = Dropout(dropout().x, 0.5), []
        with during(seed=seed):
            for _ in range(3):
                Forward(z, train=True)
                Forward(z)
                assert (z.value == 1).all()
                Forward(z, train=True)
                masks.append(z.keep)
        return masks

    masks = drawn(0) + drawn(1)
    assert all((a != b).any() for a, b in combinations(masks, 2))
    np.testing.assert_array_equal(drawn(1), masks[3:])


@pytest.mark.parametrize("passes", [1, 2, 4])
def test_all_passes_of_a_minibatch_draw_for_one_step(passes):
    x, w = Input((4,), np.float64), Parameter(np.ones(4))
    ell = Sum(Dropout(x, 0.5) * w)
    gradient = gradient_of(x, x, ell, Phi(ell, dtype=np.float64), slices=4)
    gradient.compute_in(passes)
    for step in range(3):
        gradient(np.ones((8, 4)), np.ones((8, 4)), 8)
        expected = dropout(shape=(8, 4), rate=0.5, step=step).value.mean(axis=0)
        np.testing.assert_array_equal(gradient.phi.grad, expected)


@pytest.mark.parametrize("shape", [(2000, 7), (1, 1)])
def test_evaluation_draws_for_its_rows_and_not_what_training_draws(shape):
    z = Noise(dropout(shape=shape).x)
    drawn = []
    for train, row in (True, 0), (False, 0), (False, shape[0]):
        with during(step=3, row=row):
            Forward(z, train)
        drawn.append(z.value)
    assert len({values.tobytes() for values in drawn}) == 3


def test_a_node_without_b_draws_the_same_for_all_rows():
    z = Noise(Parameter(np.zeros(5)))
    values = []
    for row in 0, 100:
        with during(step=3, row=row):
            Forward(z, train=True)
        values.append(z.value)
    np.testing.assert_array_equal(*values)


def test_the_gradient_check_sees_the_same_draws_in_each_pass():
    check(Dropout(Noise(Parameter(numbers(5, 7))), 0.5))


@pytest.mark.parametrize("rate", [1, 1.0, -0.1, 2, float("nan")])
def test_a_rate_that_leaves_nothing_or_is_none_is_refused(rate):
    with pytest.raises(ValueError, match=f"Dropout of rate {rate}, expected 0 <= rate < 1"):
        Dropout(Input((4,)), rate)


# Shift.


def test_an_image_is_moved_by_a_pixel_each_way_as_often_as_asked():
    """Of one white pixel amid 5 x 5, which shows where it went."""
    x = np.zeros((6000, 5, 5))
    x[:, 2, 2] = 1
    z = Shift(Input((5, 5), np.float64), 0.2)
    z.x.value = x
    Forward(z)
    np.testing.assert_array_equal(z.value, x)
    Forward(z, train=True)
    lines, columns = (z.value.sum(axis=axis) for axis in (2, 1))
    for along in lines, columns:
        np.testing.assert_allclose(along.mean(axis=0), [0, 0.2, 0.6, 0.2, 0], atol=0.02)
    both = z.value[:, 1, 1].mean()  # the two ways are drawn apart
    assert abs(both - 0.04) < 0.01 and (z.value.sum(axis=(1, 2)) == 1).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 2, 2)])
def test_what_leaves_an_image_is_gone_and_what_comes_in_is_0(shape):
    """As np.roll has it, but for the edge; and a gradient goes the same way back."""
    x, random = Parameter(numbers(1, *shape)[0]), np.random.default_rng(0)
    rows = Input(shape, np.float64)
    rows.value = random.normal(size=(50, *shape))
    z = Shift(rows * x, 0.5)
    Forward(z, train=True)
    moved, given = z.value, rows.value * x.value
    for row, (k, m) in enumerate(zip(z.down, z.right, strict=True)):
        assert abs(k) == abs(m) == 1  # at a rate of 0.5 all rows move
        wide = np.pad(given[row], [(0, 0)] * (len(shape) - 2) + [(1, 1), (1, 1)])
        H, W = shape[-2:]
        expected = wide[..., 1 + k : 1 + k + H, 1 + m : 1 + m + W]
        np.testing.assert_array_equal(moved[row], expected)
    check(Shift(rows * x, 0.3))


def test_rows_are_moved_alike_in_any_split():
    x = np.random.default_rng(0).normal(size=(9, 4, 4))

    def moved(first, end):
        z = Shift(Input((4, 4), np.float64), 0.3)
        z.x.value = x[first:end]
        with during(row=first, step=3, seed=1):
            Forward(z, train=True)
        return z.value

    np.testing.assert_array_equal(np.concatenate([moved(0, 4), moved(4, 9)]), moved(0, 9))


@pytest.mark.parametrize("rate", [-0.1, 0.6, float("nan")])
def test_a_shift_of_no_rate_is_refused(rate):
    with pytest.raises(ValueError, match=f"Shift of rate {rate}, expected 0 <= rate <= 0.5"):
        Shift(Input((4, 4)), rate)
