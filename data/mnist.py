"""MNIST: 70,000 handwritten digits, 28 x 28, as a data file of dpedf.

    python data/mnist.py                # downloads 11 MB, writes data/mnist.h5
    python data/mnist.py --from DIR     # takes local copies of the four files, gzipped or not
    python data/mnist.py --mirror URL   # downloads from there alone

Nothing is written before all four files are here and have the MD5 sums that the field knows.
"""

import numpy as np

from dpedf.data.download import expect_md5, make, unpacked

ABOUT = {
    "name": "MNIST",
    "source": "Y. LeCun, C. Cortes, C. J. C. Burges, http://yann.lecun.com/exdb/mnist/",
    "licence": "CC BY-SA 3.0",
    "classes": 10,
}
MIRRORS = [
    "https://storage.googleapis.com/cvdf-datasets/mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
]
MD5 = {  # of the unpacked files, for every mirror may have a gzip wrapping of its own
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def read(name, data):
    """The array in the file of that name, gzipped or not."""
    data = unpacked(data)
    expect_md5(data, MD5[name], "bytes unpacked")
    return idx(data)


def idx(data):
    """The array in an IDX file."""
    axes = data[3]
    shape = np.frombuffer(data, ">i4", axes, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def pairs(files):
    """[(x, y) to train, (x, y) to test], of the four arrays."""
    return [files[:2], files[2:]]


def main():
    make(__file__, __doc__, ABOUT, MIRRORS, MD5, read, pairs, suffixes=("", ".gz"))


if __name__ == "__main__":
    main()
