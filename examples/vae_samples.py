"""Images that a variational autoencoder makes up: what it decodes of draws from N(0, 1).

    pip install -e ".[plot]"
    mpirun -n 2 python -m dpedf.train configs/vae.toml
    python examples/vae_samples.py runs/vae --output samples.png

Where mean and log_variance are 0, whatever x is, the code z is such a draw.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("agg")
from matplotlib import pyplot

from dpedf.device import CPU
from dpedf.edf import Forward, Parameters
from dpedf.errors import UserError
from dpedf.program import during
from dpedf.run.trained import Trained

ROWS, COLUMNS = 5, 16


def samples(model, n, seed):
    """(n, ...): the output of a model of which every code is a draw from N(0, 1), by seed."""
    for p in Parameters(model.ell):
        if p.name.partition(".")[0] in ("mean", "log_variance"):
            p.value[...] = 0
    model.x.value = np.zeros((n, *model.x.shape), model.x.dtype)
    with during(seed=seed):
        Forward(model.Q)
    return model.Q.value.reshape(n, *model.x.shape)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the directory of the run")
    parser.add_argument("--output", type=Path, default="samples.png", help="the picture")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (0)")
    arguments = parser.parse_args()
    try:
        model = Trained(arguments.run, CPU())
        if (name := model.settings.model["build"]) != "vae":
            raise UserError(f"{arguments.run}: a run of {name}, expected vae")
    except UserError as error:
        parser.exit(2, f"{error}\n")

    figure, axes = pyplot.subplots(ROWS, COLUMNS, figsize=(COLUMNS, ROWS))
    for place, image in zip(axes.flat, samples(model, axes.size, arguments.seed), strict=True):
        place.imshow(image, "gray_r", vmin=0, vmax=1)
        place.axis("off")
    figure.tight_layout(pad=0.2)
    figure.savefig(arguments.output, dpi=50)
    print(arguments.output)


if __name__ == "__main__":
    main()
