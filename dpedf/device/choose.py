"""Which device a rank computes on."""

import os

from dpedf.device.cpu import CPU
from dpedf.device.gpu import UnusableError, acquire, driver_version
from dpedf.errors import UserError

# Schedulers and users grant GPUs to a process through these variables.
GRANTS = "CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"
NOTHING_GRANTED = None, "", "-1", "NoDevFiles"


def choose(settings, ranks, granted_is_taken=True):
    """The device of this rank.  UserError: the settings cannot be met.

    granted_is_taken: is a GPU that was granted, but cannot be used, such an error, or a note?
    """
    run, precision = settings.run, settings.train.precision
    granted = [f"{n} = {os.environ[n]}" for n in GRANTS if os.environ.get(n) not in NOTHING_GRANTED]
    note = None
    if run.device != "cpu":
        try:
            return acquire(ranks.local_rank, precision, run.capture == "auto", ranks.say)
        except UnusableError as why:
            expected = "a GPU that can be used, or run.device=cpu"
            if run.device == "gpu":
                raise UserError(f"run.device = 'gpu', expected {expected}: {why}") from None
            if granted and granted_is_taken:
                raise UserError(f"{granted[0]}, expected {expected}: {why}") from None
            note = f"no GPU is used: {why}" if granted or driver_version() is not None else None
    reason = f"; {note}" if note else ""
    if precision not in ("float32", "float64"):
        found = f"train.precision = {precision!r}, expected float32 or float64 on the CPU"
        raise UserError(found + reason)
    if settings.data.cache == "device":
        found = "data.cache = 'device', expected 'none' or 'memory' on the CPU"
        raise UserError(found + reason)
    return CPU(note)
