"""Where a run computes.  There is the CPU so far; this is to be the only door to cupy."""

import os

from dpedf.errors import UserError

# Schedulers and users grant GPUs to a process through these.
GRANTS = "CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"


def chosen(device):
    """The device of run.device: "auto", "cpu" or "gpu".  UserError: it cannot be had."""
    granted = [f"{name} = {os.environ[name]}" for name in GRANTS if os.environ.get(name)]
    if device == "gpu":
        raise UserError("run.device = 'gpu', expected 'cpu': this version has no GPU path yet")
    if device == "auto" and granted and not granted[0].endswith("= -1"):
        raise UserError(
            f"{granted[0]} grants GPUs, but this version has no GPU path yet: "
            "expected run.device=cpu"
        )
    return "cpu"
