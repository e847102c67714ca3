"""What the same bits on any number of ranks cost: 8 slices against none, on one rank:

    python benchmarks/slices.py

A step is that of dpedf.train: uint8 rows are scaled, the gradient is computed and added, Phi
is updated.  The ratio is that of the throughputs: 1 says that slices cost nothing.
"""

import numpy as np
from pairs import MODELS, machine, microseconds, our_step, paired, ratio
from threadpoolctl import threadpool_limits


def main():
    threadpool_limits(1, "blas")
    print(f"{machine()}, one thread, float32")
    print("\nthroughput with 8 slices over that with none, median [quartiles] of 11 pairs\n")
    for name, sizes in MODELS.items():
        for rows in 64, 256:
            B = 8 * rows
            both = (our_step(sizes, B, slices, stored=np.uint8) for slices in (8, 0))
            measured = paired(*both)
            times = f"{ratio(measured):20}  {microseconds(measured)}"
            print(f"{name:18} {rows:4} rows a slice  {times}", flush=True)


if __name__ == "__main__":
    main()
