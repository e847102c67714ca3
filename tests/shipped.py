"""Programs and configs of the repository, random data of the shapes that each config takes."""

import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np

from dpedf.data import write

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = sorted(path.stem for path in (ROOT / "configs").glob("*.toml"))
IMAGES = {"digits": (8, 8), "parity": (8, 8), "mnist": (28, 28), "cifar10": (3, 32, 32)}  # of data
LESS = {  # of what takes long on two cores
    "autoencoder": ["model.sizes=[784,64,32,16]"],
    "cifar10": ["model.width=4", "train.batch_size=16"],
    "nineties": ["model.hidden=128"],
    "slides": ["model.sizes=[784,32,10]"],
    "vae": ["model.sizes=[784,64]"],
}


def module_of(path):
    """The module in a file of the repository, such as data/table.py."""
    spec = spec_from_file_location(Path(path).stem, ROOT / path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def settings_of(config, folder, rows=800):
    """The words that have a shipped config train on so many random rows, 100 of them valid."""
    data = tomllib.loads((ROOT / "configs" / f"{config}.toml").read_text())["data"]
    folder.mkdir(exist_ok=True)
    kind, random, path = Path(data["file"]).stem, np.random.default_rng(0), folder / "random.h5"
    about = dict(name="random", source="this test", licence="none", scale=1 / 255)
    if kind in IMAGES:
        about["classes"] = 2 if kind == "parity" else 10
        x = random.integers(0, 256, (rows, *IMAGES[kind]), np.uint8)
        y = np.arange(rows) % about["classes"]
        groups = {"train": (x, y), "valid": (x[:100], y[:100]), "test": (x[:100], y[:100])}
    elif kind == "friedman":
        x, y = random.normal(size=(rows, 10)), random.normal(size=rows)
        rows = x.astype(np.float32), y.astype(np.float32)
        groups = {"train": rows, "valid": rows, "test": rows}
    else:
        text = random.integers(0, 65, rows, np.uint8)
        about["classes"] = 65
        groups = {"train": text, "valid": text[:100], "test": text[:100]}
    write(path, **about, **groups)
    return [f"data.file={path}", f"run.dir={folder}/run", *LESS.get(config, ()), "--overwrite"]


def few_rows(path):
    """A data file of 13 rows."""
    x, y = np.random.default_rng(0).integers(0, 17, (13, 8, 8), np.uint8), np.arange(13) % 10
    about = dict(name="few", source="this test", licence="none", classes=10, scale=1 / 16)
    write(path, **about, train=(x, y), test=(x, y))
    return path
