"""Print the program that a step of training runs, as source code.

    python -m dpedf source CONFIG [section.key=value ...] [--time]

An assignment a line: forward, backward, the sums over slices and ranks, the update.  Beside it
stand its shape, the bytes of what it reads and writes, once each, and its floating-point
operations, of which a function such as exp is one, for all slices of the minibatch.  With --time,
steps are run, on one rank, and each line says how many milliseconds of a step it takes.
"""

import time
from collections import Counter, defaultdict
from functools import partial
from statistics import median

import numpy as np
from threadpoolctl import threadpool_limits

from dpedf.device.choose import choose
from dpedf.device.threads import blas_threads
from dpedf.edf import Forward
from dpedf.errors import UserError, concerning
from dpedf.kernels.vector import add_in_order
from dpedf.optim import clip, update_rule
from dpedf.parallel.buckets import Buckets
from dpedf.parallel.gradient import Gradient
from dpedf.parallel.ranks import Ranks
from dpedf.parallel.sums import cuts
from dpedf.program import during, program
from dpedf.run import config
from dpedf.run.setup import assemble
from dpedf.source.expressions import Letter, changed, operations
from dpedf.source.listing import naming, page
from dpedf.source.reading import rule
from dpedf.source.statements import Statement, backward, forward
from dpedf.tools import Parser

TIMED = 30  # steps, of which each time is the median


class Step:
    """A step on the first minibatch that a config trains on, as one rank runs it."""

    def __init__(self, settings, ranks):
        train, seed = settings.train, settings.seed
        self.settings, self.device = settings, choose(settings, ranks)
        self.data, _, self.ell, self.phi = assemble(settings, self.device)
        rows = self.data.train.order(seed, 0)[: train.batch_size]
        self.x, self.y = self.data.train.load(rows)
        self.gradient = Gradient(
            self.ell, self.phi, ranks, self.data.put, train.slices, bucket=settings.run.bucket
        )
        self.B, self.V = len(rows), self.gradient.V
        self.sizes = np.diff(cuts(self.B, self.V)).tolist()  # rows of each slice
        self.update = update_rule(self.phi, train)
        self.eta = np.zeros((), self.phi.value.dtype, like=self.phi.value)  # 0, so that Phi stays

    def run(self):
        self.gradient(self.x, self.y, self.B)
        if self.settings.train.grad_clip:
            self.clip()
        self.update(self.eta, 0)

    def clip(self):
        clip(self.phi.grad, self.settings.train.grad_clip)

    def add_slices(self):
        for _, _, additions in self.gradient.plan:
            add_in_order(self.gradient.grads, additions, 0, len(self.phi.value))

    @property
    def slices(self):
        rows = " to ".join(str(n) for n in sorted({*self.sizes}))
        return f"{self.V} slices of {rows} rows"

    # as source code

    def passes(self):
        """The Statements of forward and of backward, with the costs of all slices."""
        counts = Counter(self.sizes)
        made, *others = ([*self.of_slice(rows)] for rows in counts)
        for same in zip(made, *others, strict=True):
            for cost in "bytes", "operations":
                costs = [getattr(s, cost) for s in same]
                each = zip(costs, counts.values(), strict=True)
                setattr(same[0], cost, None if None in costs else sum(n * k for n, k in each))
        first = next((k for k, s in enumerate(made) if s.target), len(made))
        return made[:first], made[first:]

    def of_slice(self, rows):
        """The Statements of forward and backward of a slice of so many rows."""
        arrays = self.x[:rows], self.y[:rows]
        with during(B=self.B):
            self.data.put(*arrays)
            Forward(self.ell, train=True)
        x, y = self.data.x, self.data.y
        names, text = naming(self.ell, x=x, y=y), f"x, y = rows of {self.settings.data.file}"
        nbytes = sum(array.nbytes for array in (*arrays, x.value, y.value))
        yield Statement(x, None, text, bytes=nbytes)
        yield from forward(self.ell, names)
        yield from backward(self.ell, names)

    def with_buckets(self, statements):
        """Those of backward, and after a node's the sums over ranks that start there."""
        buckets = Buckets(self.phi, self.gradient.buckets.size)
        for s, following in zip(statements, [*statements[1:], None], strict=True):
            yield s
            if following and following.node is s.node:
                continue
            ends = [
                pair for p in program(self.ell).completes[s.node] for pair in buckets.complete(p)
            ]
            for low, high in ends + [(0, buckets.left)] * bool(not following and buckets.left):
                text = f"the sum over ranks of Phi.grad[{low}:{high}] starts"
                yield Statement(None, None, text)

    def ending(self):
        """(Statement, what it runs) of what is done to whole vectors after backward."""
        phi, train, n = self.phi, self.settings.train, len(self.phi.value)
        if self.V > 1:
            text = f"Phi.grad = the sum of the gradients of {self.V} slices, in a binary tree"
            added = (self.V - 1) * phi.grad.nbytes
            yield Statement(None, None, text, (), 3 * added, (self.V - 1) * n), self.add_slices
        if self.settings.run.allreduce != "buckets":
            yield Statement(None, None, "Phi.grad = the sum of Phi.grad over ranks"), None
        if train.grad_clip:
            text = f"Phi.grad = Phi.grad / max(|Phi.grad| / {train.grad_clip:g}, 1)"
            yield Statement(None, None, text, (), 3 * phi.grad.nbytes, 3 * n), self.clip
        *steps, text = equations = rule(type(self.update), train)
        vectors = {"Phi", "grad", "g", "d", *self.update.state}
        flop = sum(operations(of_numbers(e.right, vectors), {"k": n}) for e in equations)
        states = sum(vector.nbytes for vector in self.update.state.values())
        nbytes = 3 * phi.value.nbytes + 2 * states
        update = partial(self.update, self.eta, 0)
        yield Statement(None, None, str(text), [*map(str, steps)], nbytes, flop), update


def of_numbers(e, vectors):
    """The same of the numbers k of these vectors."""
    return Letter("k") if e.what in vectors else changed(e, lambda part: of_numbers(part, vectors))


# how long it takes


class Stopwatch:
    """The seconds that each Statement of a step takes, around all that forward and backward call.

    What passes in a node's backward until it has added to a gradient is of the statement that
    adds there, of the first where there are several; what remains is of its last one.
    """

    def __init__(self, step, statements):
        self.wait, self.running, self.taken = step.device.wait, None, defaultdict(float)
        first = {(s.node, s.target): s for s in reversed(statements) if s.node is not s.target}
        last = {s.node: s for s in statements}
        self.time(step.gradient, "put", lambda: statements[0])
        for n in program(step.ell).nodes:
            self.time(n, "forward", lambda n=n: first[n, None])
            self.time(n, "backward", lambda n=n: last[n])
        for t in {s.target for s in statements if s.target}:
            for name in "addgrad", "addproduct", "own_grad":
                self.time(t, name, lambda t=t: first.get((self.running, t)), begins=False)

    def lap(self, statement=None):
        """What passed since the last lap was the statement's, or nobody's."""
        self.wait()
        if statement:
            self.taken[statement] += time.perf_counter() - self.last
        self.last = time.perf_counter()

    def time(self, thing, name, statement, begins=True):
        """From now on, thing.name() is timed, as part of statement(); begins: from its start on."""
        method = getattr(thing, name)

        def call(*args):
            if begins:
                self.running = thing
                self.lap()
            method(*args)
            self.lap(statement())

        setattr(thing, name, call)


def measured(step, statements, ending):
    """(seconds of a step, {Statement: seconds of it}), medians of some steps after one."""
    whole, each = [], []
    for _ in range(TIMED + 1):
        start = time.perf_counter()
        step.device.run(step, step.run)
        step.device.wait()
        whole.append(time.perf_counter() - start)
    watch = Stopwatch(step, statements)
    for _ in range(TIMED + 1):
        watch.taken = defaultdict(float)
        step.gradient.add_slices(step.x, step.y, step.B)
        step.gradient.add_ranks()
        for statement, run in ending:
            if run:
                watch.lap()
                run()
                watch.lap(statement)
        each.append(watch.taken)
    return median(whole[1:]), {s: median(times[s] for times in each[1:]) for s in each[1]}


def main(words):
    parser = Parser("source", __doc__)
    parser.add_argument("config", metavar="CONFIG", help="a TOML file, such as configs/mnist.toml")
    parser.add_argument("settings", metavar="section.key=value", nargs="*", help="replaces one")
    parser.add_argument("--time", action="store_true", help="run steps, and time each line")
    args, ranks = parser.parse_intermixed_args(words), Ranks()
    if ranks.size > 1:
        raise UserError(f"source on {ranks.size} ranks, expected one")
    settings = config.load(args.config, args.settings)
    with concerning(args.config):
        step = Step(settings, ranks)
        threadpool_limits(blas_threads(settings, ranks), "blas")
        passes, ending = step.passes(), list(step.ending())
    (before, after), last = passes, [s for s, _ in ending]
    if settings.run.allreduce == "buckets":
        after = list(step.with_buckets(after))
    slices = f", x {step.slices}" * (step.V > 1)
    sections = {f"forward{slices}": before, f"backward{slices}": after, "update": last}
    model, n = settings.model["build"], len(step.phi.value)
    print(f"{args.config}: {model}, {n:,} numbers in Phi, on {step.device.kind}")
    print(f"a step: B = {step.B} rows{slices}; bytes and flop are those of all", end="\n\n")
    seconds, times = measured(step, [*before, *passes[1]], ending) if args.time else (None, None)
    if args.time:
        Forward(step.ell)  # whose shapes are shown, and went with the last step
    print(*page(sections, seconds, times), sep="\n")
    if args.time:
        took = f"{1e3 * seconds:.3f} ms, the median of {TIMED} in which no line is timed"
        print(f"\nA step takes {took}.")
