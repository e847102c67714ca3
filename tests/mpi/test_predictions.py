"""A trained model under mpirun: what it finds and predicts depends on no number of ranks."""

import json

from launcher import ROOT, mpirun, train

from dpedf.errors import short


def test_a_run_without_slices_is_evaluated_and_predicts_the_same_on_any_number_of_ranks(
    digits, tmp_path
):
    words = f"data.file={digits}", "data.valid=0", "train.slices=0", "train.steps=9"
    train(2, ROOT / "configs" / "digits.toml", *words, f"run.dir={tmp_path}/run")
    *_, last = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()

    def tool(n, *words):
        done = mpirun(n, "-m", "dpedf", *words)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    printed = tool(3, "evaluate", tmp_path / "run")  # of which no best.h5 is there
    assert f"test loss {short(json.loads(last)['test_loss'])}\n" in printed
    for n in 1, 3:
        tool(n, "predict", tmp_path / "run", digits, "--split", "test", "-o", tmp_path / f"{n}.csv")
    first, second = ((tmp_path / f"{n}.csv").read_bytes() for n in (1, 3))
    assert first == second and first.count(b"\n") == 361
