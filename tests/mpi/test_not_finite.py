"""A loss that is not finite ends a run, at the same step and with the same line on any ranks."""

import json

import h5py
import numpy as np
import pytest
from launcher import PROGRAMS, ROOT, mpirun
from trainings import PROGRAM as TRAININGS

# Keywords of the model, and what the line says.
RUNS = {
    "forward": ("", "step 13, epoch 1", "z3 = Fault: forward made z3[37, 3] nan"),
    "forward, among rows that are mixed": (
        ", normalized=true",
        "step 13, epoch 1",
        "z3 = Fault: forward made z3[37, 3] nan",
    ),
    "forward, in the second epoch": (
        ", step=20",
        "step 21, epoch 2",
        "z3 = Fault: forward made z3[37, 3] nan",
    ),
    "backward": (
        ", backward=true",
        "step 13, epoch 1",
        "to go back with --resume run.check_nan=true names the node",
    ),
}


def words(keywords):
    return f"model={{build='{PROGRAMS}/failing.py:failing', row=37{keywords}}}"


@pytest.fixture(scope="module", params=[1, 2, 3])
def ended(request, digits, tmp_path_factory):
    """{name: (the line on stderr, the directory of the run)}, of runs in one job."""
    folder = tmp_path_factory.mktemp("not_finite")
    common = (
        str(ROOT / "configs" / "digits_mlp.toml"),
        f"data.file={digits}",
        "train.batch_size=100",
    )
    often = "run.log_every=1", "train.checkpoint_every=5"
    directories = {name: folder / str(k) for k, name in enumerate(RUNS)}
    runs = [
        [*common, *often, f"run.dir={directories[name]}", words(keywords)]
        for name, (keywords, *_) in RUNS.items()
    ]
    (folder / "runs.json").write_text(json.dumps(runs))
    done = mpirun(request.param, TRAININGS, folder / "runs.json")
    lines = done.stderr.splitlines()
    assert len(lines) == len(RUNS) == done.stdout.count("status 1\n"), done.stdout + done.stderr
    return dict(zip(RUNS, zip(lines, directories.values(), strict=True), strict=True))


@pytest.mark.parametrize("name", RUNS)
def test_the_step_and_the_node_are_named(name, ended):
    line, directory = ended[name]
    step, what = RUNS[name][1:]
    found = "the gradient was" if name == "backward" else "the loss is"
    assert line.startswith(f"{step}: {found} not finite") and ", at learning rate 0.09" in line
    assert f": {what}; try " in line and "|Phi| up to " in line


@pytest.mark.parametrize("name", RUNS)
def test_nothing_that_is_not_finite_is_kept(name, ended):
    _, directory = ended[name]
    last = int(RUNS[name][1].split()[1].rstrip(",")) - 1
    events = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [e["step"] for e in events if e["event"] == "train"] == [*range(1, last + 1)]
    assert all(e["loss"] is not None for e in events if e["event"] == "train")
    for file in directory.glob("*.h5"):
        with h5py.File(file) as checkpoint:
            assert checkpoint.attrs["step"] <= last // 5 * 5
            assert np.isfinite(checkpoint["phi"]).all() and np.isfinite(checkpoint["v"]).all()
