"""A training step on a GPU, in each of the ways that gpu.py compares: made, and timed.

The programs take turns, each for LEAST seconds or more and until the GPU is idle.

Memory is by how much less is free after two steps of a program that had warmed up and given back
what it did not need: so it has Phi, rows, what allocators keep for a step and CUDA for a graph, of
all programs alike, but not what libraries keep from their first use.
"""

import gc
import sys
import time
from functools import partial
from itertools import pairwise
from math import ceil, nan

import architectures
import numpy as np
from pairs import MODELS, our_step, ratio

from dpedf.errors import one_line
from dpedf.kernels.gemm import product

try:
    import peers
    import torch
    import torch._dynamo
except ImportError:
    torch = None

MLPS = MODELS | {"784-4096-4096-10": [784, 4096, 4096, 10]}
SIZES = 64, 256, 1024, 4096, 16384
OTHERS = *architectures.LENETS, *architectures.TEXTS
BATCHES = dict.fromkeys(MLPS, SIZES) | dict.fromkeys(OTHERS, SIZES[:3])  # {model: every B}
LEAST, ROUNDS, SQUARE = 0.05, 11, 8192
WHERE = "cuda"  # PyTorch computes
PROGRAMS = "eager", "captured", "PyTorch", "compiled", "its graph"
AGAINST = (0, 2), (1, 2), (1, 3), (1, 4)  # whose times are divided


def ours(gpu, name, B):
    where = {"eta": gpu.put(np.array(0.01, np.float32)), "device": gpu}
    if name in MLPS:
        return our_step(MLPS[name], B, **where)
    return architectures.ours(name, B, **where)[0]


def ours_captured(gpu, name, B):
    eager = ours(gpu, name, B)
    step = partial(gpu.run, eager, eager)
    step(), step()  # the first computes, the second records
    if gpu.graphs.eager:
        raise RuntimeError("cannot be recorded")
    return step


def theirs(name, B):
    """PyTorch's model, x, y."""
    return peers.mlp(MLPS[name], B) if name in MLPS else architectures.peer(name, B)


def pytorch(name, B):
    return peers.step_of(*theirs(name, B))


def pytorch_compiled(name, B, eta=0.01):
    model, x, y = theirs(name, B)
    parameters = dict(model.named_parameters())

    def loss(parameters):
        return peers.loss(torch.func.functional_call(model, parameters, (x,)), y)

    def step():
        with torch.no_grad():
            for name, gradient in torch.func.grad(loss)(parameters).items():
                parameters[name].sub_(gradient, alpha=eta)

    for tensor in x, y, *parameters.values():
        torch._dynamo.mark_static_address(tensor)  # or else the CUDA graph would copy it
    return torch.compile(step, mode="max-autotune", fullgraph=True, dynamic=False)


def pytorch_captured(name, B):
    """As PyTorch's documentation has it, with a warm-up on a side stream."""
    eager, side, graph = pytorch(name, B), torch.cuda.Stream(), torch.cuda.CUDAGraph()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            eager()
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph):  # zero_grad comes first, so that gradients lie in its memory
        eager()
    return lambda kept=eager: graph.replay()  # which changes the parameters that eager holds


def programs(gpu, compiled):
    """Functions of a model's name and B that make a step, in the order of PROGRAMS."""
    theirs = pytorch, pytorch_compiled if compiled else None, pytorch_captured
    return partial(ours, gpu), partial(ours_captured, gpu), *theirs


class Timed:
    """Called, the seconds of a step where the slowest rank counts, over LEAST seconds or more."""

    def __init__(self, gpu, ranks, step):
        self.step, self.ranks, self.times = step, ranks, 1
        self.wait = gpu.cupy.cuda.runtime.deviceSynchronize
        self()
        while (took := self()) * self.times < LEAST:
            self.times = min(10 * self.times, ceil(1.2 * LEAST / took))

    def __call__(self):
        self.ranks.wait()
        start = time.perf_counter()
        for _ in range(self.times):
            self.step()
        self.wait()
        return self.ranks.largest((time.perf_counter() - start) / self.times)[0]


def release(gpu, graphs=False):
    """Give back what allocators keep; graphs: all graphs too, and what they keep."""
    gpu.cupy.cuda.runtime.deviceSynchronize()
    if graphs:
        gpu.graphs.close()
        torch._dynamo.reset()  # without which steps of further sizes compile for any size
    gc.collect()
    for pool in [gpu.cupy.get_default_memory_pool()] + [gpu.graphs.pool] * graphs:
        pool.free_all_blocks()
    torch.cuda.empty_cache()


def made(gpu, name, program):
    """(a step, the bytes of the GPU that it takes); (None, nan) where it fails, and a line why."""
    runtime, counts = gpu.cupy.cuda.runtime, torch._dynamo.utils.counters["inductor"]
    release(gpu)
    counts.clear()
    before = runtime.memGetInfo()[0]
    try:
        with torch.device(WHERE):
            step = program()
        for times in 3, 2:
            release(gpu)
            for _ in range(times):
                step()
            runtime.deviceSynchronize()
        if counts["cudagraph_skips"]:
            print("compiled without CUDA graphs", file=sys.stderr)
        return step, before - runtime.memGetInfo()[0]
    except Exception as error:  # of a compiler, say: the other programs go on
        print(f"{name}: {type(error).__name__}: {one_line(error)[:300]}", file=sys.stderr)
        return None, nan


def measured(gpu, ranks, compiled, model, B):
    """Of each program: seconds of a step, (ROUNDS, 5), and bytes of the GPU's memory, (5,)."""
    release(gpu, graphs=True)
    works = [
        made(gpu, name, partial(program, model, B)) if program else (None, nan)
        for name, program in zip(PROGRAMS, programs(gpu, compiled), strict=True)
    ]
    timed = [step and Timed(gpu, ranks, step) for step, _ in works]
    rounds = [[work() if work else nan for work in timed] for _ in range(ROUNDS + 1)]
    return np.array(rounds[1:]), [nbytes for _, nbytes in works]


def most_of(gpu, ranks):
    """How many FLOP a second a product of large matrices reaches."""
    random = np.random.default_rng(0)
    a, b = (gpu.put(random.random((SQUARE, SQUARE), np.float32)) for _ in range(2))
    work = Timed(gpu, ranks, partial(product, a, b, np.empty_like(a)))
    return 2 * SQUARE**3 / np.median([work() for _ in range(ROUNDS)])


def rate(model, B, seconds, most):
    """What an MLP's products reach, and the share of the most; of other models nothing."""
    if model not in MLPS:
        return ""
    products = [I * J for I, J in pairwise(MLPS[model])]
    done = 2 * B * (3 * sum(products) - products[0]) / seconds  # no gradient of x
    return f"{done / 1e12:7.2f} {100 * done / most:4.0f} %"


def steps(gpu, ranks, compiled, models):
    """The table of times, printed row by row, and that of memory.  models: {name: every B}."""
    most = most_of(gpu, ranks)
    columns = f"{'':28}" + "".join(f"{name:>10}" for name in PROGRAMS)
    heads = "".join(f"{f'{PROGRAMS[a]}/{PROGRAMS[b]}':23}" for a, b in AGAINST)
    print(f"\na product of {SQUARE} x {SQUARE} matrices: {most / 1e12:.1f} TFLOP/s, the most below")
    print(f"us a step; time ratios, median [quartiles] of {ROUNDS}, below 1 where dpedf is faster")
    print(f"\n{columns}  {heads}captured, TFLOP/s and % of the most", flush=True)
    measured(gpu, ranks, compiled, "784-128-10", 64)  # so that libraries have what they keep
    memory = []
    for name, batches in models.items():
        for B in batches:
            seconds, nbytes = measured(gpu, ranks, compiled, name, B)
            title = f"{name:18} B = {B:5} "
            times = "".join(f"{t:10,.1f}" for t in np.median(seconds, axis=0) * 1e6)
            ratios = "".join(f"{ratio(seconds[:, [b, a]]):23}" for a, b in AGAINST)
            reached = rate(name, B, np.median(seconds[:, 1]), most)
            print(f"{title}{times}  {ratios}{reached}", flush=True)
            memory.append(title + "".join(f"{n / (1 << 20):10,.0f}" for n in nbytes))
    print("\nMiB of the GPU's memory\n", columns, *memory, sep="\n", flush=True)
