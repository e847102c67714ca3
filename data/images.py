"""Images in a folder for each class, as a data file of dpedf; needs Pillow.

    python data/images.py DIR --size 64             # writes data/NAME.h5 of DIR's name NAME
    python data/images.py DIR --size 48 64 --grey   # height and width
    python data/images.py DIR --valid 0.1 --test 0.2 --seed 1

DIR/cat/1.png and DIR/cat/more/2.jpg are of the class cat; classes and images are in the order of
their names.  DIR may hold folders train, valid (or val) and test, each with folders of classes; of
valid and test, one that is missing is drawn from train.  Images are PNG and JPEG, and are turned as
their EXIF orientation says.  With --size, they are scaled until they cover it, and their centre is
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

from dpedf.data import scatter
from dpedf.data.disk import expect_regular
from dpedf.data.fractions import add_fractions, split_of
from dpedf.data.memory import expect_memory
from dpedf.data.recipe import (
    about_of,
    add_about,
    beside,
    parser_of,
    readable,
    recipe_errors,
    summary,
)
from dpedf.data.spool import BLOCK
from dpedf.data.writer import GROUPS
from dpedf.device.threads import cores
from dpedf.errors import UserError, extra, one_line, plural, print_line

THREADS = 8  # at most, for each holds a whole image
ENDINGS = ".png", ".jpg", ".jpeg"
SPLITS = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}
BROKEN = (  # what Pillow raises where a file is damaged, depending on which of its bytes are
    *(OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, AttributeError),
    *(OverflowError, MemoryError, struct.error, zlib.error),
)


def entries(folder):
    """(the folders in one, its files), in the order of their names, without those hidden."""
    try:
        found = sorted((p for p in folder.iterdir() if p.name[0] != "."), key=lambda p: p.name)
        return [p for p in found if p.is_dir()], [p for p in found if not p.is_dir()]
    except OSError as error:
        raise UserError(f"{folder}: {one_line(error)}, expected a folder of images") from None


def images_below(folder, others, above):
    """The images in a folder and in those within; its other files are added to the list others.

    above: the os.stat of the folders in which it lies.  UserError: it is one of them, by a link.
    """
    here = os.stat(folder)
    if any(os.path.samestat(here, its) for its in above):
        raise UserError(f"{folder}: a link to a folder that it lies in, expected none")
    within, files = entries(folder)
    others += [path for path in files if path.suffix.lower() not in ENDINGS]
    images = [path for path in files if path.suffix.lower() in ENDINGS]
    for path in within:
        images += images_below(path, others, [*above, here])
    return images


def listed(folder):
    """({group: [(image, its label), ...]}, the names of the classes, the files that are neither).

    UserError: there are none, or not for each class.
    """
    within, others = entries(folder)
    homes, groups, classes = {"train": folder}, {}, []
    if "train" in (names := {path.name for path in within}) and names <= SPLITS.keys():
        homes = {SPLITS[path.name]: path for path in within}
        if len(homes) < len(names):
            raise UserError(f"{folder}: folders val and valid, expected one of them")
    for group in sorted(homes, key=GROUPS.index):
        within, files = entries(homes[group])
        others += files if homes[group] != folder else []
        classes = classes or [path.name for path in within]  # those of train
        if not within:
            raise UserError(f"{homes[group]}: no folders, expected one for each class")
        groups[group] = []
        for path in within:
            if path.name not in classes:
                raise UserError(f"{path}: no such class in {homes['train']}, expected the same")
            images = images_below(path, others, [os.stat(homes[group])])
            if not images:
                raise UserError(f"{path}: no images, expected some in {', '.join(ENDINGS)}")
            label = classes.index(path.name)
            groups[group] += [(image, label) for image in images]
    return groups, classes, others


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
        raise UserError(f"{path}: neither PNG nor JPEG, expected an image") from None
    except (*BROKEN, Image.DecompressionBombError) as error:
        found = one_line(error).rstrip(".") or type(error).__name__
        raise UserError(f"{path}: {found}, expected a whole image") from None
    return shown if grey else shown.transpose(2, 0, 1)


def blocks(images, size, grey):
    """Yield (x, y) for some images at a time, of a list of (image, its label)."""
    labels = np.array([label for _, label in images])
    labels = labels.astype(np.min_scalar_type(labels.max()))
    like = pixels(images[0][0], size, grey)

    def load(image):
        path, _ = image
        found = pixels(path, size, grey)
        if found.shape != like.shape:
            shape, expected = ("{} x {}".format(*its.shape[-2:]) for its in (found, like))
            raise UserError(
                f"{path}: {shape} pixels, expected {expected} as in {images[0][0]}, or --size"
            )
        return found

    with ThreadPoolExecutor(min(len(cores()), THREADS)) as threads:
        step = min(max(BLOCK // like.nbytes, 16), 256)
        for first in range(0, len(images), step):
            some = slice(first, first + step)
            yield np.stack([*threads.map(load, images[some])]), labels[some]


def main():
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("folder", metavar="DIR", type=Path, help="holds a folder for each class")
    add("--size", metavar="N", type=int, nargs="+", help="one number, or height and width")
    add("--grey", action="store_true", help="grey rather than RGB")
    add_about(parser)
    add_fractions(parser)
    args = parser.parse_args()
    name = os.path.basename(os.path.abspath(args.folder)) or "images"
    with recipe_errors(parser, output := args.output or beside(__file__, name)):
        with extra("images", "images.py"):
            import PIL  # noqa: F401
        warnings.simplefilter("ignore")  # of images that are large, or whose EXIF is broken
        size = args.size and (*args.size, *args.size)[:2]
        if size and (len(args.size) > 2 or min(size) < 1):
            raise UserError(f"--size {' '.join(map(str, args.size))}, expected one or two above 0")
        if size:
            expect_memory(f"--size {size[0]} {size[1]}", 4 * 3 * size[0] * size[1])
        groups, classes, others = listed(args.folder)
        split = split_of({group: len(images) for group, images in groups.items()}, args)
        if others:
            print_line(f"not read: {plural(len(others), 'file')}, such as {others[0]}")
        about = about_of(args, name, f"the folder {name}", "that of the images")
        about |= {"classes": [*map(readable, classes)], "scale": 1 / 255}
        images = [image for its in groups.values() for image in its]
        scatter(output, blocks(images, size, args.grey), split, **about)
        of_classes = f"{len(classes)} class{'es' * (len(classes) != 1)}"
        print_line(f"{output}: {summary(split, 'image')}, of {of_classes}")


if __name__ == "__main__":
    main()
