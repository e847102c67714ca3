"""Print the program that a step of training runs, as source code.

    dpedf source configs/mnist.toml --time

An assignment a line: forward, backward, the sum over ranks, the update.  Beside it stand its shape,
the bytes that it reads and writes, each once, or once for each slice, and its floating-point
operations, for all rows of the minibatch; a function such as exp is one operation.  With --time,
steps are run on one rank, and each line says how many milliseconds of a step it takes.
"""

from collections import defaultdict
from contextlib import closing
from functools import partial
from itertools import groupby
from statistics import median
from time import perf_counter

from threadpoolctl import threadpool_limits

from dpedf.device.choose import choose
from dpedf.device.threads import blas_threads
from dpedf.edf import Forward
from dpedf.errors import concerning
from dpedf.parallel.buckets import Buckets
from dpedf.parallel.gradient import Gradient
from dpedf.parallel.ranks import Ranks
from dpedf.parallel.trial import choose_passes, seconds
from dpedf.program import during, program
from dpedf.run import config
from dpedf.run.average import Averaged, averaging
from dpedf.run.command_line import Parser, expect_one_process
from dpedf.run.report import cut
from dpedf.run.rules import OwnRule, update_rule
from dpedf.run.setup import assemble
from dpedf.run.step import Step
from dpedf.source.listing import naming, page
from dpedf.source.statements import Statement, statements, update

TIMED = 30  # steps, of which each time is the median
ADDING = "addgrad", "addrows", "addproduct", "addslices", "own_grad"  # what a backward calls


class Training:
    """What a config trains, how it makes a step, and its first minibatch: B rows in V slices."""

    def __init__(self, settings, ranks, device):
        self.settings, self.device, train = settings, device, settings.train
        self.data, _, self.ell, self.phi = assemble(settings, device)
        slices = config.slices(train, len(self.data.train))
        self.gradient = Gradient(self.ell, self.phi, ranks, self.data.put, slices)
        rule = averaging(update_rule(self.phi, train), train, self.ell, print)
        self.step = Step(self.gradient, rule, device, settings.seed, train.grad_clip)
        rows = self.data.train.order(settings.seed, 0)[: train.batch_size]
        self.B, self.V = len(rows), self.gradient.passes.V
        self.minibatch = *self.data.train.load(rows), self.B
        self.run = partial(self.step, *self.minibatch, 0.0)  # eta, so that Phi stays

    def sections(self):
        """{title: Statements} of a step."""
        (x, y, B), data, settings = self.minibatch, self.data, self.settings
        with during(B=B):
            data.put(x, y)
            Forward(self.ell, train=True)
        nbytes = sum(array.nbytes for array in (x, y, data.x.value, data.y.value))
        forward = [Statement(data.x, None, f"x, y = rows of {data.path}", bytes=nbytes)]
        backward, ending, grad = [], [], self.phi.grad
        for s in statements(self.ell, naming(self.ell, x=data.x, y=data.y), self.V):
            (backward if s.target else forward).append(s)
        if settings.run.allreduce == "buckets":
            backward = [*self.with_buckets(backward)]
        else:
            ending.append(Statement(None, None, "Phi.grad = the sum of Phi.grad over ranks"))
        if norm := settings.train.grad_clip:
            text = f"Phi.grad = Phi.grad / max(|Phi.grad| / {norm:g}, 1)"
            ending.append(Statement(None, None, text, (), 3 * grad.nbytes, 3 * grad.size))
        rule, averages = self.step.update, isinstance(self.step.update, Averaged)
        rule = rule.rule if averages else rule
        if isinstance(rule, OwnRule):  # of which only Python knows what it computes
            text = f"Phi <- {rule.name} of {', '.join(['Phi.grad', 'eta', *rule.vectors])}"
            ending.append(Statement(None, None, text))
        else:
            ending.append(update(rule, settings.train))
        if averages:
            last, decay = ending[-1], settings.train.average
            last.steps = *last.steps, f"mean <- {decay:g} mean + (1 - {decay:g}) Phi"
            if last.bytes is not None:
                last.bytes += 3 * grad.nbytes
                last.operations += 3 * grad.size
        return {"forward": forward, "backward": backward, "update": ending}

    def with_buckets(self, statements):
        """Those of backward, and after those of each node the sums over ranks that start there."""
        buckets = Buckets(self.phi, self.settings.run.bucket)
        text = "the sum over ranks of Phi.grad[{}:{}] starts"
        for node, of_node in groupby(statements, lambda s: s.node):
            yield from of_node
            for p in program(self.ell).completes[node]:
                for ends in buckets.complete(p):
                    yield Statement(None, None, text.format(*ends))
        if buckets.left:
            yield Statement(None, None, text.format(0, buckets.left))


class Stopwatch:
    """How long each Statement takes, of those made of a step.

    What passes in a node's backward until it has added to a gradient belongs to the Statement that
    adds there, to the first if there are several; the rest belongs to the node's last Statement.
    A sum over rows opens with what its first Statement adds, and the last one completes it.
    """

    def __init__(self, training, made):
        self.training, self.running = training, None  # the node whose backward runs
        first = {(s.node, s.target): s for s in reversed(made)}
        last = {s.node: s for s in made}
        firsts = {s.target: s for s in reversed(made)}
        self.ends = {s.target: (firsts[s.target], s) for s in made if s.target}
        lap, clip, around = self.lap, made[-2] if training.step.max_norm else None, self.around
        around(training.gradient, "put", lambda: lap(made[0]), before=lap)
        for n in program(training.ell).nodes:
            around(n, "forward", lambda n=n: lap(first[n, None]), before=lap)
            around(n, "backward", lambda n=n: lap(last.get(n)), before=lambda n=n: lap(runs=n))
        for t in self.ends:
            for name in ADDING:
                around(t, name, lambda t=t: lap(first.get((self.running, t))))
        around(training.ell, "backward", lambda: None, before=self.watch_sums)
        around(training.step, "update", lambda: lap(made[-1]), before=lambda: lap(clip))

    def watch_sums(self):
        """Watch the sums over rows, which each pass makes anew."""
        for t, (first, last) in self.ends.items():
            for name, line in ("open", first), ("so_far", last), ("finish", last):
                if hasattr(t.sum_over_rows, name):
                    self.around(t.sum_over_rows, name, lambda line=line: self.lap(line))

    def run(self):
        """Make a step; return {Statement: seconds of it}."""
        self.seconds = defaultdict(float)
        self.lap()
        self.training.run()
        return self.seconds

    def lap(self, statement=None, runs=None):
        """What passed since the last lap belongs to this Statement, or to none."""
        self.training.device.wait()
        if statement:
            self.seconds[statement] += perf_counter() - self.last
        self.last, self.running = perf_counter(), runs or self.running

    def around(self, thing, name, after, before=lambda: None):
        """From now on, thing.name() calls before() and after()."""
        method = getattr(thing, name)

        def call(*args):
            before()
            result = method(*args)
            after()
            return result

        setattr(thing, name, call)


def measured(training, made):
    """(seconds of a step, {Statement: seconds of it}), medians of some steps after one."""
    whole = [seconds(training.run, training.device) for _ in range(TIMED + 1)]
    training.device.stop_recording("each line is timed")
    watch = Stopwatch(training, made)
    each = [watch.run() for _ in range(TIMED + 1)]
    return median(whole[1:]), {s: median(times[s] for times in each[1:]) for s in each[1]}


def main(words):
    parser = Parser("dpedf source", __doc__)
    parser.add_config()
    parser.add_argument("--time", action="store_true", help="run steps, and time each line")
    args, ranks = parser.read(words), Ranks()
    expect_one_process("source")
    settings = config.load(args.config, args.settings)
    with concerning(args.config):
        device = choose(settings, ranks)
        threads, _ = blas_threads(settings, ranks)
        with closing(device), threadpool_limits(threads, "blas"):
            show(args.config, Training(settings, ranks, device), args.time)


def show(path, training, timed):
    """Print the page of a config at this path."""
    settings, sections, B, V = training.settings, training.sections(), training.B, training.V
    model, n, times = settings.model["build"], len(training.phi.value), None
    if timed:
        how = training.gradient.link, {}, {B}, settings.train.rows
        note = choose_passes(training.step, training.minibatch, *how)
        whole, times = measured(training, [s for made in sections.values() for s in made])
    rows = " to ".join(map(str, sorted({B // V, -(-B // V)})))
    slices = f" in {V} slices of {rows} row{'s' * (B > V)}, added in a binary tree" * (V > 1)
    print(f"{path}: {model}, {n:,} numbers in Phi, on {training.device.kind}")
    print(f"a step: B = {B} rows{slices}; bytes and flop are those of all", end="\n\n")
    print(*page(sections, times), sep="\n")
    if timed:
        took = f"{1e3 * whole:.3f} ms when its lines are not timed, the median of {TIMED}"
        how = cut(training.gradient.passes, B) + f"; {note}" * bool(note)
        print(f"\nA step takes {took}: {how}.")
