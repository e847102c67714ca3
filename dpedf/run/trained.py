"""The model of a run, opened again from one of its checkpoints."""

from pathlib import Path

import msgspec

from dpedf.data.form import read_form
from dpedf.errors import UserError, concerning, one_line
from dpedf.phi import Phi
from dpedf.run import build, config, room
from dpedf.run.checkpoint import install, read
from dpedf.run.directory import BEST, CHECKPOINT
from dpedf.run.outline import outline
from dpedf.run.own_code import own_file
from dpedf.run.resume import expect_unchanged, hash_of_code


class Trained:
    """A trained model, on a device.  Its data file need not be there.

    run: the directory of a run.  checkpoint: a file there; by default best.h5, or checkpoint.h5
    where there was nothing to validate on.  trusted: may the run name code that is not its own?

    x, y: its Inputs, without rows; form: of its rows.  Q, ell, phi: the model.
    settings: of the run.  file: the checkpoint; step: after which it was saved.
    notes: lines on what has changed since.
    UserError: there is no such run, or its code makes another model now.
    """

    def __init__(self, run, device, checkpoint=None, trusted=False):
        self.run = Path(run)
        self.file = self.run / (checkpoint or (BEST if (self.run / BEST).exists() else CHECKPOINT))
        if not self.run.is_dir():
            raise UserError(f"{run}: no such directory, expected that of a run, such as runs/mnist")
        found = read(self.file)
        rest = found["rest"]
        try:
            self.settings = msgspec.toml.decode(rest["settings"], type=config.Config)
            self.step, program, code = rest["step"], rest["program"], rest["code"]
            self.form = read_form(self.file, rest["form"])
        except (KeyError, msgspec.DecodeError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else one_line(error)
            raise UserError(f"{self.file}: {what}, expected a checkpoint of this version") from None
        with concerning(self.file):
            if not trusted:
                expect_own_code(self.settings, self.run)
            with room.enough():
                self.x, self.y = self.form.inputs()
                self.Q, self.ell = build.build(self.settings.model, self.x, self.y)
                self.phi = Phi(self.ell, 0, config.dtype(self.settings), device.put)
            expect_unchanged("program", outline(self.ell), program)
        install(self.file, found, self.phi)
        name = self.settings.model["build"]
        changed = hash_of_code(own_file(name)) != code
        self.notes = [f"{name} has changed, or what it imports from its folder"] if changed else []


def expect_own_code(settings, run):
    """UserError: the settings of a run name code that lies outside of its directory.

    Who opens a run need not trust who wrote it.
    """
    if file := foreign_code(settings, run):
        found = f'model.build = "{settings.model["build"]}" is code outside of {run}'
        raise UserError(f"{found}, expected --trust to run {file}")


def foreign_code(settings, run):
    """The file of code that a run names, if that lies outside of its directory; else ""."""
    file = own_file(settings.model["build"])
    within = not file or Path(file).resolve().is_relative_to(Path(run).resolve())
    return "" if within else file
