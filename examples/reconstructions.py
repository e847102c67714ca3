"""What an autoencoder makes of test images: its squared error beside that of principal components,
and a picture.

    pip install -e ".[plot]"
    mpirun -n 2 python -m dpedf.train configs/autoencoder.toml
    python examples/reconstructions.py runs/autoencoder --output reconstructions.png
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("agg")
from matplotlib import pyplot

from dpedf.device import CPU
from dpedf.edf import Forward
from dpedf.errors import UserError
from dpedf.run import config
from dpedf.run.checkpoint import load
from dpedf.run.setup import assemble

SHOWN = 12  # images


def rows(data, split):
    """All rows of a split, as vectors of the numbers that the model learns from."""
    data.put(*split.load(split.numbers))
    return data.x.value.reshape(len(split), -1)


def principal(train, test, K):
    """test, from its K principal components of train."""
    mean = train.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov((train - mean).T))
    components = vectors[:, -K:]
    return mean + (test - mean) @ components @ components.T


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the directory of the run")
    parser.add_argument("--output", type=Path, default="reconstructions.png", help="the picture")
    arguments = parser.parse_args()
    try:
        settings = config.load(arguments.run / "config.toml")
        if settings.model["build"] != "autoencoder":
            raise UserError(
                f"{arguments.run}: a run of {settings.model['build']}, expected autoencoder"
            )
        data, output, ell, phi = assemble(settings, CPU())
        load(arguments.run / "best.h5", phi)
    except UserError as error:
        parser.exit(2, f"{error}\n")

    test, learnt = rows(data, data.test), rows(data, data.train)
    K, reconstructed = settings.model["sizes"][-1], []
    for some in np.array_split(test, 20):
        data.x.value = some.reshape(-1, *data.x.shape)
        Forward(ell)
        reconstructed.append(output.value)
    found = {
        "test images": test,
        f"autoencoder, {K} numbers": np.concatenate(reconstructed),
        f"{K} principal components": principal(learnt, test, K),
    }
    for name, images in list(found.items())[1:]:
        error = np.square(images - test).sum(axis=1).mean()
        print(f"{name}: squared error {error:.2f} an image, over {len(test):,} test images")

    figure, axes = pyplot.subplots(len(found), SHOWN, figsize=(SHOWN, 1.25 * len(found)))
    for line, (name, images) in zip(axes, found.items(), strict=True):
        line[0].set_title(name, loc="left", fontsize=9)
        for place, image in zip(line, images, strict=False):
            place.imshow(image.reshape(data.x.shape), "gray_r", vmin=0, vmax=1)
            place.axis("off")
    figure.tight_layout(pad=0.3)
    figure.savefig(arguments.output, dpi=80)
    print(arguments.output)


if __name__ == "__main__":
    main()
