"""From a command line to everything that a run is made of."""

from functools import partial

from msgspec.structs import replace

from dpedf import check
from dpedf.data import Data
from dpedf.device.choose import choose
from dpedf.device.threads import blas_threads, expect_cores
from dpedf.edf import CompNodes, Parameters
from dpedf.errors import UserError, concerning, plural
from dpedf.optim import last_step
from dpedf.parallel import watchdog
from dpedf.parallel.agreement import expect_same
from dpedf.parallel.gradient import Gradient
from dpedf.parallel.links import link_between
from dpedf.parallel.trial import unchanged
from dpedf.phi import Phi
from dpedf.program import program
from dpedf.run import build, config, room, rules
from dpedf.run.average import averaging
from dpedf.run.command_line import from_command_line
from dpedf.run.directory import RunDirectory
from dpedf.run.measures import chosen
from dpedf.run.outline import outline
from dpedf.run.resume import identity
from dpedf.run.tensorboard import expect_writer
from dpedf.run.weights import few, start_from


def assemble(settings, device):
    """(data, Q, ell, phi): what a config trains, on this device.

    UserError: there is no such data file or model, or they do not fit together.
    """
    asked, seed, dtype = settings.data, settings.seed, config.dtype(settings)
    data = Data(asked.file, asked.valid, seed, dtype, device, asked.window, asked.stride)
    with data.explaining(), room.enough():
        Q, ell = build.build(settings.model, data.x, data.y)
        room.expect_room_for_phi(ell, settings)
        phi = Phi(ell, seed, dtype, device.put)
        build.expect_fit(Q, ell, data)
    if (patience := settings.train.patience) and not len(data.valid):
        expected = "expected some, by data.valid or a group valid in the file"
        raise UserError(f"train.patience = {patience}: no rows to validate on, {expected}")
    return data, Q, ell, phi


def expect_rows_to_learn_from(ell, rows, train):
    """UserError: a minibatch of so many rows has too few for a node, such as BatchNorm."""
    B, left = min(train.batch_size, rows), rows % train.batch_size
    met = {B: "a minibatch"}
    if not 0 < train.steps <= rows // train.batch_size:  # it reaches the last one of an epoch
        met.setdefault(left or B, f"the last minibatch of {rows:,} rows")
    for size, which in met.items():
        for n in [n for n in CompNodes(ell) if hasattr(n, "expect_rows")]:
            try:
                n.expect_rows(size)
            except ValueError as error:
                found = f"train.batch_size = {train.batch_size}: {which} has {size}"
                what = (
                    f"{program(ell).names[n]} = {error}; set another train.batch_size or data.valid"
                )
                raise UserError(f"{found}, {what}") from None


class Setup:
    """What a run is made of, which all ranks agree on.

    words: the command line.  threads, why_threads: how many BLAS may use, and why.
    resuming: was --resume given?
    state: what rank 0 then found beside Phi in the checkpoint; {} on other ranks.
    UserError: the run is impossible.
    """

    def __init__(self, words, ranks):
        self.ranks = ranks
        with ranks.together():
            self.path, self.settings, flags = from_command_line(words)
            self.resuming = "--resume" in flags
            ranks.timeout = self.settings.run.timeout
            with concerning(self.path):
                expect_cores(self.settings)
                if self.settings.run.tensorboard and ranks.rank == 0:  # which alone writes
                    expect_writer()
                self.device = choose(self.settings, ranks)
        self.directory = RunDirectory(self.settings.run.dir, ranks)  # before a model goes elsewhere
        try:
            self.make(may_hold_a_run=bool(flags))
        except BaseException:
            self.directory.close()
            self.device.close()
            raise

    def make(self, may_hold_a_run):
        """Build every part of the run, on the device."""
        ranks, settings, device = self.ranks, self.settings, self.device
        expect_same(ranks, "the device", f"{device.kind}, products by {device.products}")
        self.link = link_between(ranks, device)
        note = self.directory.notes.append
        with ranks.together():
            with concerning(self.path):
                self.data, self.Q, self.ell, self.phi = assemble(settings, device)
                self.metrics = chosen(settings.run.metrics, self.Q, self.ell, self.data.y)
                self.gradient = self.make_gradient()
                self.directory.identity = identity(settings, self.data, self.ell)
                with room.enough():
                    self.update = rules.update_rule(self.phi, settings.train, note)
                self.last_step = last_step(settings.train, len(self.data.train))
                self.eta = rules.schedule(settings.train, self.last_step, note)
                self.directory.identity.learns_by()
            if ranks.rank == 0 and not (self.resuming and self.directory.held()):
                self.start_from_weights()  # all ranks start from its Phi
            self.update = averaging(self.update, settings.train, self.ell, note)
            self.directory.claim(may_hold_a_run)
            self.state = self.directory.resume(self.phi) if self.resuming else {}
        if frozen := program(self.ell).frozen:
            numbers, names = sum(p.value.size for p in frozen), few([p.name for p in frozen])
            self.directory.notes.append(f"{names}: {plural(numbers, 'number')} frozen")
        watchdog.leave_words_in(self.directory.path, ranks)
        expect_same(ranks, "the model", outline(self.ell))
        expect_same(ranks, "the data", self.data.description())
        expect_same(ranks, "the settings", config.text(settings))
        expect_same(ranks, "train.schedule", rules.described(self.eta, self.last_step))
        self.threads, self.why_threads = blas_threads(settings, ranks)

    def start_from_weights(self):
        """Start from the values in the file that model.weights names, if it names one."""
        if path := self.settings.model.get("weights"):
            with concerning(f"{self.path}: model.weights"):
                sha256, afresh = start_from(path, self.ell)
            self.directory.identity.weights = sha256
            beside = f"; initial values for {few(afresh)}, not in there" * bool(afresh)
            self.directory.notes.append(f"starts from {path}, SHA-256 {sha256[:12]}...{beside}")

    def make_gradient(self):
        """The Gradient that the settings ask for.  UserError: it cannot be cut like this."""
        train, run, rows = self.settings.train, self.settings.run, len(self.data.train)
        B = min(train.batch_size, rows)
        expect_rows_to_learn_from(self.ell, rows, train)
        how = config.slices(train, rows), run.allreduce == "buckets", run.bucket
        gradient = Gradient(self.ell, self.phi, self.link, self.data.put, *how)
        if self.device.unit == "cpu":
            room.expect_room_for_rows(self.ell, gradient.passes.rows_of_slice(B))
        if train.rows and not gradient.mixer:
            gradient.passes.needed(train.rows, B)  # or it is a UserError
        return gradient

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        """The run has ended, perhaps by an error."""
        self.directory.leave_word(error)
        self.directory.close()
        self.device.close()

    def read(self):
        """Read all rows once: to where they are kept, or a streamed file into the page cache.

        AgreedError: they are damaged, or not finite, or memory cannot keep them.
        """
        if self.settings.data.cache != "none":
            self.data.keep(self.settings.data.cache, self.ranks)
        else:
            self.data.read_through(self.ranks)

    def watch_nan(self):
        """Watch for nan, if run.check_nan asks for it."""
        if self.settings.run.check_nan:
            self.device.stop_recording("run.check_nan = true")
            check.nan(self.ell)

    def check_gradients(self, step):
        """Check the gradients of a step, if run.check_gradients asks for it."""
        if self.settings.run.check_gradients:
            rows = self.data.train.numbers[:4]
            with self.ranks.together(), unchanged(step), step.context():
                self.data.put(*self.data.train.load(rows))
                numbers, error = check.gradients(self.ell, alive=self.ranks.alive)
            of = f"{plural(numbers, 'number')} of {plural(len(Parameters(self.ell)), 'parameter')}"
            found = f"{of}, {plural(len(rows), 'row')}, relative error up to {error:.0e}"
            self.ranks.say(f"gradients agree with finite differences: {found}")

    def begin(self, training):
        """Write the settings as they were resolved, and before its first step, a checkpoint."""
        overlap = "buckets" if self.gradient.overlap else "whole"
        found = dict(device=self.device.unit, threads=self.threads, allreduce=overlap)
        run, train = replace(self.settings.run, **found), self.settings.train
        if not self.gradient.mixer:  # which takes all rows of a rank, whatever their number
            train = replace(train, rows=self.gradient.passes.rows(train.batch_size))
        settings = replace(self.settings, run=run, train=train)
        save = partial(training.saves.checkpoint, training)
        self.directory.begin(settings, training.step.number, save)
