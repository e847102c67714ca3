"""Write the arrays of a trained model for PyTorch.

    dpedf export runs/mnist model.safetensors

They have PyTorch's names, shapes and signs: the package Phi1 of an Affine is a layer nn.Linear of
that name, with Phi1.weight, w transposed, and Phi1.bias, -b.  What no layer of PyTorch takes is
written as it is, under its own name, and a line says so.  docs/pytorch.md has modules that load
such a file.  In a config, model.weights = "model.safetensors" starts from it.
"""

from dpedf.data.disk import expect_place, replace, writing
from dpedf.errors import UserError, print_line
from dpedf.parallel.ranks import Ranks
from dpedf.run import config
from dpedf.run.command_line import Parser, expect_one_process
from dpedf.run.pytorch import shared, tensors
from dpedf.run.settings.tree import plain
from dpedf.run.trained import opened
from dpedf.run.weights import exported, library


def notes(ell):
    """{what: names} of parameters with which a module in PyTorch has to do something itself."""
    own = ", ".join(t.name for t in tensors(ell) if t.own)
    several = ", ".join(f"{p.name} (by {' and '.join(by)})" for p, by in shared(ell).items())
    found = {"of no layer in PyTorch, as they are here": own, "used in several ways": several}
    return {what: names for what, names in found.items() if names}


def lines(arrays):
    """A line a layer: ["Phi1: weight (512, 784), bias (512,)", ...]."""
    layers = {}
    for key, array in arrays.items():
        layer, _, word = key.rpartition(".")
        layers.setdefault(layer or word, []).append(f"{word * bool(layer)} {array.shape}".strip())
    return [f"{layer}: {', '.join(its)}" for layer, its in layers.items()]


def main(words):
    parser = Parser("dpedf export", __doc__)
    parser.add_argument("run", metavar="RUN", help="the directory of the run")
    parser.add_argument("file", metavar="FILE", help="what is written, such as model.safetensors")
    parser.add_checkpoint()
    args = parser.read(words)
    expect_one_process("export")
    if not args.file.endswith(".safetensors"):  # such as a checkpoint, which would be lost
        raise UserError(f"FILE is {args.file}, expected a name that ends in .safetensors")
    safetensors, file = library(), args.file
    expect_place(file)
    with opened(args, Ranks()) as model:
        export(model, file, safetensors)
    return 0


def export(model, file, safetensors):
    """Write the arrays of a model, and say what they are."""
    arrays, said = exported(model.ell, model.step), notes(model.ell)
    about = {"format": "pt", "config": config.text(model.settings), "step": str(model.step)}
    about |= {"phi_sha256": model.phi_sha256} | said
    for key in arrays:
        if not plain(key):
            raise UserError(f"{model.file}: {ascii(key)}, expected names in UTF-8 without NUL")
    with writing(file):
        replace(file, safetensors.numpy.save(arrays, about))
    for line in [*model.notes, *lines(arrays), *(f"{what}: {its}" for what, its in said.items())]:
        print_line(line)
    print_line(f"{file}: written from {model.file}, step {model.step:,}")
