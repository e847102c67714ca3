"""Peak memory of a training step, one thread, float32, against PyTorch:

    python benchmarks/memory.py

Each step runs in a process of its own, which reports by how much its resident memory at the peak
of three steps exceeds that before the first: all that a step needs, and what libraries keep for
the next.  A ratio below 1 says that dpedf needs less.
"""

import ctypes
import multiprocessing

from pairs import machine

PEAK, NOW = "VmHWM", "VmRSS"


def megabytes(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(name))


def peak(name, B, way):
    """Megabytes that three steps need; way: ours, or the number of one of PyTorch's."""
    import torch
    from architectures import ours, theirs
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, "blas")
    torch.set_num_threads(1)
    step = ours(name, B)[0] if way == "ours" else theirs(name, B)[way]
    ctypes.CDLL(None).malloc_trim(0)  # what building has freed, on which a step could draw
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # forget the peak of the past
    before = megabytes(NOW)
    for _ in range(3):
        step()
    return megabytes(PEAK) - before


def main():
    import torch
    from architectures import LENETS, NAMES

    print(f"{machine()}, PyTorch {torch.__version__}")
    print("\npeak memory of a step in MB, dpedf and PyTorch, and their ratio\n")
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name, B in NAMES:
            ways = "ours", *range(2 if name in LENETS else 1)
            mine, *others = (pool.apply(peak, (name, B, way)) for way in ways)
            least = min(others)
            print(f"{name:18} B = {B:4}  {mine:8.1f} {least:8.1f} {mine / least:8.2f}", flush=True)


if __name__ == "__main__":
    main()
