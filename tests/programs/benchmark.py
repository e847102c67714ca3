"""What benchmarks/gpu.py times of dpedf, on a simulated GPU: our step, launched and replayed."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import gpu as benchmark

from dpedf.device.gpu import acquire

gpu = acquire(0, "float32", True, print)
for program in benchmark.ours, benchmark.ours_captured:
    step = program(gpu, [8, 4, 3], 16)
    for _ in range(3):
        step()
gpu.wait()
print(len(gpu.graphs.recordings), "recorded")
gpu.close()
