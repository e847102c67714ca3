"""benchmarks/gpu.py on a simulated GPU: all of it, but that PyTorch computes on the CPU.

PyTorch of the CPU has no torch.cuda.  What stands in for it captures nothing, and its graphs are
one kernel that does nothing; its profiler finds what the simulated GPU is told to launch.  So

    python tests/programs/benchmark.py --profile LeNet

says, without a GPU, how many launches a step is (README.md of tests/fake has the variables).
"""

import sys
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import gpu as benchmark
import gpu_copies
import gpu_kernels
import gpu_steps
import torch
from cupy.cuda import stream
from torch.autograd import DeviceType
from torch.autograd.profiler_util import EventList, FunctionEvent

from dpedf.parallel import job

SMALL = {"LEAST": 1e-4, "ROUNDS": 2, "SQUARE": 64, "STEPS": 2, "N": 200, "B": 64, "SIZES": [1]}


class TorchOfCuda:
    cuda = SimpleNamespace(
        is_available=lambda: True,
        set_device=lambda number: None,
        empty_cache=lambda: None,
        synchronize=lambda: None,
        Stream=lambda: SimpleNamespace(wait_stream=lambda other: None),
        current_stream=lambda: SimpleNamespace(wait_stream=lambda other: None),
        stream=lambda stream: nullcontext(),
        graph=lambda graph: nullcontext(),
        CUDAGraph=lambda: SimpleNamespace(replay=lambda: stream.noted("its kernel")),
        _sleep=lambda cycles: stream.noted("a spin_kernel"),
    )

    def __getattr__(self, name):
        return getattr(torch, name)


def launch(graph, on=None, launch=stream.Graph.launch):
    launch(graph, on)
    for name in graph.launched:
        stream.noted(name)


@contextmanager
def profile(activities):
    """A session that finds as kernels of 1 us what was launched on the simulated GPU."""
    stream.Graph.launch = launch
    stream.log.clear()
    session = SimpleNamespace()
    yield session
    names = [name for name, _ in stream.log if name not in ("synchronize", "event", "graph")]
    kernels = [
        FunctionEvent(k, name, 0, k, k + 1, device_type=DeviceType.CUDA)
        for k, name in enumerate(names)
    ]
    of_the_host = FunctionEvent(0, "cudaGraphLaunch", 0, 0, 9)
    session.events = lambda: EventList([of_the_host, *kernels])


for module in benchmark, gpu_copies, gpu_kernels, gpu_steps:
    here = vars(module)
    here.update({name: value for name, value in SMALL.items() if name in here})
    here.update(torch=TorchOfCuda())
gpu_steps.WHERE, gpu_kernels.profile = "cpu", profile
job.run(partial(benchmark.main, benchmark.arguments()))
