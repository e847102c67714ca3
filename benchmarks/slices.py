"""What the same bits on any number of ranks cost: slices against none, on one rank:

    python benchmarks/slices.py [part of a model's name, such as 1024 ...]

A step is that of dpedf.train: uint8 rows are scaled, the gradient is computed in as many passes
as a trial finds fastest and added, Phi is updated.  The ratio is that of the throughputs: 1 says
that slices cost nothing.
"""

import sys

import numpy as np
from architectures import ours
from pairs import MODELS, machine, microseconds, our_step, paired, ratio
from threadpoolctl import threadpool_limits

ROWS = 16, 64, 256  # of a slice of an MLP
OTHERS = [("LeNet 6/16", 16, 8), ("LeNet 6/16", 64, 8), ("LSTM 64-192-65", 16, 8)]
OTHERS += [("transformer 4x128", 1, 12)]  # of a slice, and how many slices, as in its config


def main(words):
    threadpool_limits(1, "blas")
    print(f"{machine()}, one thread, float32")
    print("\nthroughput with slices over that with none, median [quartiles] of 11 pairs\n")
    cells = [(name, rows, 8, MODELS[name]) for name in MODELS for rows in ROWS]
    cells += [(*cell, None) for cell in OTHERS]
    for name, rows, V, sizes in cells:
        if any(word in name for word in words):
            B = V * rows
            both = [
                our_step(sizes, B, slices, stored=np.uint8) if sizes else ours(name, B, slices)[0]
                for slices in (V, 0)
            ]
            measured = paired(*both)
            times = f"{ratio(measured):20}  {microseconds(measured)}"
            print(f"{name:18} {V:2} slices of {rows:3} rows  {times}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or [""])
