"""Where a run computes.  There is the CPU so far; this is to be the only door to cupy."""

import os
import socket

from dpedf.errors import UserError

# Schedulers and users grant GPUs to a process through these.
NONE = None, "", "-1", "NoDevFiles"
GRANTS = "CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"


def chosen(settings):
    """The device of a run, "cpu".  UserError: settings that it cannot follow."""
    device, precision = settings.run.device, settings.train.precision
    given = {name: os.environ.get(name) for name in GRANTS}
    granted = [f"{n} = {gpus}" for n, gpus in given.items() if gpus not in NONE]
    if device == "gpu":
        raise UserError("run.device = 'gpu', expected 'cpu': this version has no GPU path yet")
    if device == "auto" and granted:
        raise UserError(
            f"{granted[0]} grants GPUs, expected run.device=cpu: this version has no GPU path yet"
        )
    if precision not in ("float32", "float64"):
        raise UserError(
            f"train.precision = {precision!r}, expected float32 or float64 on the CPU, "
            "which computes in no other"
        )
    if settings.data.cache == "device":
        raise UserError("data.cache = 'device', expected 'none' or 'memory' on the CPU")
    return "cpu"


def blas_threads(settings, ranks):
    """How many threads BLAS gets in this rank.

    run.threads; or else one where there are slices, since two add in another order; or else
    this rank's part of the cores, where ranks that may run on the same cores share them.
    """
    cores = sorted(os.sched_getaffinity(0))
    here = socket.gethostname(), cores
    part = max(1, len(cores) // ranks.gather(here).count(here))
    return settings.run.threads or (1 if settings.train.slices else part)
