"""Which kernels a training step is, recorded by dpedf and by PyTorch, and how long each takes.

PyTorch's profiler hears from NVIDIA's CUPTI of every kernel of the process, of CuPy's too and of
those in a CUDA graph.  Only the first session of a process can be relied on (pytorch#192021), so
all steps are made first, and one session has them all: before each stands a kernel of a kind that
no step has.
"""

from collections import Counter
from functools import partial

from gpu_steps import PROGRAMS, Timed, made, programs, release

from dpedf.errors import plural

try:
    import torch
    from torch.profiler import ProfilerActivity, profile
except ImportError:
    torch = None

STEPS, MARK = 10, "spin_kernel"
SHOWN = "captured", "its graph"


def traced(gpu, steps):
    """Of each step, [(the name of a kernel, its us)] in STEPS of it, in their order."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as session:
        for step in steps:
            torch.cuda._sleep(1)  # the mark
            torch.cuda.synchronize()
            for _ in range(STEPS):
                step()
            gpu.cupy.cuda.runtime.deviceSynchronize()
    found = []
    for event in session.events():  # by their start
        if event.device_type != torch.autograd.DeviceType.CUDA or event.is_user_annotation:
            continue
        if MARK in event.name:
            found.append([])
        elif found:
            found[-1].append((event.name, event.time_range.elapsed_us()))
    return found


def table(kernels):
    """Lines: us a step, share, count, kernel; the longest first."""
    count, took = Counter(), Counter()
    for name, us in kernels:
        name = name.removeprefix("void ")
        count[name] += 1
        took[name] += us
    whole = took.total() or 1
    for name, us in took.most_common():
        yield f"{us / STEPS:10.1f} {us / whole:6.1%} {count[name] / STEPS:6g}  {name[:100]}"


def kernels(gpu, ranks, models):
    """Print the kernels of a step of each model and B.  models: {name: every B}."""
    release(gpu, graphs=True)
    all_programs = dict(zip(PROGRAMS, programs(gpu, compiled=False), strict=True))
    steps = {}
    for name, batches in models.items():
        for B in batches:
            for how in SHOWN:
                step, _ = made(gpu, how, partial(all_programs[how], name, B))
                if step:
                    took = Timed(gpu, ranks, step)() * 1e6
                    steps[f"{name}, B = {B}, {how}: {took:,.1f} us a step"] = step
    found = traced(gpu, steps.values())
    if len(found) != len(steps) or not all(found):
        print(f"PyTorch's profiler found {sum(map(len, found))} kernels: is CUPTI there?")
    print("\nus a step, share of all kernels, how many a step, kernel", flush=True)
    for title, its in zip(steps, found, strict=False):
        busy = sum(us for _, us in its) / STEPS
        print(f"\n{title}, {plural(len(its) // STEPS, 'kernel')} of {busy:,.1f} us")
        print(*table(its), sep="\n", flush=True)
