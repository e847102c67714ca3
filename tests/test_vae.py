"""Models that draw, and of several losses: a variational autoencoder is both."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from shipped import ROOT, module_of
from threaded import on_ranks

from dpedf import check, models
from dpedf.data import Data, write
from dpedf.edf import Backward, CompNodes, Forward, Input, Parameter, Parameters
from dpedf.ops import Normal, Sum
from dpedf.phi import Phi
from dpedf.program import during, program
from dpedf.run.build import build, expect_fit
from dpedf.run.evaluate import measure

ABOUT = {"name": "rows", "source": "this test", "licence": "none"}
MODEL = {"build": "vae", "sizes": [12, 7], "latent": 3}


def draws(rows, I=5, dtype=np.float64, train=True, **facts):
    """The value of a Normal of so many rows, after a pass in this context."""
    x = Input((2, 2))
    x.value = np.zeros((rows, 2, 2), dtype)
    z = Normal(x, I)
    with during(**{"step": 0, "seed": 0, **facts}):
        Forward(z, train=train)
    return z.value


@pytest.mark.parametrize("dtype, drop", [(np.float32, 40), (np.float64, 11)])
def test_draws_are_those_of_box_and_muller_from_philox(dtype, drop):
    found = draws(4, 6, dtype=dtype, seed=7, step=5, row=9)
    bits = np.random.Philox(key=[7, 1], counter=[9 * 3, 0, 5, 1]).random_raw(4 * 12)
    u, v = ((bits >> np.uint64(drop)) * 2.0 ** (drop - 64)).reshape(4, 2, 6).swapaxes(0, 1)
    expected = np.sqrt(-2 * np.log(1 - u)) * np.cos(2 * np.pi * v)
    assert found.dtype == dtype and found.shape == (4, 6)
    np.testing.assert_allclose(found, expected, atol=40 * np.finfo(dtype).eps)


def test_draws_are_normal_and_independent():
    e = draws(100_000, 2, dtype=np.float32).astype(np.float64)
    for power, moment in (1, 0), (2, 1), (3, 0), (4, 3), (6, 15):
        assert (e**power).mean() == pytest.approx(moment, abs=0.05 * max(1, moment))
    again, other, late = draws(100_000, 2), draws(100_000, 2, seed=1), draws(9, 2, step=1)
    pairs = [(e[:, 0], e[:, 1]), (e[1:, 0], e[:-1, 0]), (again[:, 0], other[:, 0])]
    assert all(abs(np.corrcoef(*pair)[0, 1]) < 0.02 for pair in pairs)
    for different in other[:9], late, draws(9, 2, train=False):
        assert not np.intersect1d(again[:9], different).size
    np.testing.assert_array_equal(again, draws(100_000, 2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("I", [1, 3, 301])
def test_a_row_has_the_same_draws_in_any_shard(dtype, I):
    whole = draws(13, I, dtype=dtype)
    parts = [(0, 1), (1, 4), (4, 4), (4, 13)]
    found = [draws(b - a, I, dtype=dtype, row=a) for a, b in parts]
    assert np.concatenate(found).tobytes() == whole.tobytes()
    assert draws(0, I, dtype=dtype).shape == (0, I)


def test_nothing_is_sent_to_x_and_without_b_a_row_is_the_same_for_all():
    p = Parameter(np.ones((3, 2)))
    z = Normal(p, 4)
    ell = Sum(z * z)
    Forward(ell, train=True)
    Backward(ell)
    assert not z.batched and z.value.shape == (4,) and not p.grad.any()
    for I in 0, 1.5, (2, 3), True:
        with pytest.raises(ValueError, match="Normal by .*, expected "):
            Normal(p, I)


def model(dtype=np.float64, B=5, seed=0, **keywords):
    """(x, ell, its parts) of a VAE of random numbers in 0..1, some of them 0 and 1."""
    x, y = Input((4, 3), dtype), Input((), np.int64, 3)
    Q, ell = build({**MODEL, **keywords}, x, y)
    Phi(ell, seed, dtype)
    random = np.random.default_rng(seed)
    x.value = np.clip(random.uniform(-0.5, 1.5, (B, 4, 3)), 0, 1).astype(dtype)
    for p in Parameters(ell):
        p.value[...] = random.normal(size=p.value.shape) / 2
    return x, ell, program(ell).parts


def named(ell):
    return {n: [m for m in CompNodes(ell) if type(m).__name__ == n] for n in ("Affine", "Normal")}


def test_the_bound_and_its_gradient_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    x, ell, parts = model()
    Forward(ell, train=True)
    Backward(ell)
    e = torch.tensor(named(ell)["Normal"][0].value)
    weights = {p: torch.tensor(p.value, requires_grad=True) for p in Parameters(ell)}

    def affine(k, x):
        Phi = named(ell)["Affine"][k].Phi
        return x @ weights[Phi.w] - weights[Phi.b]

    v = torch.tensor(x.value).flatten(1)
    h = affine(0, v).relu()
    q = torch.distributions.Normal(affine(1, h), (affine(2, h) / 2).exp())
    z = q.loc + q.scale * e
    s = affine(4, affine(3, z).relu())
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1)
    binary = torch.nn.functional.binary_cross_entropy_with_logits
    reconstruction = binary(s, v, reduction="none").sum(1)
    np.testing.assert_allclose(parts["kl"].value, kl.detach(), rtol=1e-12)
    np.testing.assert_allclose(parts["reconstruction"].value, reconstruction.detach(), rtol=1e-12)
    np.testing.assert_allclose(ell.value, (kl + reconstruction).detach(), rtol=1e-12)
    (kl + reconstruction).mean().backward()
    for p, its in weights.items():
        np.testing.assert_allclose(p.grad, its.grad, rtol=1e-9, atol=1e-12)


def test_gradients_agree_with_finite_differences_through_the_draws():
    x, ell, parts = model(activation="tanh")
    with during(step=3, seed=2):
        compared, _ = check.gradients(ell, samples=None)
    assert compared == sum(p.value.size for p in Parameters(ell))


def test_the_bound_is_below_the_log_likelihood_and_the_kl_is_0_at_the_prior():
    """log p(x) by 50,000 draws of z from the prior; the bound is below it, on average."""
    x, ell, parts = model(B=1)
    x.value = np.round(x.value)
    Q = [n for n in CompNodes(ell) if type(n).__name__ == "Sigmoid"][0]
    Forward(ell)
    bound = np.mean([(Forward(ell, train=True), -ell.value[0])[1] for _ in range(200)])
    decoder = [n.Phi for n in named(ell)["Affine"][3:]]
    h = np.random.default_rng(0).normal(size=(50_000, 3)) @ decoder[0].w.value - decoder[0].b.value
    s = np.maximum(h, 0) @ decoder[1].w.value - decoder[1].b.value
    likelihood = np.exp(-np.logaddexp(0, (1 - 2 * x.value.reshape(1, -1)) * s).sum(axis=1)).mean()
    assert bound < np.log(likelihood) < 0 and Q.value.shape == (1, 12)
    for n in named(ell)["Affine"][1:3]:
        n.Phi.w.value[...], n.Phi.b.value[...] = 0, 0
    Forward(ell)
    assert parts["kl"].value.tolist() == [0.0]


def test_extreme_scores_keep_the_bound_finite_and_its_gradient():
    x, ell, parts = model()
    named(ell)["Affine"][-1].Phi.b.value[...] = 1e4 * (-1) ** np.arange(12)
    Forward(ell, train=True)
    Backward(ell)
    assert np.isfinite(ell.value).all() and all(np.isfinite(p.grad).all() for p in Parameters(ell))


# Parts of a loss.


@pytest.mark.parametrize("rows", [1, 600, 1500])
def test_the_parts_of_a_loss_have_the_same_bits_on_any_number_of_ranks(rows, tmp_path):
    random = np.random.default_rng(0)
    pair = random.random((rows, 4, 3), np.float32), np.arange(rows) % 3
    write(tmp_path / "rows.h5", **ABOUT, classes=3, train=pair, test=pair)

    def measured(ranks):
        data = Data(tmp_path / "rows.h5", 0)
        Q, ell = build(MODEL, data.x, data.y)
        Phi(ell)
        expect_fit(Q, ell, data)
        found = measure(Q, ell, data, data.test, ranks)
        assert found.accuracy is None and list(found.metrics) == ["reconstruction", "kl"]
        return found.loss, *found.metrics.values()

    (alone,) = on_ranks(1, measured)
    assert alone[0] == pytest.approx(alone[1] + alone[2], rel=1e-6) and alone[2] > 0
    for size in 2, 3, 4:
        assert on_ranks(size, measured) == [alone] * size


MINE = """from dpedf.ops import *
from dpedf.phi import dense


def net(x, y, **more):
    Q = Softmax(Affine(dense(12, 3), Flatten(x)))
    ell = LogLoss(Q, y)
    return Q, ell + 0 * Sum(Q), @
"""
RETURNED = {
    "[ell]": "model.build returned (Softmax, Add, list), expected two nodes",
    "{}, {}": "model.build returned (Softmax, Add, dict, dict), expected two nodes",
    "{'kl': Sum(Q)}": "returned {'kl': Sum} beside ell, expected a node that ell depends on",
    "{'kl': 1.0}": "returned {'kl': float} beside ell, expected a node that ell depends on",
    "{'loss': ell}": "returned {'loss': LogLoss} beside ell, expected another name",
    "{'mae': ell}": "returned {'mae': LogLoss} beside ell, expected another name",
    "{'a b': ell}": "returned {'a b': LogLoss} beside ell, expected another name",
    "{3: ell}": "returned {3: LogLoss} beside ell, expected another name",
    "{'own': Q}": "the own is (B, 3), expected (B,), the loss of each example",
    "{'own': ell}": None,
    "{}": None,
}


@pytest.mark.parametrize("returned", RETURNED)
def test_parts_that_are_none_of_the_loss_are_one_line(returned, tmp_path, refused):
    (tmp_path / "mine.py").write_text(MINE.replace("@", returned))
    pair = np.zeros((6, 4, 3), np.float32), np.arange(6) % 3
    write(tmp_path / "rows.h5", **ABOUT, classes=3, train=pair, test=pair)
    data = Data(tmp_path / "rows.h5", 0)

    def fitted():
        Q, ell = build({"build": f"{tmp_path}/mine.py:net"}, data.x, data.y)
        Phi(ell)
        expect_fit(Q, ell, data)

    if RETURNED[returned] is None:
        return fitted()
    with refused(RETURNED[returned]):
        fitted()


@pytest.mark.parametrize(
    "keywords, says",
    [
        ({"latent": 0}, "model.latent = 0, expected a positive integer"),
        ({"latent": 2.5}, "model.latent = 2.5, expected a positive integer"),
        ({"sizes": [12]}, "model.sizes = [12], expected a list of two or more"),
        ({"sizes": [13, 5]}, "model.sizes[0] = 13, expected 12"),
        ({"activation": "Relu"}, "perhaps relu"),
    ],
)
def test_sizes_of_a_vae_that_are_none_are_one_line(keywords, says, refused):
    with refused(says):
        build({**MODEL, **keywords}, Input((4, 3), np.float32), Input((), np.int64, 3))


@pytest.mark.parametrize("low, high, fits", [(0, 1, True), (-1.7, 1.8, False), (0, 255, False)])
def test_a_vae_of_numbers_beyond_0_and_1_is_one_line(low, high, fits, tmp_path, refused):
    x = np.linspace(low, high, 12 * 4, dtype=np.float32).reshape(4, 4, 3)
    write(tmp_path / "rows.h5", **ABOUT, classes=3, train=(x, np.arange(4) % 3), test=(x, [0] * 4))
    data = Data(tmp_path / "rows.h5", 0)
    Q, ell = build(MODEL, data.x, data.y)
    Phi(ell)
    with nullcontext() if fits else refused(f"x has numbers of {low:g} to {high:g}", "0 to 1"):
        expect_fit(Q, ell, data)


def test_a_vae_of_letters_is_one_line(refused):
    with refused("model.build = vae: x is int64, expected numbers in 0..1"):
        build(MODEL, Input((12,), np.int64, 65), Input((12,), np.int64, 65))


def test_a_vae_has_the_layers_of_its_sizes_in_both_directions():
    Q, ell, parts = models.vae(Input((4, 3), np.float32), None, [12, 9, 7], 2)
    Phi(ell)
    shapes = [p.value.shape for p in Parameters(ell) if p.value.ndim == 2]
    assert shapes == [(12, 9), (9, 7), (7, 2), (7, 2), (2, 7), (7, 9), (9, 12)]
    assert Q.value.shape == (0, 12) and [*parts] == ["reconstruction", "kl"]


# A run.


def test_a_small_vae_learns_and_its_parts_are_told_wherever_its_loss_is(digits, python, tmp_path):
    run, config = tmp_path / "run", ROOT / "configs" / "vae.toml"
    words = f"data.file={digits}", "data.valid=200", "model.sizes=[64,48]", "model.latent=4"
    done = python("-m", "dpedf.train", config, f"run.dir={run}", *words)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluated, (test,) = ([e for e in events if e["event"] == kind] for kind in ("eval", "test"))
    for name, e in *(("valid", e) for e in evaluated), ("test", test):
        parts = e[f"{name}_kl"] + e[f"{name}_reconstruction"]
        assert e[f"{name}_loss"] == pytest.approx(parts, rel=1e-6) and e[f"{name}_accuracy"] is None
    losses = [e["valid_loss"] for e in evaluated]
    assert losses[-1] < losses[0] - 5 and evaluated[-1]["valid_kl"] > 0.5
    assert f", kl {test['test_kl']:.4f}, after the last step\n" in done.stdout
    last = "--checkpoint", "checkpoint.h5"
    told = python("-m", "dpedf", "evaluate", run, *last).stdout.splitlines()
    assert f"test loss {test['test_loss']:.4f}" in told, told
    assert f"test reconstruction {test['test_reconstruction']:.4f}" in told, told
    assert (
        python(
            "-m", "dpedf", "predict", run, digits, "--split", "test", "-o", tmp_path / "out.h5"
        ).returncode
        == 0
    )
    with h5py.File(tmp_path / "out.h5") as file:
        (name,) = file
        assert (
            file[name].shape == (360, 64)
            and 0 <= file[name][...].min() < file[name][...].max() <= 1
        )
    made_up = module_of("examples/vae_samples.py")
    found = [made_up.samples(made_up.Trained(run, made_up.CPU()), 5, seed) for seed in (0, 0, 1)]
    assert found[0].shape == (5, 8, 8) and found[0].tobytes() == found[1].tobytes()
    assert found[0].min() >= 0 and found[0].max() <= 1 and np.ptp(found[0], axis=0).max() > 0.01
    assert not np.array_equal(found[0], found[2])


def test_samples_are_drawn_from_the_prior_where_the_encoder_is_frozen_too():
    found, draw = [], module_of("examples/vae_samples.py").samples
    for freeze in [], ["Phi1", "mean", "log_variance"]:
        x, y = Input((6,), np.float64), Input((), np.intp, 3)
        settings = {"build": "vae", "sizes": [6, 5], "latent": 2, "freeze": freeze}
        Q, ell = build(settings, x, y)
        Phi(ell, dtype=np.float64)
        for p in program(ell).parameters + program(ell).frozen:
            p.value += 1
        found.append(draw(SimpleNamespace(Q=Q, ell=ell, x=x), 4, 0).tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 9), (8, 9, 3), (64,), (12,), (2, 8, 8)], ids=str)
def test_samples_of_colours_and_vectors_are_drawn_and_others_are_one_line(shape):
    pytest.importorskip("matplotlib", reason="it draws")
    x, y = Input(shape, np.float32), Input((), np.int64, 3)
    settings = {"build": "vae", "sizes": [int(np.prod(shape)), 7], "latent": 2}
    Q, ell = build(settings, x, y)
    Phi(ell)
    model = SimpleNamespace(Q=Q, ell=ell, x=x, run="run", settings=SimpleNamespace(model=settings))
    drawing = module_of("examples/vae_samples.py")
    drawing.ROWS, drawing.COLUMNS = 1, 2
    if shape in [(12,), (2, 8, 8)]:
        with pytest.raises(ValueError, match="of .* expected"):
            drawing.pictured(model, 0)
    else:
        assert len(drawing.pictured(model, 0).axes) == 2
