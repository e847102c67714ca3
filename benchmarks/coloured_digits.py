"""5,000 digits to train and 1,000 to test in the layout of CIFAR-10, to try a model of colours on:

    python data/mnist.py
    python benchmarks/coloured_digits.py        # writes data/coloured_digits.h5
    mpirun -n 2 python -m dpedf train configs/cifar10.toml data.file=data/coloured_digits.h5 \\
        data.valid=500 model.crop=2 model.flip=0 train.epochs=6

Digits of MNIST in the midst of 3 x 32 x 32, each in a colour of its own, as is what it stands on,
with noise.
"""

import h5py
import numpy as np

from dpedf.data import write


def coloured(x, random):
    """(N, 3, 32, 32), uint8, of digits x, (N, 28, 28)."""
    n, ink = len(x), np.zeros((len(x), 1, 32, 32))
    ink[:, 0, 2:30, 2:30] = x / 255
    paper, pen = random.integers(0, 160, (n, 3, 1, 1)), random.integers(60, 256, (n, 3, 1, 1))
    colours = paper * (1 - ink) + pen * ink + random.normal(0, 12, (n, 3, 32, 32))
    return np.clip(colours, 0, 255).astype(np.uint8)


def main():
    random, groups = np.random.default_rng(0), {}
    with h5py.File("data/mnist.h5") as file:
        about = {key: file.attrs[key] for key in ("source", "licence", "classes")}
        for group, n in ("train", 5000), ("test", 1000):
            groups[group] = coloured(file[f"{group}/x"][:n], random), file[f"{group}/y"][:n]
    write("data/coloured_digits.h5", name="Coloured digits", **about, scale=1 / 255, **groups)


if __name__ == "__main__":
    main()
