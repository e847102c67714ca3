"""On a GPU: a training step against PyTorch's, its memory, streaming; on several, sums over ranks:

    python benchmarks/gpu.py [part of a model's name, such as 1024 ...]
        [--batches 64,1024] [--tf32] [--no-compile] [--profile]
    mpirun -n N python benchmarks/gpu.py

A step is forward, backward and an SGD update in float32, on rows that stay where they are on the
GPU.  PyTorch runs eagerly with fused SGD, its LSTM being cuDNN's; compiled, by torch.compile's
"max-autotune" of the whole step (which should beat that of forward and loss: all is one CUDA graph,
the update fused too); and captured, its eager step in a torch.cuda.CUDAGraph.

--batches: minibatches of these sizes.  --tf32: products of float32 in TF32, of both.
--no-compile: without torch.compile, which takes minutes.
--profile: instead of all this, the kernels of a step (gpu_kernels.py).
"""

import argparse
import gc
import re
import time
from functools import partial
from importlib.metadata import distributions
from pathlib import Path

from gpu_copies import stream, sums
from gpu_kernels import kernels
from gpu_steps import BATCHES, MLPS, steps, torch
from pairs import machine

from dpedf.device.gpu import UnusableError, acquire
from dpedf.errors import UserError
from dpedf.parallel import job


def arguments():
    def batches(text):
        return [int(B) for B in text.split(",")]

    as_it_is = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_it_is)
    parser.add_argument("models", nargs="*", default=[""], help="parts of the names of models")
    parser.add_argument("--batches", type=batches, help="such as 64,1024")
    for option in "--tf32", "--no-compile", "--profile":
        parser.add_argument(option, action="store_true")
    found = parser.parse_intermixed_args()
    words = found.models
    models = {name: found.batches or every for name, every in BATCHES.items()}
    found.models = {name: B for name, B in models.items() if any(word in name for word in words)}
    if not found.models:
        parser.error(f"{' '.join(words)}, expected parts of {', '.join(BATCHES)}")
    return found


def versions(gpu):
    runtime, proc = gpu.cupy.cuda.runtime, Path("/proc/driver/nvidia/version")
    numbers = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    newest, cuda = (f"CUDA {number // 1000}.{number % 1000 // 10}" for number in numbers)
    number = re.search(r"\s(\d{3}\.[\d.]+)", proc.read_text() if proc.exists() else "")
    driver = f"driver {number[1] if number else 'unknown'} ({newest})"
    nvmath = {d.name: d.version for d in distributions()}.get("nvmath-python", "none")
    peer = f"{torch.__version__} (CUDA {torch.version.cuda})" if torch else "none"
    libraries = f"CuPy {gpu.cupy.__version__} ({cuda}), nvmath-python {nvmath}, PyTorch {peer}"
    return f"{gpu.kind}, {driver}, {libraries}, {time.strftime('%Y-%m-%d')}\n{machine()}"


def main(asked, ranks):
    with ranks.together():
        try:
            precision = "tf32" if asked.tf32 else "float32"
            gpu = acquire(ranks.local_rank, precision, True, ranks.say)
        except UnusableError as why:
            raise UserError(f"no GPU: {why}") from None
        if ranks.size == 1 and not (torch and torch.cuda.is_available()):
            raise UserError("no PyTorch with CUDA, expected one to compare with")
    ranks.say(f"{versions(gpu)}, products of float32 in {'TF32' if asked.tf32 else 'float32'}")
    if ranks.size > 1:
        sums(gpu, ranks)
        return 0
    torch.cuda.set_device(gpu.device.id)
    torch.set_float32_matmul_precision("high" if asked.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = asked.tf32
    gc.freeze()  # release looks for garbage often, and need not look in the libraries
    if asked.profile:
        kernels(gpu, ranks, asked.models)
        return 0
    steps(gpu, ranks, not asked.no_compile, asked.models)
    if mlps := [name for name in asked.models if name in MLPS]:
        stream(gpu, ranks, mlps)
    print("\nsums over ranks take more ranks: mpirun -n 2 python benchmarks/gpu.py")
    return 0


if __name__ == "__main__":
    job.run(partial(main, arguments()))  # before MPI, so that --help is no abort
