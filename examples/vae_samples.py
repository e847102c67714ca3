"""Images that a variational autoencoder makes up: what it decodes of draws from N(0, 1).

    pip install -e ".[plot]"
    mpirun -n 2 python -m dpedf.train configs/vae.toml
    python examples/vae_samples.py runs/vae --output samples.png

Where mean and log_variance are 0, whatever x is, the code z is such a draw.
"""

import argparse
from pathlib import Path

import numpy as np

from dpedf.device import CPU
from dpedf.edf import Forward, Parameters
from dpedf.errors import RunError, UserError, concerning
from dpedf.program import during, program
from dpedf.run.trained import Trained
from dpedf.tools.pictures.images import channels
from dpedf.tools.pictures.saving import drawing, format_of, save

ROWS, COLUMNS = 5, 16


def samples(model, n, seed):
    """(n, ...): the output of a model of which every code is a draw from N(0, 1), by seed."""
    for p in Parameters(model.ell) + program(model.ell).frozen:
        if p.name.partition(".")[0] in ("mean", "log_variance"):
            p.value[...] = 0
    model.x.value = np.zeros((n, *model.x.shape), model.x.dtype)
    with during(seed=seed):
        Forward(model.Q)
    return model.Q.value.reshape(n, *model.x.shape)


def pictured(model, seed):
    """A picture of samples, side by side.  UserError: what the model makes up is no image."""
    from dpedf.tools.pictures.grids import grid, shown  # which need matplotlib

    if (name := model.settings.model["build"]) != "vae":
        raise UserError(f"a run of {name}, expected vae")
    images = [shown(channels(x)) for x in samples(model, ROWS * COLUMNS, seed)]
    height, width = images[0].shape[:2]
    title = f"{len(images)} images that {model.run} makes up"
    figure, axes = grid(title, len(images), COLUMNS, height / width)
    for place, image in zip(axes, images, strict=True):
        place.imshow(image, "gray_r", vmin=0, vmax=1, aspect="auto")
    return figure


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the directory of the run")
    parser.add_argument("-o", "--output", type=Path, default="samples.png", help="the picture")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (0)")
    arguments = parser.parse_args()
    try:
        ending = format_of(arguments.output)
        model = Trained(arguments.run, CPU())
        with drawing("vae_samples.py"), concerning(arguments.run):
            save(pictured(model, arguments.seed), arguments.output, ending, model.run)
    except (UserError, RunError) as error:
        parser.exit(2 if isinstance(error, UserError) else 1, f"{error}\n")


if __name__ == "__main__":
    main()
