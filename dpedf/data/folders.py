"""Folders of images: which there are, for which group, and of which classes."""

import os

from dpedf.data.writer import GROUPS
from dpedf.errors import UserError, one_line

ENDINGS = ".png", ".jpg", ".jpeg"
SPLITS = {"valid": "valid", "val": "valid", "validation": "valid", "train": "train", "test": "test"}


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
    within, files = entries(folder)
    homes, groups, others = {"train": folder}, {}, []
    if "train" in (names := {path.name.lower() for path in within}) and names <= SPLITS.keys():
        homes, others = {SPLITS[path.name.lower()]: path for path in within}, files
        if len(homes) < len(within):
            found = " and ".join(path.name for path in within)
            raise UserError(f"{folder}: folders {found}, expected one for each of {GROUPS}")
    classes = [path.name for path in entries(homes["train"])[0]]
    for group in sorted(homes, key=GROUPS.index):
        groups[group] = labelled(homes[group], classes, homes["train"], others)
    return groups, classes, others


def labelled(home, classes, source, others):
    """[(image, its label), ...] in the folders of a folder; others: as of images_below.

    classes: the names of such folders, in the order of the labels, which are those of a source.
    UserError: there are other ones, or they hold no images.
    """
    images, (within, files) = [], entries(home)
    others += files
    if not within:
        raise UserError(f"{home}: no folders, expected one for each class")
    for path in within:
        if path.name not in classes:
            raise UserError(f"{path}: no such class in {source}, expected the same")
        its = images_below(path, others, [os.stat(home)])
        if not its:
            raise UserError(f"{path}: no images, expected some in {', '.join(ENDINGS)}")
        label = classes.index(path.name)
        images += [(image, label) for image in its]
    if all(image.parent.parent != home for image, _ in images):
        found = f"{home}: its folders hold folders, such as {images[0][0].parent}"
        raise UserError(f"{found}, expected images in a folder for each class")
    return images


def listed_like(folder, classes, source):
    """({"test": [(image, its label), ...]}, the files that are no images), of known classes.

    Where there are no folders, a label is None.  source: a file that has these classes.
    """
    others = []
    if entries(folder)[0]:
        return {"test": labelled(folder, classes, source, others)}, others
    if images := images_below(folder, others, []):
        return {"test": [(image, None) for image in images]}, others
    raise UserError(f"{folder}: no images, expected some in {', '.join(ENDINGS)}")
