"""Two ranks of one thread against PyTorch DistributedDataParallel over gloo:

    mpirun -n 2 python benchmarks/ranks.py

Both train in the same two processes, in turn.  A ratio above 1 says that dpedf is faster.
B is the global minibatch.
"""

import os
import time

import numpy as np
import torch
from pairs import MODELS, machine, microseconds, our_step, ratio
from peers import pytorch_step
from threadpoolctl import threadpool_limits
from torch.nn.parallel import DistributedDataParallel

from dpedf.parallel import job


def seconds(work, times, ranks):
    """Of one call, where the slowest rank counts."""
    ranks.wait()
    start = time.perf_counter()
    for _ in range(times):
        work()
    return ranks.largest((time.perf_counter() - start) / times)[0]


def main(ranks):
    threadpool_limits(1, "blas")
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29517")
    torch.distributed.init_process_group("gloo", rank=ranks.rank, world_size=ranks.size)
    ranks.say(f"{machine()}, PyTorch {torch.__version__}, {ranks.mpi}")
    ranks.say(f"{ranks.size} ranks of one thread, float32\n")
    ranks.say("times faster than DistributedDataParallel, median [quartiles] of 11 pairs\n")
    for name, sizes in MODELS.items():
        for B in 128, 512, 2048:
            theirs = pytorch_step(sizes, B // ranks.size, wrap=DistributedDataParallel)
            for slices in 0, 8:
                ours = our_step(sizes, B, slices, ranks=ranks)
                both = ours, theirs
                warm = [seconds(work, 5, ranks) for work in both]
                times = [max(1, round(0.2 / w)) for w in warm]
                pairs = [
                    [seconds(work, n, ranks) for work, n in zip(both, times, strict=True)]
                    for _ in range(11)
                ]
                figures = f"{ratio(pairs):20}  {microseconds(np.array(pairs))}"
                ranks.say(f"{name:18} B = {B:4}  slices = {slices}  {figures}")
    torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    job.run(main)
