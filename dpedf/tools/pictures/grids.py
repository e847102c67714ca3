"""Pictures of many images: what a model got most wrong, and what its first layer looks for."""

import numpy as np
from matplotlib.figure import Figure

from dpedf.errors import UserError, plural, visible
from dpedf.run.predictions import is_probability
from dpedf.tools.pictures.images import channels, first_layer, small
from dpedf.tools.pictures.mistakes import expect_classifier, find, tested

MISTAKES, IN_A_ROW = 24, 8
UNITS = 64  # whose weights are drawn
WIDTH, MARGIN, WIDEST = 9, 0.12, 1.4  # inches: of a figure, between images, and of an image
SURE = 0.9995  # from here on, one digit would say 100.0 %
LONGEST = 14  # characters of a class below a picture
BESIDE = 0.8  # inches for the scale of colours
SCALED = 99.5  # percent of the weights have colours of their own; few are much larger
FLATTEST = 12  # an image that is longer is drawn as if it were so long
RED = "#bd1f01"


def grid(title, n, columns, ratio, captions=0.0, beside=0.0):
    """(figure, its axes) for n images of height / width = ratio, row by row, below a title.

    captions: inches above and below each image.  beside: inches that stay free on the right.
    """
    lines, head, ratio = -(-n // columns), 0.4, min(max(ratio, 1 / FLATTEST), FLATTEST)
    width = min(WIDEST, (WIDTH - beside - (columns + 1) * MARGIN) / columns)
    line = width * ratio + 2 * captions + MARGIN
    height = head + lines * line + MARGIN
    figure = Figure((WIDTH, height))
    figure.text(MARGIN / WIDTH, y_of_title(figure), title, fontsize=10, va="center")
    axes = []
    for k in range(n):
        row, column = divmod(k, columns)
        left = MARGIN + column * (width + MARGIN)
        bottom = height - head - row * line - captions - width * ratio
        place = left / WIDTH, bottom / height, width / WIDTH, width * ratio / height
        axes.append(figure.add_axes(place, xticks=[], yticks=[]))
    return figure, axes


def name_of(model):
    return f"{legible(str(model.run.resolve().name), 16)}/{legible(model.file.name, 24)}"


def legible(text, most):
    """A text of at most so many characters, none of which moves the others."""
    text = visible(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def y_of_title(figure):
    return 1 - 0.2 / figure.get_figheight()


def shown(image):
    """An image (I, H, W) as matplotlib takes it: (H, W), or (H, W, 3) in colours."""
    if len(image) not in (1, 3, 4):
        raise UserError(f"images of {len(image)} channels, expected 1, 3 or 4")
    image = small(image)
    return image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)


def on_one_scale(images):
    """These images with the smallest of all numbers at 0, and the largest at 1."""
    low, high = (float(end(images)) for end in (np.min, np.max))
    return [(image - low) / (high - low or 1) for image in images]


def draw_mistakes(model):
    """The picture of the test images that a Trained model got most wrong."""
    expect_classifier(model)
    shown(channels(np.empty(model.x.shape, np.uint8)))
    part = tested(model)
    wrong, mistakes = find(model, part, MISTAKES)
    rows = plural(len(part.rows), "test row")
    if not mistakes:
        found = "none is wrong" if not wrong else "the output is nan for all that are wrong"
        raise UserError(f"{part.path}: of {rows} {found}, so there is no mistake to draw")
    images = on_one_scale([shown(channels(its.x)) for its in mistakes])
    these = f", of which the {len(mistakes)} surest" if len(mistakes) < wrong else ""
    title = f"{name_of(model)}: {wrong:,} of {rows} are wrong{these}"
    height, width = images[0].shape[:2]
    figure, axes = grid(title, len(mistakes), IN_A_ROW, height / width, 0.2)
    note = "red: predicted, how surely"
    style = dict(fontsize=8, color=RED, ha="right", va="center")
    figure.text(1 - MARGIN / WIDTH, y_of_title(figure), note, **style)
    likely = model.Q.value.ndim == 1 or is_probability(model.Q, model.ell)
    for place, its, image in zip(axes, mistakes, images, strict=True):
        place.imshow(image, "gray", vmin=0, vmax=1, aspect="auto")
        said, label = (called(model.form.names, j) for j in (its.predicted, its.label))
        sure = percent(its.confidence) if likely else f"{its.confidence:.3g}"
        place.set_title(f"{said}  {sure}", fontsize=8, color=RED, pad=3)
        place.set_xlabel(f"is {label}", fontsize=8, labelpad=3)
    return figure


def called(names, j):
    """The name of class j, or its number."""
    return legible(names[j], LONGEST) if j < len(names) else str(j)


def percent(confidence):
    """ "98.3 %"."""
    return "> 99.9 %" if confidence > SURE else f"{100 * confidence:.1f} %"


def draw_weights(model):
    """The picture of the first layer of a Trained model, its channels side by side."""
    name, units, weights = first_layer(model, UNITS)
    drawn = small(weights)
    J, I, H, W = drawn.shape
    apart = np.full((J, I, H, 1), np.nan)
    tiles = np.concatenate([drawn, apart], axis=3).transpose(0, 2, 1, 3).reshape(J, H, -1)[..., :-1]
    ratio = H / tiles.shape[2]
    columns = max(1, min(round(16 * ratio), J))
    sides = f", {I} channels side by side" if I > 1 else ""
    which = f"the first {J} of {plural(units, 'unit')}" if J < units else plural(units, "unit")
    size = " x ".join(map(str, weights.shape[2:]))
    title = f"{name_of(model)}: {legible(name, LONGEST)}, {which}, {size}{sides}"
    figure, axes = grid(title, J, columns, ratio, beside=BESIDE)
    sizes = np.abs(drawn[np.isfinite(drawn)])
    largest = float(np.percentile(sizes, SCALED)) if len(sizes) else 0.0
    extend = "both" if (sizes > largest).any() else "neither"
    largest = largest or 1.0
    for place, tile in zip(axes, tiles, strict=True):
        image = place.imshow(tile, "RdBu_r", vmin=-largest, vmax=largest, aspect="auto")
        place.spines[:].set_visible(False)
    bounds = [its.get_position() for its in axes]
    bottom, top = min(b.y0 for b in bounds), max(b.y1 for b in bounds)
    right = max(b.x1 for b in bounds) + 2 * MARGIN / WIDTH
    place = figure.add_axes((right, bottom, 0.012, top - bottom))
    bar = figure.colorbar(image, place, extend=extend, extendfrac=0.03)
    bar.ax.yaxis.set_major_formatter("{x:.3g}")
    bar.ax.tick_params(labelsize=7, length=2)
    bar.outline.set_visible(False)
    return figure
