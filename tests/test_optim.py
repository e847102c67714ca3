"""Update rules and schedules: against PyTorch and closed forms."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from strict import DeviceArray, get, put
from test_checkpoint import model
from test_resume import CONFIG

from dpedf.kernels.vector import CACHED, norm
from dpedf.optim import Adam, Momentum, RMSProp, clip, schedule, update_rule
from dpedf.run import config, rules
from dpedf.run.settings.consistent import expect_consistent
from dpedf.run.settings.sections import TrainSection

N = 2 * CACHED + 17  # longer than what is updated at a time, and no multiple of it


def vectors(n, dtype=np.float64):
    random = np.random.default_rng(0)
    value, grad = (random.normal(size=n).astype(dtype) for _ in range(2))
    failure = np.zeros(1, dtype), np.zeros(1, int)
    return SimpleNamespace(value=value, grad=grad, failure=failure, parameters=[], parts=[])


RULES = {
    "sgd": {},
    "sgd with momentum": {"momentum": 0.9},
    "sgd with Nesterov's momentum": {"momentum": 0.9, "nesterov": True},
    "adam": {},
    "adam of large epsilon": {"betas": (0.5, 0.95), "epsilon": 0.1},
    "adam without memory": {"betas": (0.0, 0.0)},
    "adamw": {},
    "adamw of large epsilon": {"betas": (0.5, 0.95), "epsilon": 0.1},
    "rmsprop": {},
    "rmsprop with momentum": {"momentum": 0.9},
    "rmsprop of large epsilon": {"smoothing": 0.5, "epsilon": 0.1},
}
each_rule = pytest.mark.parametrize("rule", RULES)
# The names of PyTorch.
CLASSES = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop"}
KEYWORDS = {"epsilon": "eps", "smoothing": "alpha"}
STATE = {
    "sgd": {"v": "momentum_buffer"},
    "adam": {"m": "exp_avg", "v": "exp_avg_sq"},
    "adamw": {"m": "exp_avg", "v": "exp_avg_sq"},
    "rmsprop": {"s": "square_avg", "v": "momentum_buffer"},
}


def rule_of(phi, rule, **more):
    """What a [train] section makes of one of RULES."""
    settings = {"optimizer": rule.split()[0], **RULES[rule], **more}
    return update_rule(phi, TrainSection(batch_size=1, learning_rate=1.0, **settings))


def theirs(torch, tensor, rule, decay):
    """The same in PyTorch, with what it remembers by our names."""
    name, settings = rule.split()[0], {KEYWORDS.get(k, k): v for k, v in RULES[rule].items()}
    optimizer = getattr(torch.optim, CLASSES[name])([tensor], 1.0, weight_decay=decay, **settings)
    return optimizer, lambda: {
        ours: optimizer.state[tensor][their]
        for ours, their in STATE[name].items()
        if their in optimizer.state[tensor]
    }


@each_rule
@pytest.mark.parametrize("decay", [0, 0.01])
def test_a_rule_agrees_with_pytorch(rule, decay):
    torch = pytest.importorskip("torch", reason="the reference is PyTorch")
    phi, random = vectors(N), np.random.default_rng(1)
    tensor = torch.tensor(phi.value, requires_grad=True)
    optimizer, remembered = theirs(torch, tensor, rule, decay)
    ours = rule_of(phi, rule, weight_decay=decay)
    sizes = 10.0 ** random.integers(-10, 3, N)  # down to those that epsilon outweighs
    sizes[:9] = 0
    for step, eta in enumerate([0.1, 0.5, 0.02, 0.3, 0.3]):
        phi.grad[...] = random.normal(size=N) * sizes
        tensor.grad = torch.tensor(phi.grad)
        optimizer.param_groups[0]["lr"] = eta
        optimizer.step()
        ours(eta, step)
        np.testing.assert_allclose(phi.value, tensor.detach(), rtol=1e-12, atol=1e-12)
    known = remembered()
    assert {name for name, vector in ours.state.items() if len(vector)} == set(known)
    for name, vector in known.items():
        np.testing.assert_allclose(ours.state[name], vector, rtol=1e-12, atol=1e-12)


RATES = {"Phi1": 0.5, "Phi1.b": 3.0, "Phi2.w": 0.0}  # of Phi1.w, Phi1.b, Phi2.w, Phi2.b


@each_rule
@pytest.mark.parametrize("decay", ["all", "matrices"])
@pytest.mark.parametrize("given", [RATES, {}])
def test_spans_of_phi_are_updated_as_groups_of_parameters_in_pytorch(rule, decay, given):
    torch = pytest.importorskip("torch", reason="the reference is PyTorch")
    phi, random = model(dtype="float64"), np.random.default_rng(1)
    settings = {"optimizer": rule.split()[0], "decay": decay, "rates": given, **RULES[rule]}
    train = TrainSection(batch_size=1, learning_rate=1.0, weight_decay=0.25, **settings)
    ours, factors = rules.update_rule(phi, train), [0.5, 3, 0, 1] if given else [1] * 4
    tensors = [torch.tensor(part, requires_grad=True) for part in phi.parts]
    groups = [
        {"params": [t], "weight_decay": 0.25 * (decay == "all" or t.ndim > 1)} for t in tensors
    ]
    more = {KEYWORDS.get(k, k): v for k, v in RULES[rule].items()}
    optimizer = getattr(torch.optim, CLASSES[rule.split()[0]])(groups, 1.0, **more)
    for step, eta in enumerate([0.1, 0.5, 0.02]):
        phi.grad[...] = random.normal(size=phi.grad.shape)
        for t, grad, group, factor in zip(
            tensors, phi.views(phi.grad), optimizer.param_groups, factors, strict=True
        ):
            t.grad, group["lr"] = torch.tensor(grad), eta * factor
        optimizer.step()
        ours(eta, step)
        for t, part in zip(tensors, phi.parts, strict=True):
            np.testing.assert_allclose(part, t.detach(), rtol=1e-12, atol=1e-14)


def test_there_are_as_few_spans_as_it_takes_and_one_that_is_all_of_phi_where_nothing_is_set():
    phi = model()  # of 20, 5, 15 and 3 numbers
    for given, expected in [
        ({}, None),
        ({"weight_decay": 0.1}, None),
        ({"decay": "matrices"}, [(0, 43)]),
        ({"rates": {"Phi1": 0.5, "Phi2": 0.5}}, [(0, 43)]),
        ({"rates": {"Phi1": 0.5}}, [(0, 25), (25, 43)]),
        ({"rates": {"Phi1.b": 0.5, "Phi2.w": 0.5}}, [(0, 20), (20, 40), (40, 43)]),
        (
            {"decay": "matrices", "weight_decay": 0.1},
            [(0, 20), (20, 25), (25, 40), (40, 43)],
        ),
    ]:
        rule = rules.update_rule(phi, TrainSection(batch_size=1, learning_rate=1.0, **given))
        found = [(span.where.start, span.where.stop) for span in rule.spans]
        assert found == (expected or [(None, None)])


def test_a_step_of_several_spans_that_failed_counts_once():
    phi = model()
    train = TrainSection(batch_size=1, learning_rate=1.0, rates={"Phi1.b": 0.5})
    update = rules.update_rule(phi, train)
    phi.grad.fill(1)
    update(0.5, 0)
    before = phi.value.copy()
    phi.failed.fill(np.nan)
    for step in 1, 2:
        update(0.5, step)
    assert phi.skipped[0] == 2 and phi.value.tobytes() == before.tobytes()


def test_rates_are_given_by_name_as_a_table_or_one_by_one(tmp_path, refused):
    path = tmp_path / "c.toml"
    path.write_text(CONFIG + 'rates = {Phi1 = 0.5, "Phi2.w" = 1}\n')

    def loaded(*words):
        return config.load(path, words).train.rates

    assert loaded() == {"Phi1": 0.5, "Phi2.w": 1.0}
    assert loaded("train.rates.Phi2.w=0", "train.rates.Phi2=.1") == {
        "Phi1": 0.5,
        "Phi2.w": 0.0,
        "Phi2": 0.1,
    }
    assert loaded("train.rates={Phi2.w=2}") == loaded('train.rates={"Phi2.w"=2}') == {"Phi2.w": 2.0}
    assert config.decoded(config.text(config.load(path))).train.rates == loaded()
    for word, words in {
        "train.rates.Phi1=-1": ["train.rates.Phi1 = -1", "at least 0"],
        "train.rates.Phi1.w=fast": ["train.rates.Phi1.w = 'fast'", "expected a number"],
        "train.rates={Phi1=[1]}": ["train.rates.Phi1 = [1]", "expected a number"],
        "train.rates={Phi1={}}": ["train.rates.Phi1 = {}", "expected a number"],
        "train.rates=0.1": ["train.rates = 0.1", "expected a table of names"],
        "train.rate.Phi1=0.1": ["train.rate is unknown", "expected train.rates.Phi1=0.1"],
    }.items():
        with refused("c.toml", *words):
            loaded(word)


def test_a_name_in_rates_is_one_of_what_learns(refused):
    phi = model()
    for name, words in {
        "Phi3": ["there is no Phi3", "expected one of Phi1, Phi2"],
        "nowhere": ["one of Phi1, Phi2"],
        "Phi1.W": ["expected Phi1.w"],
        "Phi": ["there is no Phi,"],
    }.items():
        with refused("train.rates = {", *words):
            train = TrainSection(batch_size=1, learning_rate=1.0, rates={name: 0.5})
            rules.update_rule(phi, train)
    phi.state["Phi0.w"] = phi.state["Phi1.c"] = np.zeros(3)
    train = TrainSection(batch_size=1, learning_rate=1.0, rates={"Phi1": 0.5})
    assert rules.update_rule(phi, train)  # for a part of Phi1 learns
    with refused("Phi0 is frozen", "expected what learns"):
        train = TrainSection(batch_size=1, learning_rate=1.0, rates={"Phi0": 0.5})
        rules.update_rule(phi, train)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_sums_a_constant_gradient_as_a_geometric_series(nesterov):
    phi, mu, eta = vectors(N), 0.9, 0.1
    start, g = phi.value.copy(), phi.grad.copy()
    update = Momentum(phi, mu, nesterov)
    moved = 0
    for t in range(1, 6):
        phi.grad[...] = g
        update(eta, t - 1)
        v = (1 - mu**t) / (1 - mu)
        moved += eta * (1 + mu * v if nesterov else v)
    np.testing.assert_allclose(phi.value, start - moved * g, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(update.state["v"], v * g, rtol=1e-12)


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.5), (0.5, 0.0)])
def test_adam_moves_by_eta_whatever_the_size_of_a_constant_gradient(betas):
    phi = vectors(N)
    start, g = phi.value.copy(), phi.grad * 1e6
    update = Adam(phi, betas, epsilon=1e-300)
    for step in range(5):
        phi.grad[...] = g
        update(0.1, step)
        np.testing.assert_allclose(phi.value, start - 0.1 * (step + 1) * np.sign(g), 1e-12, 1e-12)


def test_after_many_steps_adam_corrects_nothing():
    """m = v = 1, and betas**t is less than any float."""
    phi = vectors(5)
    phi.value[...], phi.grad[...] = 0, 1
    update = Adam(phi, epsilon=0.25)
    for vector in update.state.values():
        vector[...] = 1
    update(0.1, 10**9)
    np.testing.assert_allclose(phi.value, -0.1 / 1.25, rtol=1e-15)


def test_rmsprop_divides_a_constant_gradient_by_its_size_so_far():
    phi, alpha = vectors(N), 0.9
    start, g = phi.value.copy(), phi.grad.copy()
    update, moved = RMSProp(phi, alpha, epsilon=1e-300), 0
    for t in range(1, 6):
        phi.grad[...] = g
        update(0.1, t - 1)
        moved += 0.1 / math.sqrt(1 - alpha**t)
    np.testing.assert_allclose(phi.value, start - moved * np.sign(g), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", ["sgd", "adamw"])
def test_weight_decay_alone_shrinks_phi_geometrically(rule):
    phi = vectors(N)
    start, update = phi.value.copy(), rule_of(phi, rule, weight_decay=0.5)
    for step in range(4):
        phi.grad[...] = 0
        update(0.1, step)
    np.testing.assert_allclose(phi.value, start * (1 - 0.1 * 0.5) ** 4, rtol=1e-12)


def test_plain_sgd_keeps_no_state():
    phi = vectors(5)
    start, g = phi.value.copy(), phi.grad.copy()
    update = Momentum(phi)
    update(0.25, 0)
    assert not sum(map(len, update.state.values()))
    np.testing.assert_allclose(phi.value, start - 0.25 * g, rtol=1e-15)


@each_rule
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_device_is_updated_to_the_same_bits_in_its_dtype(dtype, rule):
    host = vectors(N, dtype)
    failure = tuple(map(put, host.failure))
    arrays = dict(value=put(host.value), grad=put(host.grad), failure=failure)
    device = SimpleNamespace(**arrays, parameters=[], parts=[])
    for phi in host, device:
        update = rule_of(phi, rule, weight_decay=0.01)
        update(0.1, 0)
        update(0.2, 1)
        assert all(vector.dtype == dtype for vector in update.state.values())
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


def test_the_cosine_schedule_falls_to_the_lowest_rate():
    c = math.cos(math.pi / 4)
    expected = [0.8, 0.2 + 0.3 * (1 + c), 0.5, 0.2 + 0.3 * (1 - c)]
    np.testing.assert_allclose(rates("cosine", 4, min_learning_rate=0.2), expected, rtol=1e-15)
    assert rates("cosine", 4, min_learning_rate=0.8) == [0.8] * 4


def test_the_last_step_of_the_cosine_still_learns():
    last = rates("cosine", 1000)[-1]
    assert last == pytest.approx(0.8 * math.sin(math.pi / 2000) ** 2)
    assert last > 0


@pytest.mark.parametrize("kind", ["constant", "step", "linear", "cosine"])
def test_the_warm_up_is_linear_and_the_schedule_begins_after_it(kind):
    found = rates(kind, 14, warmup_steps=4, decay_steps=3, decay_rate=0.5)
    np.testing.assert_allclose(found[:4], [0.2, 0.4, 0.6, 0.8], rtol=1e-15)
    after = rates(kind, 10, decay_steps=3, decay_rate=0.5)
    np.testing.assert_allclose(found[4:], after, rtol=1e-15)


@pytest.mark.parametrize("kind", ["constant", "step", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [5, 8])
def test_a_run_may_be_warm_up_alone(kind, warmup):
    found = rates(kind, 5, warmup_steps=warmup)
    np.testing.assert_allclose(found, [0.8 * (s + 1) / warmup for s in range(5)], rtol=1e-15)


def test_the_linear_schedule_is_that_of_pytorch():
    torch = pytest.importorskip("torch", reason="the reference is PyTorch")
    for low, steps in (0.0, 7), (0.2, 40), (0.8, 3), (0.1, 1):
        optimizer = torch.optim.SGD([torch.zeros(1)], 0.8)
        theirs = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, low / 0.8, steps)
        expected = stepped(optimizer, theirs, steps)
        np.testing.assert_allclose(rates("linear", steps, min_learning_rate=low), expected, 1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 10, 137])
def test_one_cycle_is_that_of_pytorch(steps):
    torch = pytest.importorskip("torch", reason="the reference is PyTorch")
    optimizer = torch.optim.SGD([torch.zeros(1)], 0.8, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.8, steps)
    found, expected = rates("onecycle", steps), stepped(optimizer, theirs, steps)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    assert max(found) <= 0.8 and found[-1] == pytest.approx(0.8 / 25 / 1e4)


def stepped(optimizer, scheduler, steps):
    """The learning rates of a schedule in PyTorch, step by step."""
    found = []
    for step in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < steps - 1:
            scheduler.step()
    return found


def test_a_setting_belongs_to_the_schedules_that_have_it(refused):
    for kind, given, wrong in [
        ("linear", {"min_learning_rate": 0.1, "warmup_steps": 3}, None),
        ("linear", {"min_learning_rate": 0.9}, "at most train.learning_rate = 0.8"),
        ("onecycle", {"min_learning_rate": 0.1}, "is of the schedules linear, cosine"),
        ("onecycle", {"warmup_steps": 3}, "has a warm-up of its own, expected none"),
    ]:
        train = TrainSection(batch_size=1, learning_rate=0.8, schedule=kind, **given)
        if wrong is None:
            expect_consistent(train)
            continue
        with refused(f"train.{[*given][0]} = ", wrong):
            expect_consistent(train)
