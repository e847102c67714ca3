"""On a GPU: a training step against PyTorch's, its memory, streaming; on several, sums over ranks:

    python benchmarks/gpu.py [--tf32] [--no-compile] [part of a model's name, such as 1024 ...]
    mpirun -n N python benchmarks/gpu.py

A step is forward, backward and an SGD update in float32, on rows that stay where they are on the
GPU.  PyTorch runs eagerly with fused SGD; compiled, by torch.compile's "max-autotune" of the whole
step (which should beat that of forward and loss: all is one CUDA graph, the update fused too); and
captured, its eager step in a torch.cuda.CUDAGraph.  The programs take turns, each for LEAST seconds
or more and until the GPU is idle.

Memory is by how much less is free after two steps of a program that had warmed up and given back
what it did not need: so it has Phi, rows, what allocators keep for a step and CUDA for a graph, of
all programs alike, but not what libraries keep from their first use.
"""

import gc
import re
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import distributions
from itertools import pairwise
from math import ceil, nan
from pathlib import Path

import numpy as np
from pairs import MODELS, machine, our_step, paired, ratio

from dpedf.data import Data, write
from dpedf.device.gpu import UnusableError, acquire
from dpedf.errors import UserError, one_line
from dpedf.kernels.gemm import product
from dpedf.models import mlp
from dpedf.optim import Momentum
from dpedf.parallel import job
from dpedf.parallel.gradient import Gradient
from dpedf.parallel.links import link_between
from dpedf.parallel.sums import LibrarySum
from dpedf.phi import Phi

try:
    import torch
    from peers import pytorch_step
except ImportError:
    torch = None

MODELS = MODELS | {"784-4096-4096-10": [784, 4096, 4096, 10]}
BATCHES = 64, 256, 1024, 4096, 16384
LEAST, ROUNDS, SQUARE = 0.1, 11, 8192
WHERE = "cuda"  # PyTorch computes
PROGRAMS = "eager", "captured", "PyTorch", "compiled", "its graph"
AGAINST = (0, 2), (1, 2), (1, 3), (1, 4)  # whose times are divided


def ours(gpu, sizes, B):
    return our_step(sizes, B, eta=gpu.put(np.array(0.01, np.float32)), device=gpu)


def ours_captured(gpu, sizes, B):
    eager = ours(gpu, sizes, B)
    step = partial(gpu.run, eager, eager)
    step(), step()  # the first computes, the second records
    if gpu.graphs.eager:
        raise RuntimeError("cannot be recorded")
    return step


def pytorch_compiled(sizes, B, eta=0.01):
    layers = [(torch.nn.Linear(*IJ), torch.nn.ReLU()) for IJ in pairwise(sizes)]
    model = torch.nn.Sequential(*sum(layers, ())[:-1])
    x, y = torch.rand(B, sizes[0]), torch.randint(0, sizes[-1], (B,))
    parameters = dict(model.named_parameters())

    def loss(parameters):
        s = torch.func.functional_call(model, parameters, (x,))
        return torch.nn.functional.cross_entropy(s, y)

    def step():
        with torch.no_grad():
            for name, gradient in torch.func.grad(loss)(parameters).items():
                parameters[name].sub_(gradient, alpha=eta)

    for tensor in x, y, *parameters.values():
        torch._dynamo.mark_static_address(tensor)  # or else the CUDA graph would copy it
    return torch.compile(step, mode="max-autotune", fullgraph=True, dynamic=False)


def pytorch_captured(sizes, B):
    """As PyTorch's documentation has it, with a warm-up on a side stream."""
    eager, side, graph = pytorch_step(sizes, B), torch.cuda.Stream(), torch.cuda.CUDAGraph()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            eager()
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph):  # zero_grad comes first, so that gradients lie in its memory
        eager()
    return lambda kept=eager: graph.replay()  # which changes the parameters that eager holds


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


def measured(gpu, ranks, programs, sizes, B):
    """Of each program: seconds of a step, (ROUNDS, 5), and bytes of the GPU's memory, (5,)."""
    release(gpu, graphs=True)
    works = [
        made(gpu, name, partial(program, sizes, B)) if program else (None, nan)
        for name, program in zip(PROGRAMS, programs, strict=True)
    ]
    timed = [step and Timed(gpu, ranks, step) for step, _ in works]
    rounds = [[work() if work else nan for work in timed] for _ in range(ROUNDS + 1)]
    return np.array(rounds[1:]), [nbytes for _, nbytes in works]


def steps(gpu, ranks, programs, models):
    random = np.random.default_rng(0)
    a, b = (gpu.put(random.random((SQUARE, SQUARE), np.float32)) for _ in range(2))
    work = Timed(gpu, ranks, partial(product, a, b, np.empty_like(a)))
    most = 2 * SQUARE**3 / np.median([work() for _ in range(ROUNDS)])
    del a, b, work
    columns = f"{'':28}" + "".join(f"{name:>10}" for name in PROGRAMS)
    heads = "".join(f"{f'{PROGRAMS[a]}/{PROGRAMS[b]}':23}" for a, b in AGAINST)
    print(f"\na product of {SQUARE} x {SQUARE} matrices: {most / 1e12:.1f} TFLOP/s, the most below")
    print("us a step; time ratios, median [quartiles] of 11, below 1 where dpedf is faster\n")
    print(f"{columns}  {heads}captured, TFLOP/s and % of the most", flush=True)
    measured(gpu, ranks, programs, [784, 128, 10], 64)  # so that libraries have what they keep
    memory = []
    for name, sizes in models.items():
        for B in BATCHES:
            seconds, nbytes = measured(gpu, ranks, programs, sizes, B)
            products = [I * J for I, J in pairwise(sizes)]
            flops = 2 * B * (3 * sum(products) - products[0])  # no gradient of x
            done = flops / np.median(seconds[:, 1])
            title = f"{name:18} B = {B:5} "
            times = "".join(f"{t:10,.1f}" for t in np.median(seconds, axis=0) * 1e6)
            ratios = "".join(f"{ratio(seconds[:, [b, a]]):23}" for a, b in AGAINST)
            rate = f"{done / 1e12:7.2f} {100 * done / most:4.0f} %"
            print(f"{title}{times}  {ratios}{rate}", flush=True)
            memory.append(title + "".join(f"{n / (1 << 20):10,.0f}" for n in nbytes))
    print("\nMiB of the GPU's memory\n", columns, *memory, sep="\n")


def stream(gpu, ranks, models, N=60_000, B=256):
    print(f"\nrows a second of {N:,} like MNIST's, B = {B}: data.cache none, device; their ratio\n")
    random, eta = np.random.default_rng(0), gpu.put(np.array(0.01, np.float32))
    x, y = random.integers(0, 256, (N, 28, 28), np.uint8), random.integers(0, 10, N, np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "random.h5")
        write(path, name="random", source="benchmarks/gpu.py", licence="none", classes=10,
              scale=1 / 255, train=(x, y), test=(x[:1], y[:1]))  # fmt: skip
        for name, sizes in models.items():
            release(gpu, graphs=True)
            streamed, resident = (Data(path, device=gpu) for _ in range(2))
            resident.keep("device", ranks)
            Q, ell = mlp(streamed.x, streamed.y, sizes)
            phi = Phi(ell, put=gpu.put)
            gradient, update = Gradient(ell, phi, ranks, streamed.put), Momentum(phi)

            def learn(x, y, B, gradient=gradient, update=update):
                gradient(x, y, B)
                update(eta, 0)

            def epoch(data, learn=learn, shard=gradient.shard):
                for x, y, b in data.train.minibatches(0, 0, B, shard):
                    gpu.run(b, partial(learn, B=b), x, y)  # one graph of both, at the same key
                gpu.wait()

            both = partial(epoch, streamed), partial(epoch, resident)
            for work in both * 3:  # until all is recorded
                work()
            found = paired(*both, pairs=ROUNDS, least=LEAST)
            rates = "".join(f"{rate:14,.0f}" for rate in N / np.median(found, axis=0))
            print(f"{name:18}{rates}  {ratio(found)}", flush=True)


def sums(gpu, ranks):
    """Bus bandwidth: what each link of a ring carries a second, 2 (n - 1) / n of the array."""
    link = link_between(ranks, gpu)
    adder, kind = LibrarySum(link), type(link).__name__
    ranks.say(f"\nGB/s, median [quartiles] of 11: sums over {ranks.size} ranks, {kind}, and copies")
    ranks.say("from and to one GPU, which read and write so many bytes each\n")
    for size in 1, 16, 256:
        n = size << 18
        here, there = (gpu.put(np.zeros((1, n), np.float32)) for _ in range(2))

        def add(here=here, n=n, piece=link.piece or n):
            for end in range(n, 0, -piece):  # as Gradient.start does
                adder.start(here, max(0, end - piece), end, False)
            adder.finish(here)

        copy, found = partial(gpu.cupy.copyto, there, here), []
        for work, factor in (add, 2 * (1 - 1 / ranks.size)), (copy, 1):
            timed = Timed(gpu, ranks, work)
            found.append(ratio([(timed(), factor * here.nbytes / 1e9) for _ in range(ROUNDS)]))
        ranks.say(f"{size:4} MiB  bus bandwidth {found[0]:24}  copy {found[1]}")


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


def main(ranks):
    options = {word for word in sys.argv[1:] if word.startswith("--")}
    words = [word for word in sys.argv[1:] if word not in options] or [""]
    if unknown := options - {"--tf32", "--no-compile"}:
        raise UserError(f"{', '.join(unknown)}: expected --tf32, --no-compile or models")
    tf32 = "--tf32" in options
    with ranks.together():
        try:
            gpu = acquire(ranks.host_rank, "tf32" if tf32 else "float32", True, ranks.say)
        except UnusableError as why:
            raise UserError(f"no GPU: {why}") from None
        if ranks.size == 1 and not (torch and torch.cuda.is_available()):
            raise UserError("no PyTorch with CUDA, expected one to compare with")
    ranks.say(f"{versions(gpu)}, products of float32 in {'TF32' if tf32 else 'float32'}")
    if ranks.size > 1:
        sums(gpu, ranks)
        return 0
    torch.cuda.set_device(gpu.device.id)
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    models = {m: MODELS[m] for m in MODELS if any(word in m for word in words)}
    compiled = None if "--no-compile" in options else pytorch_compiled
    both = partial(ours, gpu), partial(ours_captured, gpu)
    steps(gpu, ranks, (*both, pytorch_step, compiled, pytorch_captured), models)
    stream(gpu, ranks, models)
    print("\nsums over ranks take more ranks: mpirun -n 2 python benchmarks/gpu.py")
    return 0


if __name__ == "__main__":
    job.run(main)
