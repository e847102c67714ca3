"""List runs, with what differs between them and what they have reached.

    dpedf runs runs/mnist-sweep --sort valid_loss

A run is "finished", "stopped" (--resume goes on with it), "live" (a job trains it), "failed" (an
error has ended it, said below the table) or "damaged".  The validation figures are those at the
lowest loss so far.
"""

from dpedf.errors import print_line
from dpedf.run.command_line import Parser, expect_one_process
from dpedf.tools.experiments.past import runs_in
from dpedf.tools.experiments.table import KEYS, table


def main(words):
    parser = Parser("dpedf runs", __doc__)
    what = "a directory that holds runs, or directories of runs (runs)"
    parser.add_argument("directory", metavar="DIR", nargs="?", default="runs", help=what)
    keys = f"{', '.join(KEYS)}; the best first, and last what has none (name)"
    parser.add_argument("--sort", metavar="KEY", choices=[*KEYS], default="name", help=keys)
    args = parser.read(words)
    expect_one_process("runs")
    for line in table(runs_in(args.directory), args.directory, args.sort):
        print_line(line)
