"""The model of a run, opened again from one of its checkpoints."""

import os
from contextlib import closing, contextmanager
from difflib import get_close_matches
from pathlib import Path

import msgspec
import numpy as np
from msgspec.structs import replace
from threadpoolctl import threadpool_limits

from dpedf.data.form import read_form
from dpedf.device import overwrite
from dpedf.device.choose import choose
from dpedf.device.gpu import driver_version
from dpedf.device.threads import blas_threads
from dpedf.errors import UserError, concerning, one_line
from dpedf.parallel.agreement import expect_same
from dpedf.phi import Phi
from dpedf.program import during, program
from dpedf.run import build, config, room
from dpedf.run.checkpoint import expect_vectors, install, looks_whole, of_the_model, read
from dpedf.run.directory import BEST, CHECKPOINT
from dpedf.run.outline import outline
from dpedf.run.own_code import own_file
from dpedf.run.resume import expect_unchanged, hash_of_code
from dpedf.run.settings.sections import Count, Positive


class Saved(msgspec.Struct):
    """What a checkpoint says of its run beside its vectors."""

    settings: str
    form: str
    program: str
    code: str
    step: Count
    ranks: Positive
    passes: Positive


class Trained:
    """A trained model, on a device.  Its data file need not be there.

    run: the directory of a run.  device: what computes, or what chooses it for its settings.
    checkpoint: a file there; by default best.h5, or checkpoint.h5 where there was nothing to
    validate on.  trusted: may the code be run that it names in a file?

    x, y: its Inputs, without rows; form: of its rows.  Q, ell, phi: the model.
    settings: of the run.  file: the checkpoint; step: after which it was saved.
    phi has the values of its average, where the run kept one; phi_sha256 is of Phi itself.
    rows: of a pass of training.  notes: lines on what has changed since.
    UserError: there is no such run, or its code makes another model now.
    """

    def __init__(self, run, device, checkpoint=None, trusted=False):
        self.run = Path(run)
        self.file = checkpoint_in(self.run, checkpoint)
        found = read(self.file)
        try:
            saved = msgspec.convert(found["rest"], Saved)
        except msgspec.ValidationError as error:
            what = f"{self.file}: {one_line(error)}"
            raise UserError(f"{what}, expected a checkpoint of this version") from None
        with concerning(self.file):
            self.settings = config.decoded(saved.settings)
            self.step, self.form = saved.step, read_form(saved.form)
            self.rows = rows_of_a_pass(self.settings.train, self.form.rows, saved)
            if not trusted:
                expect_own_code(self.settings)
            self.device = device(self.settings) if callable(device) else device
            with room.enough():
                self.x, self.y = self.form.inputs()
                self.Q, self.ell = build.build(self.settings.model, self.x, self.y)
                expect_unchanged("program", outline(self.ell), saved.program)
                expect_size(self.ell, found)
                self.phi = Phi(self.ell, 0, config.dtype(self.settings), self.device.put)
        install(self.file, found, self.phi)
        self.phi_sha256 = self.phi.sha256()
        name = self.settings.model["build"]
        changed = hash_of_code(own_file(name)) != saved.code
        self.notes = [f"{name} has changed, or what it imports from its folder"] if changed else []
        if (average := of_the_model(found)) is not found["phi"]:
            with concerning(self.file):
                expect_vectors({"average": average}, {"average": self.phi.value})
            overwrite(self.phi.value, average)
            share = self.settings.train.average
            self.notes.append(f"the average of Phi, of train.average = {share}")


def checkpoint_in(run, name=None):
    """The file of a checkpoint in the directory of a run, of this name or the best one.

    UserError: there is no such run, or no such checkpoint in it.
    """
    expected = "expected the directory of a run, such as"
    if os.path.isfile(run):
        words = f" --checkpoint {run.name}" * (run.suffix == ".h5")
        raise UserError(f"{run}: a file, {expected} {run.parent}{words}")
    if not os.path.isdir(run):
        others = runs_in(run.parent) + runs_in(Path("runs"))
        such = [*get_close_matches(f"{run}", others, 1), *others, "runs/mnist"][0]
        raise UserError(f"{run}: no such directory, {expected} {such}")
    there = sorted(file.name for file in run.glob("*.h5"))
    file = run / (name or (BEST if BEST in there else CHECKPOINT))
    if os.path.exists(file) and (file.suffix == ".h5" or looks_whole(file)):
        return file
    if name and there:
        raise UserError(f"{file}: no checkpoint, expected one of {', '.join(there)}")
    such = [*runs_in(run), "runs/mnist"][0]
    raise UserError(f"{run}: no {file.name} in it, {expected} {such}")


def runs_in(folder):
    """The directories there which hold runs."""
    return [f"{file.parent}" for file in sorted(folder.glob(f"*/{CHECKPOINT}"))]


def expect_size(ell, found):
    """UserError: a model is not of as many numbers as a checkpoint of it.

    Then there may be no end of them, and no memory for them.
    """
    here = {p.name: p.value.size for p in program(ell).frozen}
    here["phi"] = sum(p.value.size for p in program(ell).parameters)
    there = {name: array.size for name, array in found["running"].items()}
    there["phi"] = found["phi"].size
    for name, size in here.items():
        if there.get(name) != size:
            held = f"{there[name]:,} numbers" if name in there else "missing"
            raise UserError(f"{name} is {held}, expected {size:,} numbers as in the model")


def expect_own_code(settings):
    """UserError: the settings of a run name code in a file, wherever that lies.

    Who opens a run need not trust who wrote it, or what was unpacked with it.
    """
    if file := own_file(name := settings.model["build"]):
        raise UserError(f'model.build = "{name}" is code, expected --trust to run {file}')


def rows_of_a_pass(train, rows, saved):
    """How many rows a pass of training took, of so many rows to learn from."""
    B = min(train.batch_size, rows)
    if train.slices:
        return -(-B // train.slices)
    return -(-B // (saved.ranks * saved.passes))


@contextmanager
def opened(args, ranks):
    """with opened(args, ranks) as model: a Trained, the same on all ranks, each on its device.

    args: run, checkpoint and trust of a command line.  AgreedError: there is no such model.
    """

    def device(settings):
        run, train = settings.run, settings.train
        ranks.timeout = run.timeout
        if run.device == "gpu":  # as long as there is one
            run = replace(run, device="auto")
        if config.dtype(settings) != train.precision and driver_version() is None:
            ranks.say(f"train.precision = {train.precision!r} takes a GPU, so this is in float32")
            train = replace(train, precision="float32")
        data = replace(settings.data, cache="none")
        settings = replace(settings, run=run, train=train, data=data)
        found = choose(settings, ranks, granted_is_taken=False)
        if found.unit == "cpu" and found.note:
            ranks.say(found.note)
        return found

    with ranks.together():
        model = Trained(args.run, device, args.checkpoint, args.trust)
    with closing(model.device):
        expect_same(ranks, model.file, f"Phi {model.phi.sha256()} of step {model.step}")
        threads, _ = blas_threads(model.settings, ranks)
        drawn = during(seed=model.settings.seed, step=model.step)  # as in training
        with threadpool_limits(threads, "blas"), np.errstate(all="ignore"), drawn:
            yield model
