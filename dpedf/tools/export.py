"""Write the arrays of a trained model for PyTorch.

    dpedf export runs/mnist model.safetensors

They have PyTorch's names, shapes and signs: the package Phi1 of an Affine is a layer nn.Linear of
the name Phi1, which has Phi1.weight, w transposed, and Phi1.bias, -b.  What no layer of PyTorch has
stays as it is, under its own name, and a line says so.  docs/pytorch.md shows modules that load
such a file.  model.weights = "model.safetensors" in a config starts from it.
"""

from pathlib import Path

from dpedf.data.disk import replace, writing
from dpedf.device import CPU
from dpedf.errors import UserError, print_line
from dpedf.run import config
from dpedf.run.command_line import Parser, expect_one_process
from dpedf.run.pytorch import shared, tensors
from dpedf.run.trained import Trained
from dpedf.run.weights import exported, library


def notes(ell):
    """{what: names} of the arrays that PyTorch's layers have not just so."""
    own = ", ".join(t.name for t in tensors(ell) if t.own)
    several = ", ".join(f"{p.name} by {' and '.join(by)}" for p, by in shared(ell).items())
    found = {"as they are": own, "used in several ways": several}
    return {what: names for what, names in found.items() if names}


def main(words):
    parser = Parser("dpedf export", __doc__)
    parser.add_argument("run", metavar="RUN", help="the directory of the run")
    parser.add_argument("file", metavar="FILE", help="what is written, such as model.safetensors")
    parser.add_checkpoint()
    args = parser.read(words)
    expect_one_process("export")
    safetensors, file = library(), Path(args.file)
    model = Trained(args.run, CPU(), args.checkpoint, args.trust)
    if file.exists() and file.samefile(model.file):
        raise UserError(f"{file}: the checkpoint itself, expected another file")
    arrays, said = exported(model.ell, model.step), notes(model.ell)
    about = {"config": config.text(model.settings), "step": str(model.step)}
    about |= {"format": "pt", "phi_sha256": model.phi.sha256(), **said}
    with writing(file):
        replace(file, safetensors.numpy.save(arrays, about))
    for line in model.notes:
        print_line(line)
    for key, array in arrays.items():
        print_line(f"{key:32} {array.shape}")
    for what, names in said.items():
        print_line(f"{what}: {names}")
    print_line(f"{file}: {model.file} at step {model.step:,}")
    return 0
