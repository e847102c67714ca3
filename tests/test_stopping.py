"""Early stopping: train.patience evaluations without a lower loss of validation end a run."""

import json
from math import inf, isnan, nan
from types import SimpleNamespace

import pytest
from launcher import mpirun
from shipped import ROOT
from trainings import Trainings

from dpedf.run import config
from dpedf.run.last_lines import limits
from dpedf.run.saves import Saves
from dpedf.run.setup import assemble
from dpedf.tools.experiments.past import PastRun


class Told:
    """As much of a run as it takes to compare losses."""

    def __init__(self):
        self.step = SimpleNamespace(number=0)
        self.report = SimpleNamespace(say=lambda line: None)


class Counting(Saves):
    """Saves nothing."""

    def save(self, name, training):
        pass


def ended_at(losses, patience, cut=None):
    """After how many of these losses a run ends; None: after none.

    cut: the run is stopped after so many, and goes on from what was saved.
    """
    training, saves = Told(), Counting(1000, {}, patience)
    for number, loss in enumerate(losses, 1):
        training.step.number = number
        saves.compare(training, loss)
        if saves.out_of_patience:
            return number
        if number == cut:
            saves = Counting(1000, {k: getattr(saves, k) for k in KEPT}, patience)
    return None


KEPT = "best", "best_step", "since_best"


def by_keras(losses, patience):
    """The same, as keras.callbacks.EarlyStopping counts."""
    best, wait = inf, 0
    for number, loss in enumerate(losses, 1):
        wait += 1
        if loss < best:
            best, wait = loss, 0
        elif wait >= patience > 0 and number > 1:
            return number
    return None


@pytest.mark.parametrize(
    "losses",
    [
        [3, 2, 1],
        [3, 2, 2, 2, 2, 2],
        [3, 4, 2, 5, 6, 1, 7, 8, 9, 0],
        [nan, 3, nan, nan, 2, inf, nan, 2, 2],
        [nan] * 5,
        [1, 1 + 1e-15, 1 - 1e-15, 1, 1],
    ],
)
def test_evaluations_are_counted_as_keras_does_wherever_a_run_was_stopped(losses):
    for patience in range(6):
        for cut in None, 1, 2, 3, 4:
            assert ended_at(losses, patience, cut) == (
                1 if patience == 1 and isnan(losses[0]) else by_keras(losses, patience)
            )  # Keras alone goes on after its first epoch, whatever the loss is


def test_a_finished_run_names_every_setting_that_has_ended_it():
    saves = Saves(1000, {"since_best": 2}, patience=2)
    for number, patience, expected in [
        (15, 2, "train.steps and train.patience"),
        (10, 2, "train.patience"),
        (15, 3, "train.steps"),
    ]:
        saves.patience, step = patience, SimpleNamespace(number=number)
        settings = SimpleNamespace(train=SimpleNamespace(steps=15))
        ended = SimpleNamespace(settings=settings, step=step, saves=saves, last_step=15)
        assert limits(ended) == expected


def test_patience_takes_rows_to_validate_on(digits, refused):
    words = f"data.file={digits}", "data.valid=0", "train.patience=3"
    settings = config.load(ROOT / "configs" / "digits_mlp.toml", words)
    with refused("train.patience = 3: no rows to validate on", "data.valid"):
        assemble(settings, SimpleNamespace(put=lambda array: array, unit="cpu"))


# Whole runs.  At a learning rate of 0, no evaluation is better than the first one.

STAYS = "train.learning_rate=0", "train.eval_every=3"
RUNS = [
    ("early", "train.patience=2", *STAYS),
    ("early: again", "train.patience=2", "train.epochs=60", *STAYS, "--resume"),
    ("early: more patient", "train.patience=4", *STAYS, "--resume"),
    ("cut", "train.patience=3", "train.steps=6", *STAYS),
    ("cut: goes on", "train.patience=3", *STAYS, "--resume"),
    ("learns", "train.patience=3", "train.steps=9", "train.eval_every=3"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, environment, few_digits):
    """runs(name, n): how one of those above ended, on n ranks."""

    def launch(n, *words):
        return mpirun(n, *words, env=environment)

    trainings = Trainings(tmp_path_factory.mktemp("stopping"), launch)
    for name, *words in RUNS:
        data = f"data.file={few_digits}", "data.valid=20"
        trainings.add([1, 2], name, ROOT / "configs" / "digits_mlp.toml", *data, *words)
    return trainings


def events(run, kind):
    lines = (run.directory / "metrics.jsonl").read_text().splitlines()
    return [its["step"] for its in map(json.loads, lines) if its["event"] == kind]


@pytest.mark.parametrize("n", [1, 2])
def test_a_run_ends_when_patience_does_and_is_finished(runs, n):
    first, again, more = (
        runs(name, n) for name in ("early", "early: again", "early: more patient")
    )
    why = "no lower valid loss since step 3, so it has ended"
    assert f"train.patience = 2: {why}" in first.output and "test loss" in first.output
    assert "best.h5 (step 3, " in first.output
    assert "finished at step 9, nothing is left to do; a larger train.patience" in again.output
    assert f"train.patience = 2: {why}" in again.output and "test loss" not in again.output
    assert f"train.patience = 4: {why}" in more.output
    assert (events(more, "eval"), events(more, "test")) == ([3, 6, 9, 12, 15], [15])


def test_the_count_goes_on_with_a_run(runs):
    for n in 1, 2:
        assert events(runs("cut: goes on", n), "eval") == [3, 6, 9, 12]
        assert runs("cut: goes on", n).phi_sha256 == runs("early").phi_sha256
    assert "so it has ended" not in runs("learns").output
    assert events(runs("learns"), "test") == [9]


def test_a_list_of_runs_says_finished_until_a_run_has_more_patience(runs):
    folder = runs("early: more patient", 2).directory
    past = PastRun(folder)
    assert (past.status, past.step) == ("finished", 15) and past.last_step > 15
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(text.replace("patience = 4", "patience = 5"))
    assert PastRun(folder).status == "stopped"
