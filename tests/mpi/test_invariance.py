"""The number of ranks never changes the result."""

import json

import h5py
import numpy as np
import pytest
from launcher import PROGRAMS, ROOT, learnt, mpirun, phi_sha256, train
from shipped import SHIPPED, few_rows, settings_of
from trainings import Trainings

from dpedf.data import write
from dpedf.run.config import load

RANKS = 1, 2, 3, 4, 5, 8
EPOCHS = 2  # minibatches of two orders, and two that are not full


def sha256(n, config, *arguments):
    return phi_sha256(train(n, ROOT / "configs" / config, *arguments))


@pytest.fixture(scope="module")
def ended(digits, tmp_path_factory):
    """ended(name, n): how one of the runs below ended, on n ranks."""
    folder = tmp_path_factory.mktemp("invariance")
    trainings = Trainings(folder, mpirun)
    few, packed = few_rows(folder / "few.h5"), compressed(digits, folder / "packed.h5")

    def add(ranks, name, *words, config="digits_mlp"):
        trainings.add(ranks, name, ROOT / "configs" / f"{config}.toml", *words)

    def on_digits(ranks, name, *words, file=digits):
        add(ranks, name, f"data.file={file}", *words)

    on_digits(RANKS, "digits", f"train.epochs={EPOCHS}")
    for V in SLICES:
        on_digits((1, 2, 3, 5), f"{V} slices", "train.epochs=1", f"train.slices={V}")
    on_digits((1, 5, 8), "few slices", "train.steps=9", "train.slices=3")
    for name, (n, is_packed, *how) in HOW.items():
        file = packed if is_packed else digits
        on_digits([n], name, "train.epochs=2", "train.batch_size=100", *how, file=file)
    for model in DRAWING:
        build = f"model={{build='{PROGRAMS}/noise.py:{model}'}}"
        on_digits((1, 2, 5), model, "train.epochs=1", build)
    short = "data.valid=0", "train.epochs=2", "train.batch_size=8"
    on_digits((1, 3, 8), "few rows", *short, file=few)
    short = *short, "train.slices=0", "train.precision=float64"
    on_digits((1, 8), "few rows without slices", *short, file=few)
    for precision, allreduce, _ in ROUNDED:
        words = f"train.precision={precision}", f"run.allreduce={allreduce}", "run.bucket=999"
        stop = "train.steps=25", "train.slices=0", "run.threads=1"
        on_digits((1, 2, 3, 4), f"{precision} {allreduce}", *stop, *words)
    people = table(folder / "table.h5")
    for name, words in TABLES.items():
        on_digits((1, 2, 3, 4), name, "train.epochs=2", "data.valid=100", *words, file=people)
    random = {config: settings_of(config, folder / config)[:1] for config, _ in SMALL}
    for config, small in SMALL:
        stop = "train.epochs=0", "train.steps=4"
        add((1, 3, 8), f"{config} {small}", *random[config], *small, *stop, config=config)
    return trainings


def compressed(file, path):
    """A copy of a data file in chunks."""
    with h5py.File(file) as there, h5py.File(path, "w") as here:
        here.attrs.update(there.attrs)
        for name in "train/x", "train/y", "test/x", "test/y":
            here.create_dataset(name, data=there[name], chunks=True, compression="gzip")
    return path


def table(path):
    """Of two numbers, two columns of categories, and two targets."""
    random, n = np.random.default_rng(0), 500
    codes = random.integers(0, 4, (n, 2))
    numbers = random.normal(size=(n, 2))
    x = np.stack([numbers[:, 0], codes[:, 0], numbers[:, 1], codes[:, 1]], axis=1)
    y = np.stack([numbers.sum(axis=1), codes[:, 0] * numbers[:, 0]], axis=1)
    rows = x.astype(np.float32), y.astype(np.float32)
    about = dict(name="table", source="this test", licence="none", categories=[0, 4, 0, 4])
    write(path, **about, train=rows, test=rows)
    return path


def one_phi(ended, name, ranks):
    return len({ended(name, n).phi_sha256 for n in ranks}) == 1


TABLES = {
    "a regression": ["model={build='mlp', sizes=[4, 16, 2]}"],
    "a table": ["model={build='tabular', hidden=[16], dropout=0.1}", "run.metrics=['rmse', 'r2']"],
}


@pytest.mark.parametrize("name", TABLES)
def test_regressions_end_with_one_phi_and_the_same_metrics_on_any_number_of_ranks(ended, name):
    assert one_phi(ended, name, (1, 2, 3, 4))
    assert len({measured(ended(name, n)) for n in (1, 2, 3, 4)}) == 1
    output, (*_, tested) = ended(name, 3).output, json.loads(measured(ended(name, 3)))
    said = "R2 {test_r2:.4f}, MAE {test_mae:.4f}"
    if name == "a table":
        said = "RMSE {test_rmse:.4f}, R2 {test_r2:.4f}"
    assert f"{said.format(**tested)}, after the last step" in output
    lines = [line for line in output.splitlines() if line.startswith("epoch ")]
    assert lines and all(len(line) <= 80 for line in lines)


def measured(run):
    """What of metrics.jsonl does not depend on the machine, as text."""
    timed = {"samples_per_second", "seconds", "ranks"}
    lines = (run.directory / "metrics.jsonl").read_text().splitlines()
    return json.dumps(
        [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]
    )


def test_digits_ends_with_one_phi_on_any_number_of_ranks(ended):
    assert one_phi(ended, "digits", RANKS)


def test_ranks_that_get_no_slices_change_no_bit(ended):
    assert one_phi(ended, "few slices", (1, 5, 8))
    assert "train.slices = 3: 5 of 8 ranks get no rows" in ended("few slices", 8).output


SLICES = 5, 7, 13


@pytest.mark.parametrize("slices", SLICES)
def test_slices_need_not_be_a_power_of_two_nor_a_multiple_of_the_ranks(ended, slices):
    assert one_phi(ended, f"{slices} slices", (1, 2, 3, 5))


HOW = {  # name: ranks, is the file compressed, and settings
    "alone": (1, False),
    "in memory": (3, False, "data.cache=memory"),
    "compressed": (2, True),
    "compressed, in memory": (3, True, "data.cache=memory"),
    "buckets": (4, False, "run.allreduce=buckets", "run.bucket=1000"),
    "small buckets": (3, False, "run.allreduce=buckets", "run.bucket=333"),
    "one bucket": (2, False, "run.allreduce=buckets", "run.bucket=1000000"),
    "buckets that divide Phi": (2, False, "run.allreduce=buckets", "run.bucket=522"),
    "whole": (5, False, "run.allreduce=whole"),
    "passes of one slice": (2, False, "train.rows=13"),
    "passes of three slices": (1, False, "train.rows=40"),
    "one pass": (1, False, "train.rows=100"),
}


@pytest.mark.parametrize("how", list(HOW)[1:])
def test_how_data_is_kept_and_how_sums_and_passes_are_made_changes_no_bit(ended, how):
    assert ended(how, HOW[how][0]).phi_sha256 == ended("alone", 1).phi_sha256


def test_a_slice_may_have_no_rows(ended):
    """13 rows in minibatches of 8: the last one has 5 rows for 8 slices on 8 ranks."""
    assert one_phi(ended, "few rows", (1, 3, 8))
    whole, alone = (phi_of(ended("few rows without slices", n)) for n in (8, 1))
    assert distance(whole, alone) < 1e-12


def phi_of(run):
    return learnt(run.directory)["phi"].astype(np.float64)


def distance(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


ROUNDED = [  # float64 sees what is added wrongly, float32 what is added in another type
    ("float64", "whole", 1e-12),
    ("float64", "buckets", 1e-12),
    ("float32", "buckets", 1e-5),
]


@pytest.mark.parametrize("precision, allreduce, most", ROUNDED)
def test_without_slices_ranks_agree_with_one_rank_up_to_rounding(ended, precision, allreduce, most):
    alone, *found = (phi_of(ended(f"{precision} {allreduce}", n)) for n in (1, 2, 3, 4))
    assert [distance(phi, alone) < most for phi in found] == [True] * 3
    assert any(distance(phi, alone) > 0 for phi in found)  # or slices = 0 were not used


def test_reported_losses_and_accuracies_do_not_depend_on_the_number_of_ranks(ended):
    runs = [ended("digits", n) for n in RANKS]
    assert len({metrics(run.directory) for run in runs}) == 1
    assert all(", accuracy " in run.output for run in runs)


def metrics(directory):
    """metrics.jsonl, but for what the number of ranks and the clock say."""
    drop = "samples_per_second", "seconds", "ranks"
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    events = [{k: v for k, v in json.loads(line).items() if k not in drop} for line in lines]
    return json.dumps(events)


def test_the_example_in_one_file_ends_with_the_phi_of_dpedf_train(ended, digits_in_place):
    """Both for less epochs; and both say the same number of them."""
    as_shipped = load(ROOT / "configs" / "digits_mlp.toml").train.epochs
    text = (ROOT / "examples" / "one_file.py").read_text()
    assert text.count(f"EPOCHS, B, SLICES = 0, {as_shipped},") == 1
    shorter = text.replace(f"SLICES = 0, {as_shipped},", f"SLICES = 0, {EPOCHS},")
    (digits_in_place / "shorter.py").write_text(shorter)
    example = mpirun(3, "shorter.py", cwd=digits_in_place)
    assert example.returncode == 0, example.stderr
    assert phi_sha256(example.stdout) == ended("digits", 2).phi_sha256


DRAWING = "noisy", "dropped"


@pytest.mark.parametrize("model", DRAWING)
def test_a_draw_of_a_node_depends_on_the_row_and_not_on_the_rank(ended, model):
    """Models of a user's own file, with a node that reads the context, and with Dropout."""
    assert one_phi(ended, model, (1, 2, 5))


def learnt_by(optimizer, *words):
    """The words for an optimizer, in place of the one that a config has."""
    none = "momentum=0", "nesterov=false", "betas=[0.9,0.999]"
    return [f"train.{word}" for word in (*none, f"optimizer={optimizer}", *words)]


# Configs made small, such that each model and each optimizer occurs.
SMALL = [
    ("mnist", ["model.sizes=[784,16,10]", *learnt_by("adamw", "learning_rate=0.01")]),
    ("slides", ["model.sizes=[784,16,10]", *learnt_by("rmsprop", "momentum=0.9")]),
    ("nineties", learnt_by("sgd", "momentum=0.9", "nesterov=true")),
    ("logistic", ["train.batch_size=50"]),
    ("autoencoder", ["model.sizes=[784,16,8]"]),
    ("vae", ["model.sizes=[784,16]", "model.latent=3", "train.slices=7"]),
    ("lenet", ["model.channels=[2,3]", "model.hidden=[8]", "train.grad_clip=0.5"]),
    ("char_lstm", ["model.embedding=4", "model.hidden=5", "data.window=7"]),
    (
        "char_lstm",
        ["model={build='char_gru',embedding=4,hidden=5}", "data.window=7", *learnt_by("rmsprop")],
    ),
    ("char_transformer", ["model.layers=1", "model.heads=2", "model.width=8", "data.window=7"]),
]


@pytest.mark.parametrize("config, small", SMALL)
def test_every_model_and_optimizer_ends_with_one_phi(ended, config, small):
    assert one_phi(ended, f"{config} {small}", (1, 3, 8))


@pytest.mark.slow
@pytest.mark.parametrize("config, small", SMALL)
def test_every_model_and_optimizer_ends_with_one_phi_on_more_ranks(tmp_path, config, small):
    words = *settings_of(config, tmp_path), *small, "train.epochs=0", "train.steps=6"
    assert len({sha256(n, f"{config}.toml", *words) for n in (1, 2, 4, 5)}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("config", [name for name in SHIPPED if name != "debug"])
def test_every_shipped_config_ends_with_one_phi_on_any_number_of_ranks(tmp_path, config):
    words = *settings_of(config, tmp_path), "train.epochs=0", "train.steps=20"
    assert len({sha256(n, f"{config}.toml", *words) for n in RANKS}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_mnist_reaches_98_2_percent_on_4_ranks(mnist, tmp_path, seed):
    arguments = [f"seed={seed}", f"data.file={mnist}", f"run.dir={tmp_path}"]
    output = train(4, ROOT / "configs" / "mnist.toml", *arguments, timeout=600)
    accuracy = float(output.split(", accuracy")[1].split("%")[0])
    assert accuracy >= 98.2
