"""What the same bits on any number of ranks cost: 8 slices against none, on one rank:

    python benchmarks/slices.py

The ratio is that of the throughputs: 1 says that slices cost nothing.
"""

from pairs import MODELS, machine, microseconds, our_step, paired, ratio
from threadpoolctl import threadpool_limits


def main():
    threadpool_limits(1, "blas")
    print(f"{machine()}, one thread, float32")
    print("\nthroughput with 8 slices over that with none, median [quartiles] of 11 pairs\n")
    for name, sizes in MODELS.items():
        for rows in 64, 256:
            B = 8 * rows
            measured = paired(our_step(sizes, B, slices=8), our_step(sizes, B))
            times = f"{ratio(measured):20}  {microseconds(measured)}"
            print(f"{name:18} {rows:4} rows a slice  {times}", flush=True)


if __name__ == "__main__":
    main()
