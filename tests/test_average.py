"""The average of Phi, and what parts of Phi have of their own: whole runs, whose bits stay."""

import json

import numpy as np
import pytest
from launcher import mpirun
from shipped import ROOT
from test_checkpoint import model
from trainings import Trainings

from dpedf.data.part import Part
from dpedf.device import CPU
from dpedf.parallel.ranks import Ranks
from dpedf.run.average import Averaged, averaged
from dpedf.run.checkpoint import read
from dpedf.run.evaluate import measure
from dpedf.run.rules import update_rule
from dpedf.run.settings.sections import TrainSection
from dpedf.run.trained import Trained
from dpedf.run.weights import of_checkpoint
from dpedf.tools import source


def made(phi, decay, steps, **settings):
    """The rule after some steps, and Phi after each of them."""
    train = TrainSection(batch_size=1, learning_rate=1.0, **settings)
    rule, random, found = Averaged(update_rule(phi, train), decay), np.random.default_rng(1), []
    for step in range(steps):
        phi.grad[...] = random.normal(size=phi.grad.shape)
        rule(0.1, step)
        found.append(phi.value.copy())
    return rule, found


def test_the_average_is_that_of_pytorch():
    torch = pytest.importorskip("torch", reason="the reference is PyTorch")
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    for decay in 0.0, 0.25, 0.9, 0.999:
        rule, values = made(model(dtype="float64"), decay, 9, optimizer="adam")
        theirs = torch.nn.ParameterList([torch.zeros(len(values[0]), dtype=torch.float64)])
        ema = AveragedModel(theirs, multi_avg_fn=get_ema_multi_avg_fn(decay))
        for value in values:
            theirs[0].data[...] = torch.tensor(value)
            ema.update_parameters(theirs)
        np.testing.assert_allclose(rule.mean, ema.module[0].detach(), rtol=1e-12, atol=1e-15)


def test_the_weights_of_the_steps_are_powers_and_add_up_to_1():
    n, decay = 7, 0.75
    rule, values = made(model(dtype="float64"), decay, n)
    weights = (1 - decay) * decay ** np.arange(n - 1.0, -1, -1)
    weights[0] = decay ** (n - 1)
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(rule.mean, weights @ values, rtol=1e-12, atol=1e-14)


def test_inside_phi_has_the_numbers_of_its_average_and_afterwards_its_own():
    phi = model()
    rule, values = made(phi, 0.5, 3)
    with averaged(rule):
        assert phi.value.tobytes() == rule.mean.tobytes() != values[-1].tobytes()
        assert phi.parameters[0].value.tobytes() == rule.mean[: phi.parts[0].size].tobytes()
    assert phi.value.tobytes() == values[-1].tobytes()
    with averaged(rule.rule):
        assert phi.value.tobytes() == values[-1].tobytes()


def test_a_step_that_failed_is_in_no_average():
    phi = model()
    rule, _ = made(phi, 0.5, 3)
    before = rule.mean.copy()
    phi.failed.fill(np.nan)
    phi.value.fill(np.nan)
    rule(0.1, 3)
    assert rule.mean.tobytes() == before.tobytes() and phi.skipped[0] == 1


def test_the_listing_says_what_is_averaged_and_what_parts_have_of_their_own(few_digits, capsys):
    config = ROOT / "configs" / "digits_mlp.toml"
    source.main([str(config), f"data.file={few_digits}", "data.valid=20", *SGD])
    *_, rates, zero, decay, mean, _ = map(str.strip, capsys.readouterr().out.splitlines())
    assert (rates, zero) == ("eta is 0.25 eta in Phi2", "eta is 0 eta in Phi3.b")
    assert decay == "without 0.01 Phi in parameters of fewer than two indices"
    assert mean == "mean <- 0.9 mean + (1 - 0.9) Phi"


# Whole runs.

PARTS = "train.rates.Phi2=0.25", "train.rates.Phi3.b=0", "train.decay=matrices"
ALL = *PARTS, "train.average=0.9", "train.weight_decay=0.01", "train.grad_clip=1"
SGD = *ALL, "train.schedule=constant"
ADAM = *ALL, "train.optimizer=adamw", "train.momentum=0", "train.nesterov=false"
ADAM = *ADAM, "train.learning_rate=0.01", "train.warmup_steps=4", "train.schedule=constant"
RUNS = [  # after which steps, and of how many ranks on a CPU
    ("sgd", 5, [1, 3], *SGD),
    ("adam", 5, [1], *ADAM),
    ("again", 2, [1, 3], *ADAM),
    ("again: goes on", 5, [1, 3], *ADAM, "--resume"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, environment, simulated, few_digits):
    """runs(where): runs(name, n) of those below, of n ranks, on "cpu" or on a simulated "gpu"."""
    found = {}
    for device, variables in ("cpu", environment), ("gpu", simulated):
        folder = tmp_path_factory.mktemp(device)
        found[device] = Trainings(
            folder, lambda n, *words, env=variables: mpirun(n, *words, env=env)
        )
        for name, steps, ranks, *words in RUNS if device == "cpu" else RUNS[2:]:
            stop = "train.epochs=0", f"train.steps={steps}", "train.eval_every=3"
            data = f"data.file={few_digits}", "data.valid=20", f"run.device={device}"
            config = ROOT / "configs" / "digits_mlp.toml"
            small = "model.sizes=[64,8,8,10]", "train.batch_size=16"
            found[device].add(ranks, name, config, *data, *small, *stop, *words)
    return found


def kept(run, name="checkpoint.h5"):
    """{name: vector} of a checkpoint."""
    found = read(run.directory / name)
    return {k: v for k, v in found["rest"].items() if k in ("average", "v", "m")} | {
        "phi": found["phi"]
    }


def test_every_bit_is_the_same_on_any_number_of_ranks_and_as_a_run_goes_on(runs):
    for name in "sgd", "adam":
        whole = kept(runs["cpu"](name))
        others = [("again: goes on", 1), ("again: goes on", 3)]
        for other, n in others if name == "adam" else [("sgd", 3)]:
            for file in "checkpoint.h5", "best.h5":
                expected, found = kept(runs["cpu"](name), file), kept(runs["cpu"](other, n), file)
                assert expected.keys() == found.keys() == whole.keys()
                assert all(found[k].tobytes() == expected[k].tobytes() for k in expected)
        assert not np.allclose(whole["average"], whole["phi"], rtol=1e-3)


def test_on_a_gpu_recorded_steps_compute_what_the_cpu_does(runs):
    expected, run = kept(runs["cpu"]("adam")), runs["gpu"]("again: goes on")
    found = kept(run)
    assert "kernel by kernel" not in run.output
    for key in expected:
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-3, atol=2e-6)


def test_a_run_evaluates_its_average_and_who_opens_it_finds_the_average(runs, few_digits):
    run = runs["cpu"]("sgd")
    best = read(run.directory / "best.h5")
    opened = Trained(run.directory, CPU())
    assert opened.phi.value.tobytes() == best["rest"]["average"].tobytes()
    assert "the average of Phi, of train.average = 0.9" in opened.notes
    parts = of_checkpoint(best)
    assert parts["Phi1.b"].tobytes() == opened.phi.parameters[1].value.tobytes()
    last = Trained(run.directory, CPU(), "checkpoint.h5")
    assert last.phi_sha256 == run.phi_sha256 != last.phi.sha256()
    part = Part(few_digits, last.form, last.x, last.y, last.settings.data, last.device)
    part.open_split("test", last.settings.seed)
    found = measure(last.Q, last.ell, part, part.rows, Ranks(), last.rows)
    told = json.loads((run.directory / "metrics.jsonl").read_text().splitlines()[-1])
    assert (found.loss, found.accuracy) == (told["test_loss"], told["test_accuracy"])


def test_a_parameter_whose_rate_is_0_stays_as_it_starts(runs):
    phi, parameters = (
        read(runs["cpu"]("sgd").directory / "checkpoint.h5")[k] for k in ("phi", "parameters")
    )
    offset, (n,) = parameters["Phi3.b"]
    assert not phi[offset : offset + n].any()
    offset, (n,) = parameters["Phi2.b"]
    assert phi[offset : offset + n].any()
