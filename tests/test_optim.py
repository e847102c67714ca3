"""Update rules and schedules: against PyTorch and closed forms."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from strict import DeviceArray, get, put

from dpedf.config import TrainSection
from dpedf.kernels.vector import CACHED, norm
from dpedf.optim import Momentum, clip, schedule

N = 2 * CACHED + 17  # longer than what is updated at a time, and no multiple of it


def vectors(n, dtype=np.float64):
    random = np.random.default_rng(0)
    return SimpleNamespace(
        value=random.normal(size=n).astype(dtype), grad=random.normal(size=n).astype(dtype)
    )


@pytest.mark.parametrize("decay", [0, 0.01])
@pytest.mark.parametrize("mu, nesterov", [(0, False), (0.9, False), (0.9, True)])
def test_momentum_agrees_with_pytorch(mu, nesterov, decay):
    torch = pytest.importorskip("torch", reason="the reference is PyTorch")
    phi, random = vectors(N), np.random.default_rng(1)
    tensor = torch.tensor(phi.value, requires_grad=True)
    theirs = torch.optim.SGD([tensor], 1.0, mu, nesterov=nesterov, weight_decay=decay)
    ours = Momentum(phi, mu, nesterov, decay)
    for eta in 0.1, 0.5, 0.02, 0.3:
        phi.grad[...] = random.normal(size=N)
        tensor.grad = torch.tensor(phi.grad)
        theirs.param_groups[0]["lr"] = eta
        theirs.step()
        ours(eta)
        np.testing.assert_allclose(phi.value, tensor.detach(), rtol=1e-12, atol=1e-13)
    if mu:
        v = theirs.state[tensor]["momentum_buffer"]
        np.testing.assert_allclose(ours.v, v, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_sums_a_constant_gradient_as_a_geometric_series(nesterov):
    phi, mu, eta = vectors(N), 0.9, 0.1
    start, g = phi.value.copy(), phi.grad.copy()
    update = Momentum(phi, mu, nesterov)
    moved = 0
    for t in range(1, 6):
        phi.grad[...] = g
        update(eta)
        v = (1 - mu**t) / (1 - mu)
        moved += eta * (1 + mu * v if nesterov else v)
    np.testing.assert_allclose(phi.value, start - moved * g, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(update.v, v * g, rtol=1e-12)


def test_weight_decay_alone_shrinks_phi_geometrically():
    phi = vectors(N)
    start, update = phi.value.copy(), Momentum(phi, weight_decay=0.5)
    for _ in range(4):
        phi.grad[...] = 0
        update(0.1)
    np.testing.assert_allclose(phi.value, start * (1 - 0.1 * 0.5) ** 4, rtol=1e-12)


def test_plain_sgd_keeps_no_state():
    phi = vectors(5)
    start, g = phi.value.copy(), phi.grad.copy()
    update = Momentum(phi)
    update(0.25)
    assert update.v.shape == (0,)
    np.testing.assert_allclose(phi.value, start - 0.25 * g, rtol=1e-15)


@pytest.mark.parametrize("mu, nesterov", [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_device_is_updated_to_the_same_bits_in_its_dtype(dtype, mu, nesterov):
    host = vectors(N, dtype)
    device = SimpleNamespace(value=put(host.value), grad=put(host.grad))
    for phi in host, device:
        update = Momentum(phi, mu, nesterov, weight_decay=0.01)
        update(0.1)
        update(0.2)
    assert type(device.value) is DeviceArray
    assert device.value.dtype == host.value.dtype == dtype
    assert get(device.value).tobytes() == host.value.tobytes()


@pytest.mark.parametrize("n", [0, 1, CACHED - 1, CACHED, CACHED + 1, N])
def test_the_norm_is_the_euclidean_length(n):
    grad = vectors(n).grad
    assert norm(grad) == pytest.approx(np.linalg.norm(grad), rel=1e-12)
    assert norm(np.full(n, 2.0)) == 2 * math.sqrt(n)


def test_the_norm_of_float32_is_added_in_float64():
    grad = np.full(N, 1e-3, np.float32)
    grad[0] = 1e4
    expected = math.sqrt(1e8 + (N - 1) * float(grad[1]) ** 2)
    assert norm(grad) == pytest.approx(expected, rel=1e-14)
    assert norm(np.full(4, 3e30, np.float32)) == pytest.approx(6e30)


def test_a_long_gradient_is_clipped_and_keeps_its_direction():
    grad = np.array([30.0, 0.0, -40.0])
    assert clip(grad, 5.0) == 50
    np.testing.assert_allclose(grad, [3, 0, -4], rtol=1e-15)


@pytest.mark.parametrize("longest", [50.0, 51.0, math.inf])
def test_a_gradient_that_is_short_enough_is_left_alone(longest):
    grad = np.float32([30, 0, -40])
    assert clip(grad, longest) == 50
    assert np.array_equal(grad, [30, 0, -40])


def test_a_gradient_that_is_zero_is_left_alone():
    grad = np.zeros(3)
    assert clip(grad, 1e-9) == 0
    assert not grad.any()


def rates(kind, steps, **keywords):
    """eta of every step."""
    train = TrainSection(batch_size=1, learning_rate=0.8, schedule=kind, **keywords)
    eta = schedule(train, steps)
    return [eta(step) for step in range(steps)]


def test_the_constant_schedule():
    assert rates("constant", 5) == [0.8] * 5


def test_the_step_schedule():
    found = rates("step", 7, decay_steps=3, decay_rate=0.5)
    np.testing.assert_allclose(found, [0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2], rtol=1e-15)


def test_the_cosine_schedule():
    c = math.cos(math.pi / 4)
    expected = [0.8, 0.4 * (1 + c), 0.4, 0.4 * (1 - c)]
    np.testing.assert_allclose(rates("cosine", 4), expected, rtol=1e-15)


def test_the_last_step_of_the_cosine_still_learns():
    last = rates("cosine", 1000)[-1]
    assert last == pytest.approx(0.8 * math.sin(math.pi / 2000) ** 2)
    assert last > 0


@pytest.mark.parametrize("kind", ["constant", "step", "cosine"])
def test_the_warm_up_is_linear_and_the_schedule_begins_after_it(kind):
    found = rates(kind, 14, warmup_steps=4, decay_steps=3, decay_rate=0.5)
    np.testing.assert_allclose(found[:4], [0.2, 0.4, 0.6, 0.8], rtol=1e-15)
    after = rates(kind, 10, decay_steps=3, decay_rate=0.5)
    np.testing.assert_allclose(found[4:], after, rtol=1e-15)


@pytest.mark.parametrize("kind", ["constant", "step", "cosine"])
@pytest.mark.parametrize("warmup", [5, 8])
def test_a_run_may_be_warm_up_alone(kind, warmup):
    found = rates(kind, 5, warmup_steps=warmup)
    np.testing.assert_allclose(found, [0.8 * (s + 1) / warmup for s in range(5)], rtol=1e-15)
