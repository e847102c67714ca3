"""CIFAR-10: 60,000 colour pictures, 32 x 32, of ten classes, as a data file of dpedf.

    python data/cifar10.py                # downloads 170 MB, writes data/cifar10.h5
    python data/cifar10.py --from DIR     # takes a local copy of cifar-10-binary.tar.gz
    python data/cifar10.py --mirror URL   # downloads from there alone

Nothing is written before the archive is here and has the MD5 sum that its author publishes.  It is
the binary version, since to read the Python version (pickles) is to run what it says.
"""

import io
import tarfile

import numpy as np

from dpedf.data.download import expect_md5, make
from dpedf.errors import one_line

ABOUT = {
    "name": "CIFAR-10",
    "source": "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009, "
    "https://www.cs.toronto.edu/~kriz/cifar.html",
    "licence": "none is stated",
    "classes": [
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ],
}
MIRRORS = ["https://www.cs.toronto.edu/~kriz", "https://cave.cs.toronto.edu/kriz"]
MD5 = {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"}
FOLDER = "cifar-10-batches-bin"
SHAPE = 3, 32, 32  # of a picture: its colours are red, green and blue


def read(name, data):
    """[(x, y) to train, ..., (x, y) to test], of the batches in the archive."""
    expect_md5(data, MD5[name])
    names = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        try:
            return [rows(archive.extractfile(f"{FOLDER}/{name}.bin").read()) for name in names]
        except KeyError as error:
            raise ValueError(one_line(error)) from None


def rows(batch):
    """x (N, 3, 32, 32) and y (N,): a record is a label, and its pixels, colour by colour."""
    records = np.frombuffer(batch, np.uint8).reshape(-1, 1 + np.prod(SHAPE))
    return records[:, 1:].reshape(-1, *SHAPE), records[:, 0]


def main():
    make(__file__, __doc__, ABOUT, MIRRORS, MD5, read, pairs=lambda files: files[0])


if __name__ == "__main__":
    main()
