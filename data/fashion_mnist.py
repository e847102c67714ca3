"""Fashion-MNIST: 70,000 pictures of clothes, 28 x 28, as a data file of dpedf.

    python data/fashion_mnist.py                # downloads 31 MB, writes data/fashion_mnist.h5
    python data/fashion_mnist.py --from DIR     # takes local copies of the four gzipped files
    python data/fashion_mnist.py --mirror URL   # downloads from there alone

Nothing is written before all four files are here and have the MD5 sums that their authors publish.
These are of the gzipped files, so a local copy that was unpacked cannot be checked, nor taken.
"""

from mnist import idx, pairs

from dpedf.data.download import expect_md5, make, unpacked

ABOUT = {
    "name": "Fashion-MNIST",
    "source": "H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for "
    "Benchmarking Machine Learning Algorithms, 2017, https://github.com/zalandoresearch/fashion-mnist",
    "licence": "MIT",
    "classes": [
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ],
}
MIRRORS = [
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
]
MD5 = {
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}


def read(name, data):
    """The array in the gzipped file of that name."""
    expect_md5(data, MD5[name])
    return idx(unpacked(data))


def main():
    make(__file__, __doc__, ABOUT, MIRRORS, MD5, read, pairs, suffixes=(".gz",))


if __name__ == "__main__":
    main()
