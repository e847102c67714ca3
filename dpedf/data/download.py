"""Public data sets, for recipes: files from a folder or from mirrors, with known checksums."""

import gzip
import hashlib
import signal
import tarfile
import zlib
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from tqdm import tqdm

from dpedf.data.disk import content_of
from dpedf.data.recipe import (
    add_fractions,
    expect_kept,
    parser_of,
    recipe_errors,
    split_of,
    summary,
)
from dpedf.data.writer import scatter
from dpedf.errors import UserError, one_line, print_line

ENOUGH = 1 << 28  # bytes: no file is larger
SLOWEST = 1000  # bytes a second, the mean over three timeouts
# What bad copies raise.
BROKEN = OSError, HTTPException, EOFError, ValueError, zlib.error, tarfile.TarError


def make(recipe, doc, about, mirrors, names, read, pairs, suffixes=("",)):
    """Be the recipe in a file, with this docstring: read its command line, write its data file.

    about: attributes of the data file.  mirrors: of files of these names, asked in turn.  suffixes:
    what may follow the name of a local copy; the last one is that of mirrors.  read(name, bytes):
    what is in a file; raises one of BROKEN where it is another.  pairs: makes
    [(x, y) to train, ..., (x, y) to test] of what was read.
    """
    parser = parser_of(doc, Path(recipe).with_suffix(".h5"))
    add = parser.add_argument
    add("--from", metavar="DIR", dest="folder", type=Path, help="take the local copies in DIR")
    add("--mirror", metavar="URL", action="append", help="download from URL (repeatable)")
    add("--timeout", type=float, default=20, help="give up on a mirror silent so long (20)")
    add_fractions(parser, tests=False)
    args = parser.parse_args()
    with recipe_errors(parser, args.output):
        if args.folder:
            copies = [args.folder / f"{name}{end}" for name in names for end in suffixes]
            expect_kept(copies, args.output)
            files = [local(name, args.folder, read, suffixes) for name in names]
        else:
            mirrors = list(args.mirror or mirrors)
            files = [remote(name, mirrors, args.timeout, read, suffixes[-1]) for name in names]
        *train, test = blocks = pairs(files)
        counts = {"train": sum(len(y) for _, y in train), "test": len(test[1])}
        split = split_of(counts, args)
        scatter(args.output, blocks, split, **about, scale=1 / 255)
    print_line(f"{args.output}: {summary(split, 'image')}")


def local(name, folder, read, suffixes):
    """What is read in the file of that name in a folder.  UserError: there is none, or another."""
    for path in (folder / f"{name}{suffix}" for suffix in suffixes):
        if path.exists():
            try:
                return read(name, content_of(path))
            except BROKEN as error:
                raise UserError(f"{path}: {one_line(error)}") from None
    expected = " or ".join(f"{name}{suffix}" for suffix in suffixes)
    raise UserError(f"{folder}: no {name}, expected {expected} there")


def remote(name, mirrors, timeout, read, suffix):
    """What is read in the file of that name on the first mirror that gives it.  UserError: none."""
    for mirror in list(mirrors):
        print_line(f"{name} from {mirror}")
        try:
            return read(name, download(f"{mirror.rstrip('/')}/{name}{suffix}", timeout))
        except BROKEN as error:
            print_line(f"{name} from {mirror}: failed: {one_line(error)}")
            mirrors.append(mirrors.pop(0))  # the next file starts with one that works
    raise UserError(f"{name}: every mirror failed, expected another --mirror URL or --from DIR")


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


def unpacked(data):
    """The bytes in a gzip wrapping, or those without one as they are."""
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def expect_md5(data, expected, what="bytes"):
    """ValueError: these bytes have another MD5 sum."""
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != expected:
        raise ValueError(f"{len(data)} {what}, MD5 {found}, expected {expected}")
