"""A picture of rows of a data file."""

import numpy as np

from dpedf.data.rest import Rest
from dpedf.data.split import gathered
from dpedf.errors import UserError, concerning, plural, short
from dpedf.tools.pictures.grids import called, grid, legible, on_one_scale, shown
from dpedf.tools.pictures.images import channels

SAMPLES, IN_A_ROW = 40, 8


def draw_samples(data, names, seed):
    """Rows to learn from of open Data, chosen by seed, each below its label.

    UserError: they are no images.
    """
    if data.window:
        raise UserError(f"{data.path}: a text, expected images to draw")
    if data.columns:
        raise UserError(f"{data.path}: a table, expected images to draw")
    if isinstance(data, Rest):
        raise UserError(f"{data.path}: no train/x, expected rows to learn from")
    rows = data.train
    with concerning(data.path):
        shown(channels(np.empty(rows.x.shape[1:], np.uint8)))
    random = np.random.Generator(np.random.Philox(key=seed))
    numbers = np.sort(random.permutation(rows.numbers)[:SAMPLES])
    x, y = gathered(rows.x, numbers), gathered(rows.y, numbers)
    images = on_one_scale([shown(channels(its)) for its in x])
    height, width = images[0].shape[:2]
    title = f"{legible(data.path, 40)}: {len(x)} of {plural(len(rows), 'row')} to learn from"
    figure, axes = grid(title, len(x), IN_A_ROW, height / width, 0.12)
    for place, image, label in zip(axes, images, y, strict=True):
        place.imshow(image, "gray", vmin=0, vmax=1, aspect="auto")
        if not label.ndim:
            says = short(float(label)) if data.y.classes is None else called(names, int(label))
            place.set_title(says, fontsize=8, pad=3)
    return figure
