"""The number of ranks never changes the result."""

import json

import h5py
import numpy as np
import pytest
from launcher import PROGRAMS, ROOT, mpirun, phi_sha256, train
from shipped import SHIPPED, settings_of

from dpedf.data import write

RANKS = 1, 2, 3, 4, 5, 8


def settings(file, directory, *more):
    return [f"data.file={file}", f"run.dir={directory}", "--overwrite", *more]


def sha256(n, config, *arguments):
    return phi_sha256(train(n, ROOT / "configs" / config, *arguments))


def test_digits_ends_with_one_phi_on_any_number_of_ranks(digits, tmp_path):
    arguments = settings(digits, tmp_path, "train.epochs=3")
    assert len({sha256(n, "digits.toml", *arguments) for n in RANKS}) == 1


@pytest.mark.parametrize("slices", [5, 7, 13])
def test_slices_need_not_be_a_power_of_two_nor_a_multiple_of_the_ranks(digits, tmp_path, slices):
    arguments = settings(digits, tmp_path, "train.epochs=1", f"train.slices={slices}")
    assert len({sha256(n, "digits.toml", *arguments) for n in (1, 2, 3, 5)}) == 1


def test_how_data_is_kept_and_how_sums_are_made_changes_no_bit(digits, tmp_path):
    packed = tmp_path / "packed.h5"
    with h5py.File(digits) as there, h5py.File(packed, "w") as here:
        here.attrs.update(there.attrs)
        for name in "train/x", "train/y", "test/x", "test/y":
            here.create_dataset(name, data=there[name], chunks=True, compression="gzip")
    common = "train.epochs=3", "train.batch_size=100"
    expected = sha256(1, "digits.toml", *settings(digits, tmp_path / "run", *common))
    for n, file, *how in (
        (3, digits, "data.cache=memory"),
        (2, packed),
        (3, packed, "data.cache=memory"),
        (4, digits, "run.allreduce=buckets", "run.bucket=1000"),
        (3, digits, "run.allreduce=buckets", "run.bucket=333"),
        (2, digits, "run.allreduce=buckets", "run.bucket=1000000"),
        (2, digits, "run.allreduce=buckets", "run.bucket=522"),  # which divides Phi
        (5, digits, "run.allreduce=whole"),
    ):
        assert (
            sha256(n, "digits.toml", *settings(file, tmp_path / "run", *common, *how)) == expected
        )


def test_a_slice_may_have_no_rows(tmp_path):
    """13 rows in minibatches of 8: the last one has 5 rows for 8 slices on 8 ranks."""
    random = np.random.default_rng(0)
    x, y = random.integers(0, 17, (13, 8, 8), np.uint8), np.arange(13) % 10
    about = dict(name="few", source="this test", licence="none", classes=10, scale=1 / 16)
    write(tmp_path / "few.h5", **about, train=(x, y), test=(x, y))
    arguments = settings(tmp_path / "few.h5", tmp_path / "run", "data.valid=0", "train.epochs=2")
    results = {sha256(n, "digits.toml", *arguments, "train.batch_size=8") for n in (1, 3, 8)}
    assert len(results) == 1
    zero = [*arguments, "train.batch_size=8", "train.slices=0", "train.precision=float64"]
    train(8, ROOT / "configs" / "digits.toml", *zero)
    whole = phi_of(tmp_path / "run")
    train(1, ROOT / "configs" / "digits.toml", *zero)
    assert distance(whole, phi_of(tmp_path / "run")) < 1e-12


def phi_of(directory):
    with h5py.File(directory / "checkpoint.h5") as file:
        return file["phi"][...].astype(np.float64)


def distance(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("allreduce", ["whole", "buckets"])
@pytest.mark.parametrize(
    ("precision", "stop", "most"), [("float64", "epochs=1", 1e-12), ("float32", "steps=50", 1e-5)]
)
def test_without_slices_ranks_agree_with_one_rank_up_to_rounding(
    digits, tmp_path, allreduce, precision, stop, most
):
    common = (f"train.precision={precision}", f"train.{stop}", "train.slices=0", "run.threads=1")
    how = settings(digits, tmp_path, *common, f"run.allreduce={allreduce}", "run.bucket=999")
    found = []
    for n in 1, 2, 3, 4:
        train(n, ROOT / "configs" / "digits.toml", *how)
        found.append(phi_of(tmp_path))
    assert [distance(phi, found[0]) < most for phi in found] == [True] * 4
    assert any(distance(phi, found[0]) > 0 for phi in found)  # or slices = 0 were not used


def test_reported_losses_and_accuracies_do_not_depend_on_the_number_of_ranks(digits, tmp_path):
    reported = set()
    for n in 1, 3, 4:
        output = train(n, ROOT / "configs/digits.toml", *settings(digits, tmp_path / str(n)))
        reported.add(metrics(tmp_path / str(n)))
        assert "test accuracy" in output
    assert len(reported) == 1


def metrics(directory):
    """metrics.jsonl, but for what the number of ranks and the clock say."""
    drop = "samples_per_second", "seconds", "ranks"
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    events = [{k: v for k, v in json.loads(line).items() if k not in drop} for line in lines]
    return json.dumps(events)


def test_the_example_in_one_file_ends_with_the_phi_of_dpedf_train(digits_in_place, tmp_path):
    example = mpirun(3, ROOT / "examples" / "one_file.py", cwd=digits_in_place)
    assert example.returncode == 0, example.stderr
    arguments = settings("data/digits.h5", tmp_path / "run")
    trained = train(2, ROOT / "configs" / "digits.toml", *arguments, cwd=digits_in_place)
    assert phi_sha256(example.stdout) == phi_sha256(trained)


@pytest.mark.parametrize("model", ["noisy", "dropped"])
def test_a_draw_of_a_node_depends_on_the_row_and_not_on_the_rank(digits, tmp_path, model):
    """Models of a user's own file, with a node that reads the context, and with Dropout."""
    model = f"model={{build='{PROGRAMS}/noise.py:{model}'}}"
    arguments = settings(digits, tmp_path, "train.epochs=1", model)
    assert len({sha256(n, "digits.toml", *arguments) for n in (1, 2, 5)}) == 1


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
    ("lenet", ["model.channels=[2,3]", "model.hidden=[8]", "train.grad_clip=0.5"]),
    ("char_lstm", ["model.embedding=4", "model.hidden=5", "data.window=7"]),
    (
        "char_lstm",
        ["model={build='char_gru',embedding=4,hidden=5}", "data.window=7", *learnt_by("rmsprop")],
    ),
    ("char_transformer", ["model.layers=1", "model.heads=2", "model.width=8", "data.window=7"]),
]


@pytest.mark.parametrize(
    "ranks", [(1, 3, 8), pytest.param((1, 2, 4, 5), marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize("config, small", SMALL)
def test_every_model_and_optimizer_ends_with_one_phi(tmp_path, config, small, ranks):
    words = *settings_of(config, tmp_path), *small, "train.epochs=0", "train.steps=6"
    assert len({sha256(n, f"{config}.toml", *words) for n in ranks}) == 1


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
    accuracy = float(output.split("test accuracy")[1].split("%")[0])
    assert accuracy >= 98.2
