"""Update rules and schedules in a file of the user's own, beside those of dpedf."""

import hashlib
import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from launcher import mpirun
from shipped import ROOT
from test_checkpoint import model
from test_own_code import as_before  # noqa: F401
from test_resume import CONFIG
from trainings import Trainings

from dpedf import optim
from dpedf.parallel.ranks import Ranks
from dpedf.run import config
from dpedf.run.checkpoint import read
from dpedf.run.resume import Identity
from dpedf.run.rules import schedule, update_rule
from dpedf.run.settings.pointless import pointless
from dpedf.run.settings.sections import TrainSection
from dpedf.run.setup import Setup
from dpedf.tools import source

RULES = '''
import math
import time

import numpy as np


def momentum(phi, eta, step, train, v):
    v *= train.momentum
    v += phi.grad + train.weight_decay * phi.value
    phi.value -= eta * v


def adam(phi, eta, step, train, m, v):
    (beta1, beta2), t = train.betas, step + 1
    m += (1 - beta1) * (phi.grad - m)
    v += (1 - beta2) * (np.square(phi.grad) - v)
    phi.value -= eta * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + train.epsilon)


def on_the_host(phi, eta, step, train, v):
    v *= 1 - 1 / math.sqrt(step + 4)
    v += phi.grad
    phi.value -= eta * v


def every_fifth(phi, eta, step, train, slow):
    """Lookahead, Zhang et al., 2019."""
    phi.value -= eta * phi.grad
    if (step + 1) % 5 == 0:
        slow += 0.5 * (phi.value - slow)
        phi.value[...] = slow


def sgd_by_part(phi, eta, step, train):
    for p, part in zip(phi.parameters, phi.views(phi.grad)):
        p.value -= (0.1 if p.name.endswith("b") else 1) * eta * part


def new_array(phi, eta, step, train):
    phi.value = phi.value - eta * phi.grad


def new_gradient(phi, eta, step, train):
    phi.grad = phi.grad + 1
    phi.value -= eta * phi.grad


def returning(phi, eta, step, train):
    return phi.value - eta * phi.grad


def forgetful(phi, eta, step, train, v):
    v = 0.9 * v + phi.grad
    phi.value -= eta * v


def idle(phi, eta, step, train):
    Phi = phi.value
    Phi = Phi - eta * phi.grad


def random(phi, eta, step, train):
    phi.value -= eta * np.random.normal(size=len(phi.grad))


def counting(phi, eta, step, train, calls=[]):
    phi.value -= eta * phi.grad


def many(phi, eta, step, train, *more):
    phi.value -= eta * phi.grad


def other(phi, grad, eta):
    phi.value -= eta * grad


class Rule:
    pass


def faulty(phi, eta, step, train):
    phi.value -= eta * phi.gradient


def root(step, steps, train):
    return train.learning_rate / math.sqrt(step + 1)


def falling(step, steps, train):
    return train.learning_rate * train.decay_rate ** (step / train.decay_steps)


def cosine(step, steps, train):
    low, high = train.min_learning_rate, train.learning_rate
    return low + (high - low) * (1 + math.cos(math.pi * step / steps)) / 2


def half(step, steps, train):
    return np.array(0.25)


def torchlike(phi, eta, step, train, m):
    m *= train.momentum if step else 0
    m += phi.grad
    phi.value -= eta * m


def averaged(phi, eta, step, train, mean):
    phi.value -= eta * phi.grad
    if step >= 100:
        phi.value *= 1 - train.weight_decay
        mean += (phi.value - mean) / (step - 99)


def random_later(phi, eta, step, train):
    phi.value -= eta * (phi.grad + (np.random.standard_normal(len(phi.grad)) if step > 2 else 0))


def late(step, steps, train):
    return math.nan if step == 11 else 0.1


def array(step, steps, train):
    return np.ones(3)


def nothing(step, steps, train):
    pass


def negative(step, steps, train):
    return 0.5 - step


def endless(step, steps, train):
    return math.inf


def clock(step, steps, train):
    return time.perf_counter() % 1


def huge(step, steps, train):
    return 10**400


def backwards(steps, step, train):
    return 0.1


def more(step, steps, train, rate):
    return rate
'''

CONFIG += 'optimizer = "mine.py:adam"\nschedule = "its.py:cosine"\n'


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The folder with mine.py, where the process is."""
    (tmp_path / "mine.py").write_text(RULES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(optimizer="sgd", **settings):
    settings = {"batch_size": 1, "learning_rate": 0.8} | settings
    return TrainSection(optimizer=optimizer, **settings)


def after(update, phi, steps=7):
    """Phi, after some steps of a rule with gradients at random."""
    random = np.random.default_rng(1)
    for step in range(steps):
        phi.grad[...] = random.normal(size=phi.grad.shape)
        update(phi.value.dtype.type(0.1 / (step + 1)), step)
    return phi.value.copy()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "own, theirs, settings",
    [
        ("momentum", "sgd", {"momentum": 0.75, "weight_decay": 0.125}),
        ("adam", "adam", {"betas": (0.5, 0.75), "epsilon": 0.01}),
    ],
)
def test_a_rule_of_ones_own_does_what_it_says(mine, own, theirs, settings, dtype):
    ours, expected = model(seed=3, dtype=dtype), model(seed=3, dtype=dtype)
    rule = update_rule(ours, train(f"mine.py:{own}", **settings))
    found = after(rule, ours)
    expected = after(optim.update_rule(expected, train(theirs, **settings)), expected)
    assert found.dtype == dtype and rule.phi.value.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=2e-5 if dtype == "float32" else 1e-12)


def test_a_rule_that_is_tried_leaves_phi_and_what_it_remembers_as_they_were(mine):
    phi, before = model(seed=3), model(seed=3).value
    for name in "adam", "every_fifth", "sgd_by_part":
        rule = update_rule(phi, train(f"mine.py:{name}", momentum=0.0))
        assert phi.value.tobytes() == before.tobytes() and not phi.grad.any()
        assert not any(vector.any() for vector in rule.state.values())
    assert not phi.skipped[0]


def test_a_rule_finds_the_parameters_by_name(mine):
    phi = model(seed=3)
    before, update = phi.value.copy(), update_rule(phi, train("mine.py:sgd_by_part"))
    phi.grad.fill(1)
    update(0.5, 0)
    for p, was in zip(phi.parameters, phi.views(before), strict=True):
        moved = 0.05 if p.name.endswith("b") else 0.5
        np.testing.assert_allclose(was - p.value, moved, rtol=1e-5)


def test_after_a_loss_that_was_not_finite_a_rule_is_not_called(mine):
    phi = model(seed=3)
    update = update_rule(phi, train("mine.py:momentum", momentum=0.5))
    after(update, phi)
    vectors = phi.value, *update.state.values()
    before = [vector.copy() for vector in vectors]
    phi.failed.fill(np.nan)
    after(update, phi, 3)
    assert [v.tobytes() for v in vectors] == [v.tobytes() for v in before]
    assert phi.skipped[0] == 3


WRONG_RULES = {
    "new_array": ["mine.py:new_array gives phi another value", "phi.value[...]"],
    "new_gradient": ["gives phi another grad"],
    "returning": ["returns ndarray", "expected nothing"],
    "random_later": ["something else when it is called again"],
    "idle": ["does not change phi.value", "phi.value -= ..."],
    "random": ["something else when it is called again"],
    "counting": ["a parameter calls=[]", "just a name"],
    "many": ["a parameter *more"],
    "other": ["expected a procedure of (phi, eta, step, train, ...)"],
    "Rule": ["expected a procedure of (phi, eta, step, train, ...)"],
    "no_such": ["expected a procedure of (phi, eta, step, train, ...)"],
}


@pytest.mark.parametrize("name", WRONG_RULES)
def test_a_rule_that_cannot_work_is_one_line(mine, name, refused):
    phi, before = model(seed=3), model(seed=3).value
    with refused(f"mine.py:{name}", *WRONG_RULES[name][name in WRONG_RULES[name][0] :]):
        update_rule(phi, train(f"mine.py:{name}"))
    if name not in ("new_array", "new_gradient"):
        assert phi.value.tobytes() == before.tobytes()


def test_a_fault_in_a_rule_is_raised_where_it_is(mine):
    with pytest.raises(AttributeError, match="gradient") as raised:
        update_rule(model(), train("mine.py:faulty"))
    assert raised.traceback[-1].path.name == "mine.py"


def test_what_a_rule_does_not_read_is_refused(mine, refused):
    of_parts = {"rates": {"Phi1": 0.1}}, {"decay": "matrices"}
    for settings in {"weight_decay": 0.1}, {"betas": (0.5, 0.5)}, {"nesterov": True}, *of_parts:
        name = "adam" if "betas" not in settings else "momentum"
        with refused(f"train.{[*settings][0]} = ", f"is not read by mine.py:{name}"):
            update_rule(model(), train(f"mine.py:{name}", **settings))


@pytest.mark.parametrize(
    "name, settings, said",
    [
        ("torchlike", {"momentum": 0.5}, []),
        ("forgetful", {}, ["does not change v in 64 steps, expected v[...] = ..."]),
        (
            "averaged",
            {"weight_decay": 0.5},
            ["weight_decay = 0.5 is not", "change mean in 64"],
        ),
    ],
)
def test_what_only_later_steps_may_do_is_no_fault(mine, name, settings, said):
    notes = []
    update_rule(model(), train(f"mine.py:{name}", **settings), notes.append)
    assert len(notes) == len(said) and all(a in b for a, b in zip(said, notes, strict=True))


def test_a_schedule_of_ones_own_begins_after_the_warm_up(mine):
    for warmup in 0, 1, 4, 30:
        settings = {"warmup_steps": warmup, "min_learning_rate": 0.125}
        ours, theirs = (
            schedule(train(schedule=name, **settings), 20) for name in ("mine.py:cosine", "cosine")
        )
        found, expected = ([eta(step) for step in range(20)] for eta in (ours, theirs))
        np.testing.assert_allclose(found, expected, rtol=1e-15)


def test_the_warm_up_rises_to_the_first_number_of_the_schedule(mine):
    eta = schedule(train(schedule="mine.py:half", warmup_steps=2), 5)
    assert [eta(step) for step in range(5)] == [0.125, 0.25, 0.25, 0.25, 0.25]
    assert {type(eta(step)) for step in range(5)} == {float}


WRONG_SCHEDULES = {
    "late": "returns nan for step 11 of 20",
    "array": "returns ndarray for step 0 of 20",
    "nothing": "returns NoneType for step 0",
    "negative": "returns -0.5 for step 1 of 20",
    "endless": "returns inf for step 0",
    "clock": "another number for step 0 when it is called again",
    "huge": "returns 100000000000",
    "backwards": "expected a procedure of (step, steps, train) in that file",
    "more": "expected a procedure of (step, steps, train) in that file",
}


@pytest.mark.parametrize("name", WRONG_SCHEDULES)
def test_a_schedule_that_cannot_work_is_one_line(mine, name, refused):
    with refused(f"mine.py:{name}", WRONG_SCHEDULES[name]):
        schedule(train(schedule=f"mine.py:{name}"), 20)


def test_a_rate_that_is_wrong_in_a_step_that_nobody_looked_at_ends_the_run_there(mine, refused):
    eta = schedule(train(schedule="mine.py:late"), 1000)
    assert eta(10) == eta(999) == 0.1
    with refused("mine.py:late", "returns nan for step 11"):
        eta(11)


def test_a_setting_that_only_a_rule_of_ones_own_reads_is_not_called_pointless(mine):
    """Where it is not read, it is refused."""
    data = SimpleNamespace(train=range(80), valid=range(10), stored=SimpleNamespace(has=len))
    settings = SimpleNamespace(data=SimpleNamespace(valid=0))
    for name in "mine.py:falling", "constant":
        keywords = {"schedule": name, "batch_size": 8, "epochs": 9, "decay_steps": 5}
        settings.train = train("mine.py:adam", nesterov=True, **keywords)
        assert len([*pointless(settings, data, 1)]) == (name == "constant")
    assert schedule(train(schedule="mine.py:falling", decay_steps=5), 20)(5) == 0.8 * 0.1


def test_a_rate_that_a_schedule_does_not_read_is_refused(mine, refused):
    for name, value in {"min_learning_rate": 0.1, "decay_steps": 5, "decay_rate": 0.5}.items():
        with refused(f"train.{name} = {value}", "is not read by mine.py:root"):
            schedule(train(schedule="mine.py:root", **{name: value}), 20)


@pytest.mark.parametrize("wrong", ["nowhere.py:rule", "mine.txt:rule"])
def test_a_file_that_is_not_there_is_one_line(mine, wrong, refused):
    with refused(wrong.partition(":")[0], "expected path/to/file.py:procedure"):
        update_rule(model(), SimpleNamespace(optimizer=wrong))


def test_one_file_of_model_rule_and_schedule_is_run_once_and_again_when_it_changes(mine):
    (mine / "seen.py").write_text("")
    text = "import pathlib, seen\nwith open('runs', 'a') as file: file.write('1')\n"
    (mine / "mine.py").write_text(text + RULES)
    section = train("mine.py:adam", schedule="mine.py:root")
    for change, runs in (None, "1"), (None, "1"), ("mine.py", "11"), ("seen.py", "111"):
        if change:
            (mine / change).write_text((mine / change).read_text() + "\n# changed")
        update_rule(model(), section)
        schedule(section, 20)
        assert (mine / "runs").read_text() == runs


def test_a_schedule_that_a_checkpoint_names_is_not_run(mine):
    """Where the run has another one by now."""
    (mine / "of_a_checkpoint.py").write_text("raise SystemExit('this was run')\n")
    old = SimpleNamespace(train=train(schedule="of_a_checkpoint.py:eta", epochs=1))
    for name in "constant", "mine.py:root":
        now = Identity.__new__(Identity)
        now.rows, now.settings = 80, SimpleNamespace(train=train(schedule=name, epochs=1))
        assert [*now.rate(old, 3)] == []
    assert "of_a_checkpoint" not in str(sys.modules.keys())


def test_code_that_has_changed_is_said_when_a_run_goes_on(mine):
    (mine / "its.py").write_text(RULES)
    (mine / "c.toml").write_text(CONFIG)
    settings = config.load("c.toml")

    def identity():
        found = Identity(settings, 80)
        found.learns_by()
        return found

    saved = identity().texts()
    assert identity().compare({"step": 3, **saved}) == []
    for name in "mine.py:adam", "its.py:cosine":
        file = mine / name.partition(":")[0]
        file.write_text(f"{file.read_text()}\n# changed")
        line = f"{name} has changed, or what it imports from its folder"
        assert identity().compare({"step": 3, **saved}) == [line]
        saved = identity().texts()


def test_what_a_rule_imports_is_its_code_and_not_that_of_a_model_beside_it(mine, few_digits):
    (mine / "model.py").write_text("from dpedf.models import mlp\n\n\n" + MODEL)
    (mine / "its.py").write_text("import helper\n" + RULES)
    (mine / "c.toml").write_text(CONFIG.replace("digits.h5", str(few_digits)))
    words = "c.toml", "model={build='model.py:model'}", "train.optimizer=its.py:adam"
    found = set()
    for text in "", "changed = 1":
        (mine / "helper.py").write_text(text)
        identity = Setup(words, Ranks()).directory.identity
        assert identity.code == hashlib.sha256((mine / "model.py").read_bytes()).hexdigest()
        found.add(identity.rules["optimizer_code"])
    assert len(found) == 2


MODEL = """
def model(x, y):
    return mlp(x, y, [64, 10])
"""


def test_the_listing_names_a_rule_and_what_it_works_on(mine, few_digits, capsys):
    words = f"data.file={few_digits}", "data.valid=20", "train.optimizer=mine.py:adam"
    none = "train.nesterov=false", "train.momentum=0"
    source.main([str(ROOT / "configs" / "digits.toml"), *words, *none])
    *_, line, total = capsys.readouterr().out.splitlines()
    assert line.split()[1:] == ["Phi", "<-", "mine.py:adam", "of", "Phi.grad,", "eta,", "m,", "v"]
    assert "all of these" in total


def test_a_rule_may_lie_at_home(mine, monkeypatch):
    monkeypatch.setenv("HOME", str(mine / "home"))
    text = CONFIG.replace('"mine.py', '"~/mine.py').replace('"its.py', '"~/its.py')
    (mine / "c.toml").write_text(text)
    found = config.load("c.toml").train
    assert found.optimizer == f"{mine}/home/mine.py:adam"
    assert found.schedule == f"{mine}/home/its.py:cosine"


@pytest.mark.parametrize(
    "word, expected",
    [
        ("optimizer=adamm", 'or path/to/file.py:rule, perhaps "adam"'),
        ("optimizer=mine.py", "one of sgd, adam, adamw, rmsprop, or path/to/file.py:rule"),
        ("schedule=mine.py:", "linear, cosine, onecycle, or path/to/file.py:schedule"),
        ("schedule=cosin", 'or path/to/file.py:schedule, perhaps "cosine"'),
    ],
)
def test_an_unknown_name_is_answered_with_all_that_are_possible(mine, word, expected, refused):
    (mine / "c.toml").write_text(CONFIG)
    with refused("c.toml", f"train.{word.split('=')[0]} = ", expected):
        config.load("c.toml", [f"train.{word}"])


# Whole runs.

ADAM = "train.learning_rate=0.01", "train.optimizer=mine.py:adam", "train.schedule=mine.py:root"


@pytest.fixture(scope="module")
def runs(tmp_path_factory, environment, simulated, few_digits):
    """runs(where): runs(name, n) of those below, of n ranks, on "cpu" or on a simulated "gpu"."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.py").write_text(RULES)

    def launch(variables):
        return lambda n, *words: mpirun(n, *words, env=variables, cwd=folder)

    def add(here, name, steps, *words):
        data = f"data.file={few_digits}", "data.valid=20", "train.precision=float64"
        stop = "train.epochs=0", f"train.steps={steps}", "run.log_every=1"
        none = "train.nesterov=false", "train.momentum=0"  # which the config has for its sgd
        here.add([1, 2], name, ROOT / "configs" / "digits.toml", *data, *stop, *none, *words)

    found = {}
    for device, variables in ("cpu", environment), ("gpu", simulated):
        (folder / device).mkdir()
        found[device] = here = Trainings(folder / device, launch(variables))
        for name, *words in RUNS:
            add(here, name, *words, f"run.device={device}")
    return found


DIVERGES = "train.learning_rate=1e9", "train.precision=float32", "run.log_every=10"
RUNS = [
    ("whole", 8, *ADAM),
    ("stopped", 3, *ADAM),
    ("stopped: goes on", 8, *ADAM, "--resume"),
    ("launched", 8, *ADAM, "run.capture=off"),
    ("on the host", 4, "train.optimizer=mine.py:on_the_host"),
    ("diverges", 12, "train.optimizer=mine.py:momentum", *DIVERGES),
]


def test_a_run_with_a_rule_of_ones_own_goes_on_as_if_it_had_not_stopped(runs):
    whole, again = (runs["cpu"](name) for name in ("whole", "stopped: goes on"))
    assert whole.phi_sha256 == again.phi_sha256
    one, other = (read(run.directory / "checkpoint.h5")["rest"] for run in (whole, again))
    for name in "rule.m", "rule.v":
        assert one[name].any() and one[name].tobytes() == other[name].tobytes()
    rates = [json.loads(line)["learning_rate"] for line in metrics(again) if '"train"' in line]
    np.testing.assert_allclose(rates, 0.01 / np.sqrt(np.arange(1, 9)))


def metrics(run):
    return (run.directory / "metrics.jsonl").read_text().splitlines()


def test_a_rule_of_ones_own_has_the_same_bits_on_any_number_of_ranks(runs):
    for name in "whole", "stopped: goes on":
        assert runs["cpu"](name, 2).phi_sha256 == runs["cpu"]("whole").phi_sha256


def test_on_a_gpu_a_rule_is_recorded_and_computes_what_it_does_on_the_cpu(runs):
    def vectors(device, name):
        found = read(runs[device](name).directory / "checkpoint.h5")
        return [found["phi"], found["rest"]["rule.m"], found["rest"]["rule.v"]]

    for name in "whole", "stopped: goes on", "launched":
        for found, expected in zip(vectors("gpu", name), vectors("cpu", "whole"), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)
    assert "kernel by kernel" not in runs["gpu"]("whole").output


def test_a_rule_that_cannot_be_recorded_is_launched_kernel_by_kernel_and_a_line_says_so(runs):
    run = runs["gpu"]("on the host")
    assert run.output.count("launched kernel by kernel") == 1
    found, expected = (
        read(r.directory / "checkpoint.h5")["phi"] for r in (run, runs["cpu"]("on the host"))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


def test_on_a_gpu_no_rule_changes_anything_after_a_loss_that_was_not_finite(runs):
    for device in "cpu", "gpu":
        assert runs[device]("whole")
    lines = [runs[device].jobs[1].stderr.splitlines() for device in ("cpu", "gpu")]
    (here,), (there,) = ([line for line in its if "not finite" in line] for its in lines)
    assert here.startswith("step 3, epoch 1: the loss is not finite")
    digit = re.compile(r"\d(?=e\+)")  # the last one of |Phi|, which a device rounds otherwise
    assert digit.sub("", here) == digit.sub("", there)
