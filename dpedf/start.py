"""From a command line to what a run is made of."""

from threadpoolctl import threadpool_limits

from dpedf import build, check, config, device, wires
from dpedf.checkpoint import RunDirectory
from dpedf.data import Data
from dpedf.errors import concerning
from dpedf.gradient import Gradient
from dpedf.phi import Phi


def assembled(settings, device):
    """(data, Q, ell, phi): what a config trains, and on what, on this device.

    UserError: there is no such data file or model, or they do not fit.
    """
    asked, seed, dtype = settings.data, settings.seed, config.dtype(settings)
    data = Data(asked.file, asked.valid, seed, dtype, device, asked.window, asked.stride)
    Q, ell = build.built(settings.model, data.x, data.y)
    phi = Phi(ell, seed, dtype, device.put)
    check.fits(Q, ell, data)
    return data, Q, ell, phi


class Start:
    """What a run of these words is made of, which all ranks agree on.

    threads: those of BLAS, on each rank.  resuming: was it asked to go on?  state: what rank 0
    then found beside Phi in the checkpoint, {} elsewhere.  UserError: it cannot run.
    """

    def __init__(self, words, ranks):
        self.ranks = ranks
        with ranks.together():
            path, self.settings, flags = config.from_command_line(words)
            with concerning(path):
                self.device = device.chosen(self.settings, ranks)
        ranks.same("the device", f"{self.device.kind}, products by {self.device.products}")
        self.wire, self.resuming = wires.between(ranks, self.device), "--resume" in flags
        with ranks.together():
            with concerning(path):
                self.make()
            self.directory.claim(held=bool(flags))
            self.state = self.directory.resume(self.phi, self.settings) if self.resuming else {}
        ranks.same("the model", check.listing(self.ell))
        ranks.same("the data", self.data.listing())
        ranks.same("the settings", config.text(self.settings))
        self.threads = device.blas_threads(self.settings, ranks)
        threadpool_limits(self.threads, "blas")

    def make(self):
        """All that fails where what the user gave does not fit."""
        train, run = self.settings.train, self.settings.run
        self.data, self.Q, self.ell, self.phi = assembled(self.settings, self.device)
        how = train.slices, run.allreduce == "buckets", run.bucket
        self.gradient = Gradient(self.ell, self.phi, self.wire, self.data.put, *how)
        self.directory = RunDirectory(run.dir, self.ranks)

    def read(self):
        """Bring the rows to where they are kept; what is streamed, to this host's memory."""
        if self.settings.data.cache != "none":
            self.data.keep(self.settings.data.cache, self.ranks)
        elif self.ranks.host_rank == 0:
            self.data.read_through()
        self.ranks.wait()  # for the reader, who may take longer than a step may
