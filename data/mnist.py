"""MNIST: 70,000 handwritten digits, 28 x 28, as a data file of dpedf.

    python data/mnist.py                # downloads 11 MB, writes data/mnist.h5
    python data/mnist.py --from DIR     # takes local copies of the four files, gzipped or not
    python data/mnist.py --mirror URL   # downloads from there alone

Nothing is written before all four files are here and have the MD5 sums that the field knows.
"""

import argparse
import gzip
import hashlib
import signal
import zlib
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

import numpy as np
from tqdm import tqdm

from dpedf.data import write
from dpedf.data.disk import expect_regular
from dpedf.errors import UserError, one_line, print_line

ABOUT = {
    "name": "MNIST",
    "source": "Y. LeCun, C. Cortes, C. J. C. Burges, http://yann.lecun.com/exdb/mnist/",
    "licence": "CC BY-SA 3.0",
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
ENOUGH = 1 << 26  # bytes: no file is larger, gzipped or not
SLOWEST = 1000  # bytes a second, the mean over three timeouts
BROKEN = OSError, HTTPException, EOFError, ValueError, zlib.error  # what bad copies raise


def download(url, timeout):
    """The bytes at url.  Raises one of BROKEN where they are cut off, silent or too slow."""
    data, seen = bytearray(), 0

    def look(*_):
        nonlocal seen
        if len(data) - seen < SLOWEST * 3 * timeout:
            raise TimeoutError(f"too slow, {len(data) - seen} bytes in {3 * timeout:g} seconds")
        seen = len(data)

    # urlopen's timeout is for silence: a byte now and then, even of a header, starts it again
    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 3 * timeout, 3 * timeout)
    bar = tqdm(unit="B", unit_scale=True, leave=False, disable=None)
    try:
        with bar, urlopen(url, timeout=timeout) as response:
            bar.total = size = int(response.headers.get("Content-Length", 0))
            while len(data) < ENOUGH and (piece := response.read1(1 << 16)):
                data += piece
                bar.update(len(piece))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if len(data) < size:
        raise EOFError(f"cut off after {len(data)} of {size} bytes")
    return data


def idx(name, data):
    """The array in an IDX file, gzipped or not.  Raises one of BROKEN where it is another file."""
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != MD5[name]:
        raise ValueError(f"{len(data)} bytes unpacked, MD5 {found}, expected {MD5[name]}")
    axes = data[3]
    shape = np.frombuffer(data, ">i4", axes, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def local(name, folder):
    """The array in the file of that name in a folder."""
    for path in folder / name, folder / f"{name}.gz":
        if path.exists():
            try:
                expect_regular(path)
                return idx(name, path.read_bytes())
            except BROKEN as error:
                raise UserError(f"{path}: {one_line(error)}") from None
    raise UserError(f"{folder}: no {name}, expected it there, gzipped or not")


def remote(name, mirrors, timeout):
    """The array in the file of that name on the first mirror that gives it."""
    for mirror in list(mirrors):
        print_line(f"{name} from {mirror}")
        try:
            return idx(name, download(f"{mirror.rstrip('/')}/{name}.gz", timeout))
        except BROKEN as error:
            print_line(f"{name} from {mirror}: failed: {one_line(error)}")
            mirrors.append(mirrors.pop(0))  # the next file starts with one that works
    raise UserError(f"{name}: every mirror failed, expected another --mirror URL or --from DIR")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, here = parser.add_argument, Path(__file__)
    add("--from", metavar="DIR", dest="folder", type=Path, help="take the local copies in DIR")
    add("--mirror", metavar="URL", action="append", help="download from URL (repeatable)")
    add("--timeout", type=float, default=20, help="give up on a mirror silent so long (20)")
    add("--output", metavar="FILE", type=Path, default=here.with_suffix(".h5"), help="write FILE")
    args = parser.parse_args()
    mirrors = list(args.mirror or MIRRORS)
    try:
        if args.folder:
            files = [local(name, args.folder) for name in MD5]
        else:
            files = [remote(name, mirrors, args.timeout) for name in MD5]
        write(args.output, **ABOUT, classes=10, scale=1 / 255, train=files[:2], test=files[2:])
    except UserError as error:
        parser.exit(2, f"{one_line(error)}\n")
    except OSError as error:
        parser.exit(2, f"{args.output}: {one_line(error)}\n")
    print_line(f"{args.output}: {len(files[0])} images to train, {len(files[2])} to test")


if __name__ == "__main__":
    main()
