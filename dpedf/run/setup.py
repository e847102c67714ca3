"""From a command line to everything that a run is made of."""

from msgspec.structs import replace

from dpedf import check
from dpedf.data import Data
from dpedf.device.choose import choose
from dpedf.device.threads import blas_threads, expect_cores
from dpedf.errors import UserError, concerning
from dpedf.parallel import watchdog
from dpedf.parallel.agreement import expect_same
from dpedf.parallel.gradient import Gradient
from dpedf.parallel.links import link_between
from dpedf.parallel.trial import unchanged
from dpedf.phi import Phi
from dpedf.program import inputs_of, program
from dpedf.run import build, config, room
from dpedf.run.directory import RunDirectory
from dpedf.run.resume import Identity, described, listing


def assemble(settings, device):
    """(data, Q, ell, phi): what a config trains, on this device.

    UserError: there is no such data file or model, or they do not fit together.
    """
    asked, seed, dtype = settings.data, settings.seed, config.dtype(settings)
    data = Data(asked.file, asked.valid, seed, dtype, device, asked.window, asked.stride)
    with room.enough():
        Q, ell = build.build(settings.model, data.x, data.y)
        room.expect_room_for_phi(ell, settings)
        phi = Phi(ell, seed, dtype, device.put)
    build.expect_fit(Q, ell, data)
    return data, Q, ell, phi


def outline(loss):
    """The program of a loss, a line a node: z1 = Affine(Phi1.w (784, 10), Phi1.b (10,), x)."""
    names, parameters = program(loss).names, {*program(loss).parameters}

    def shown(n):
        shape = f" {n.value.shape}" if n in parameters else ""
        return f"{names.get(n) or getattr(n, 'name', type(n).__name__)}{shape}"

    return "\n".join(
        f"{names[n]} = {type(n).__name__}({', '.join(map(shown, inputs_of(n)))})"
        for n in program(loss).nodes
    )


class Setup:
    """What a run is made of, which all ranks agree on.

    words: the command line.  threads: how many BLAS may use.  resuming: was --resume given?
    state: what rank 0 then found beside Phi in the checkpoint; {} on other ranks.
    UserError: the run is impossible.
    """

    def __init__(self, words, ranks):
        self.ranks, self.resuming = ranks, "--resume" in words
        with ranks.together():
            self.path, self.settings, flags = config.from_command_line(words)
            ranks.timeout = self.settings.run.timeout
            with concerning(self.path):
                expect_cores(self.settings)
                self.device = choose(self.settings, ranks)
        try:
            self.make(may_hold_a_run=bool(flags))
        except BaseException:
            self.device.close()
            raise

    def make(self, may_hold_a_run):
        """Build every part of the run, on the device."""
        ranks, settings, device = self.ranks, self.settings, self.device
        expect_same(ranks, "the device", f"{device.kind}, products by {device.products}")
        self.link = link_between(ranks, device)
        with ranks.together():
            with concerning(self.path):
                self.data, self.Q, self.ell, self.phi = assemble(settings, device)
                slices, run = settings.train.slices, settings.run
                B = min(settings.train.batch_size, len(self.data.train))
                if slices > B:
                    found = f"train.slices = {slices}"
                    raise UserError(f"{found}, expected at most {B}, the rows of a minibatch")
                how = slices, run.allreduce == "buckets", run.bucket
                self.gradient = Gradient(self.ell, self.phi, self.link, self.data.put, *how)
                if device.unit == "cpu":
                    room.expect_room_for_rows(self.ell, self.gradient.passes.rows_of_slice(B))
                if settings.train.rows and not self.gradient.mixer:
                    self.gradient.passes.needed(settings.train.rows, B)  # or it is a UserError
                about = described(self.data) if ranks.rank == 0 else ""
                of = Identity(
                    settings, len(self.data.train), about, listing(self.ell, outline(self.ell))
                )
                self.directory = RunDirectory(run.dir, ranks, of)
            self.directory.claim(may_hold_a_run)
            self.state = self.directory.resume(self.phi) if self.resuming else {}
        watchdog.leave_words_in(self.directory.path, ranks)
        expect_same(ranks, "the model", outline(self.ell))
        expect_same(ranks, "the data", self.data.description())
        expect_same(ranks, "the settings", config.text(settings))
        self.threads = blas_threads(settings, ranks)

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
            with self.ranks.together(), unchanged(step), step.context():
                self.data.put(*self.data.train.load(self.data.train.numbers[:4]))
                check.gradients(self.ell, alive=self.ranks.alive)

    def begin(self, training):
        """Write the settings as they were resolved, and before its first step, a checkpoint."""
        overlap = "buckets" if self.gradient.overlap else "whole"
        found = dict(device=self.device.unit, threads=self.threads, allreduce=overlap)
        run, train = replace(self.settings.run, **found), self.settings.train
        if not self.gradient.mixer:  # which takes all rows of a rank, whatever their number
            train = replace(train, rows=self.gradient.passes.rows(train.batch_size))
        settings = replace(self.settings, run=run, train=train)
        self.directory.begin(settings, training.step.number, training.saves.checkpoint)
