"""Images in a folder for each class, as a data file of dpedf; needs Pillow.

    python data/images.py DIR --size 64             # writes data/NAME.h5 of DIR's name NAME
    python data/images.py DIR --size 48 64 --grey   # height and width
    python data/images.py DIR --valid 0.1 --test 0.2 --seed 1
    python data/images.py NEW --like data/NAME.h5   # more images, as those to train

DIR/cat/1.png and DIR/cat/more/2.jpg are of the class cat; classes and images are in the order of
their names.  DIR may hold folders train, valid (val, validation) and test, each with folders of
classes; of valid and test, one that is missing is drawn from train.  All images of NEW are to test,
and have no labels where no folders hold them.  Images are PNG and JPEG, and are turned as their
EXIF orientation says.  With --size, they are scaled until they cover it, and their centre is
taken; without, all have to be of one size.  x is RGB, (N, 3, H, W), or grey, (N, H, W), of 0..255.
Alpha is left out, and of 16 bits the upper 8 are taken.
"""

import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dpedf.data import scatter
from dpedf.data.disk import expect_regular
from dpedf.data.folders import listed, listed_like
from dpedf.data.layout import rows_of
from dpedf.data.memory import expect_memory
from dpedf.data.recipe import (
    about_of,
    add_options,
    beside,
    expect_kept,
    parser_of,
    readable,
    recipe_errors,
    split_of,
    summary,
)
from dpedf.data.scaling import SCALING
from dpedf.data.spool import BLOCK
from dpedf.data.stored import Stored
from dpedf.device.threads import cores
from dpedf.errors import UserError, concerning, extra, one_line, plural, print_line

THREADS = 8  # at most, for each holds a whole image
SHOWN = 10  # names in a line
BROKEN = (  # what Pillow raises where a file is damaged, depending on which of its bytes are
    *(OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError),
    *(OverflowError, MemoryError, struct.error, zlib.error),
)


class BrokenError(UserError):
    """A file is no whole image."""


def form_of(path):
    """((H, W), is it grey, the names of the classes, scale, mean and std), of a file of images."""
    with concerning(f"--like {path}"):
        try:
            stored = Stored(path)
        except FileNotFoundError:
            raise UserError("no such file, expected one that data/images.py wrote") from None
        x, classes = rows_of(stored, "train/x"), stored.attribute("classes", None)
        shape = () if x is None or x.dtype != np.uint8 else x.shape[1:]
        known = isinstance(classes, int | np.integer | np.ndarray)
        if not known or len(shape) not in (2, 3) or shape[:-2] not in ((), (3,)):
            raise UserError("no images of classes to train, expected what data/images.py wrote")
        names = range(classes) if np.ndim(classes) == 0 else classes
        scaling = {key: stored.attribute(key, its) for key, its in SCALING.items()}
        return shape[-2:], len(shape) == 2, [*map(str, names)], scaling


def pixels(path, size, grey):
    """What an image shows, (H, W) or (3, H, W).  size: (H, W), or None to leave it as it is."""
    from PIL import Image, ImageOps

    try:
        expect_regular(path)
        with Image.open(path, formats=["PNG", "JPEG"]) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode[0] == "I":  # of 16 bits: Pillow's own conversion makes 255 of most
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            if image.mode != (mode := "L" if grey else "RGB"):
                image = image.convert(mode)
            if size:
                image = ImageOps.fit(image, size[::-1], Image.Resampling.BILINEAR)
            shown = np.asarray(image)
    except Image.UnidentifiedImageError:
        raise BrokenError(f"{path}: neither PNG nor JPEG, expected an image") from None
    except (*BROKEN, Image.DecompressionBombError) as error:
        found = one_line(error).rstrip(".") or type(error).__name__
        raise BrokenError(f"{path}: {found}, expected a whole image") from None
    return shown if grey else shown.transpose(2, 0, 1)


def broken(images, size, grey):
    """{path: what is wrong with it}, of those images that are broken."""

    def fault(image):
        try:
            pixels(image[0], size, grey)
        except BrokenError as error:
            return str(error)

    with ThreadPoolExecutor(min(len(cores()), THREADS)) as threads:
        options = {"total": len(images), "unit": " images", "leave": False, "disable": None}
        faults = [*tqdm(threads.map(fault, images), "looking for broken ones", **options)]
    return {path: its for (path, _), its in zip(images, faults, strict=True) if its}


def shortened(names):
    """Names in a line, the first ones where they are many."""
    left = len(names) - SHOWN
    return ", ".join(map(str, names[:SHOWN])) + f" and {left:,} more" * (left > 0)


def blocks(images, size, grey):
    """Yield (x, y) for some images at a time, of a list of (image, its label); or (x,) alone.

    UserError: some are broken, or of other sizes.
    """
    labels = None
    if images[0][1] is not None:
        labels = np.array([label for _, label in images])
        labels = labels.astype(np.min_scalar_type(labels.max()))

    def load(image):
        path, _ = image
        found = pixels(path, size, grey)
        if found.shape != like.shape:
            shape, expected = ("{} x {}".format(*its.shape[-2:]) for its in (found, like))
            raise UserError(
                f"{path}: {shape} pixels, expected {expected} as in {images[0][0]}, or --size"
            )
        return found

    first = 0
    try:
        like = pixels(images[0][0], size, grey)
        step = min(max(BLOCK // like.nbytes, 16), 256)
        with ThreadPoolExecutor(min(len(cores()), THREADS)) as threads:
            for first in range(0, len(images), step):
                some = slice(first, first + step)
                x = np.stack([*threads.map(load, images[some])])
                yield (x,) if labels is None else (x, labels[some])
    except BrokenError:
        faults = broken(images[first:], size, grey)
        one, *more = faults
        found = f"{faults[one]}; broken too: {shortened(more)}" if more else faults[one]
        raise UserError(f"{found}; --skip-broken leaves out such images") from None


def without_broken(groups, size, grey):
    """The groups of listed without images that are broken, which are named to the user."""
    faults = broken([image for its in groups.values() for image in its], size, grey)
    if faults:
        found = plural(len(faults), "broken image")
        print_line(f"left out: {found}: {shortened([*faults])}")
    groups = {group: [its for its in groups[group] if its[0] not in faults] for group in groups}
    for group, images in groups.items():
        if not images:
            raise UserError(f"all images to {group} are broken, expected whole ones")
    return groups


def size_of(args):
    """(H, W), or None."""
    size = args.size and (*args.size, *args.size)[:2]
    if size and (len(args.size) > 2 or min(size) < 1):
        raise UserError(f"--size {' '.join(map(str, args.size))}, expected one or two above 0")
    if size:
        expect_memory(f"--size {size[0]} {size[1]}", 4 * 3 * size[0] * size[1])
    return size


def main():
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("folder", metavar="DIR", type=Path, help="holds a folder for each class")
    add("--size", metavar="N", type=int, nargs="+", help="one number, or height and width")
    add("--grey", action="store_true", help="grey rather than RGB")
    add("--like", metavar="FILE", type=Path, help="take size, colours and classes of such a file")
    add("--skip-broken", action="store_true", help="leave out images that are broken")
    add_options(parser)
    args = parser.parse_args()
    name = os.path.basename(os.path.abspath(args.folder)) or "images"
    with recipe_errors(parser, output := args.output or beside(__file__, name)):
        with extra("images", "images.py"):
            import PIL  # noqa: F401
        warnings.simplefilter("ignore")  # of images that are large, or whose EXIF is broken
        if args.like:
            known = [args.size, args.grey or None, args.valid, args.test]
            if any(option is not None for option in known):
                found = "--size, --grey, --valid or --test with --like"
                raise UserError(f"{found}, expected none: all images are to test, as those there")
            expect_kept([args.like], output)
            size, args.grey, classes, scaling = form_of(args.like)
            groups, others = listed_like(args.folder, classes, args.like)
        else:
            size, scaling = size_of(args), {"scale": 1 / 255}
            groups, classes, others = listed(args.folder)
        if args.skip_broken:
            groups = without_broken(groups, size, args.grey)
        split = split_of({group: len(its) for group, its in groups.items()}, args)
        if others:
            print_line(f"not read: {plural(len(others), 'file')}, such as {others[0]}")
        about = about_of(args, name, f"the folder {name}", "that of the images")
        about |= {"classes": [*map(readable, classes)], **scaling}
        images = [image for its in groups.values() for image in its]
        expect_kept([path for path, _ in images], output)
        scatter(output, blocks(images, size, args.grey), split, **about)
        named = "without labels"
        if images[0][1] is not None:
            named = f"of {len(classes)} class{'es' * (len(classes) != 1)}: {shortened(classes)}"
        print_line(f"{output}: {summary(split, 'image')}, {named}")


if __name__ == "__main__":
    main()
