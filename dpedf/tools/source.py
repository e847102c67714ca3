"""Print the program that a step of training runs, as source code.

    python -m dpedf source CONFIG [section.key=value ...] [--time]

An assignment a line: forward, backward, the sums over slices and ranks, the update.  Beside it
stand its shape, the bytes that it reads and writes, each once, and its floating-point operations,
for all slices of the minibatch; a function such as exp is one operation.  With --time, steps are
run on one rank, and each line says how many milliseconds of a step it takes.
"""

from collections import Counter, defaultdict
from contextlib import closing
from itertools import groupby
from statistics import median
from time import perf_counter

import numpy as np
from threadpoolctl import threadpool_limits

from dpedf.device.choose import choose
from dpedf.device.threads import blas_threads
from dpedf.edf import Forward
from dpedf.errors import UserError, concerning
from dpedf.optim import update_rule
from dpedf.parallel.buckets import Buckets
from dpedf.parallel.gradient import Gradient
from dpedf.parallel.ranks import Ranks
from dpedf.parallel.sums import cuts
from dpedf.program import during, program
from dpedf.run import config
from dpedf.run.setup import assemble
from dpedf.run.step import Step
from dpedf.source.listing import naming, page
from dpedf.source.statements import Statement, statements, update
from dpedf.tools import Parser

TIMED = 30  # steps, of which each time is the median


class Training:
    """What a config trains, how it makes a step, and its first minibatch: B rows in V slices."""

    def __init__(self, settings, ranks, device):
        train, bucket = settings.train, settings.run.bucket
        self.settings, self.device = settings, device
        self.data, _, self.ell, self.phi = assemble(settings, self.device)
        put, rule = self.data.put, update_rule(self.phi, train)
        self.gradient = Gradient(self.ell, self.phi, ranks, put, train.slices, bucket=bucket)
        self.step = Step(self.gradient, rule, self.device, settings.seed, train.grad_clip)
        rows = self.data.train.order(settings.seed, 0)[: train.batch_size]
        self.minibatch, self.B, self.V = self.data.train.load(rows), len(rows), self.gradient.V
        self.sizes = Counter(np.diff(cuts(self.B, self.V)).tolist())  # {rows: how many slices}

    def run(self):
        self.step(*self.minibatch, self.B, 0.0)  # eta, so that Phi stays

    # its Statements

    def passes(self):
        """Those of forward and of backward, with the costs of all slices."""
        each = [[*self.of_slice(rows)] for rows in self.sizes]
        for same in zip(*each, strict=True):
            for cost in "bytes", "operations":
                costs = [getattr(s, cost) for s in same]
                if None not in costs:
                    setattr(same[0], cost, sum(np.multiply(costs, [*self.sizes.values()])))
        return [s for s in each[0] if not s.target], [s for s in each[0] if s.target]

    def of_slice(self, rows):
        """Those of forward and of backward of a slice of so many rows."""
        arrays, data = [array[:rows] for array in self.minibatch], self.data
        with during(B=self.B):
            data.put(*arrays)
            Forward(self.ell, train=True)
        names, text = naming(self.ell, x=data.x, y=data.y), f"x, y = rows of {data.path}"
        nbytes = sum(array.nbytes for array in (*arrays, data.x.value, data.y.value))
        yield Statement(data.x, None, text, bytes=nbytes)
        yield from statements(self.ell, names)

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

    def after_backward(self):
        """{name: Statement} of what is done to whole vectors after backward."""
        train, grad, found = self.settings.train, self.phi.grad, {}
        if self.V > 1:
            text = f"Phi.grad = the sum of the gradients of {self.V} slices, in a binary tree"
            costs = 3 * (self.V - 1) * grad.nbytes, (self.V - 1) * grad.size
            found["slices"] = Statement(None, None, text, (), *costs)
        if self.settings.run.allreduce != "buckets":
            found["ranks"] = Statement(None, None, "Phi.grad = the sum of Phi.grad over ranks")
        if train.grad_clip:
            text = f"Phi.grad = Phi.grad / max(|Phi.grad| / {train.grad_clip:g}, 1)"
            found["clip"] = Statement(None, None, text, (), 3 * grad.nbytes, 3 * grad.size)
        return found | {"update": update(self.step.update, train)}


class Stopwatch:
    """seconds: {Statement: how long it takes}, while a step runs.

    What passes in a node's backward until it has added to a gradient belongs to the Statement that
    adds there, to the first if there are several; the rest belongs to the node's last Statement.
    """

    def __init__(self, training, passes, after_backward):
        self.wait, self.running = training.device.wait, None  # the node whose backward runs
        first = {(s.node, s.target): s for s in reversed(passes)}
        last = {s.node: s for s in passes}
        slices, clip = after_backward.get("slices"), after_backward.get("clip")
        lap, update = self.lap, after_backward["update"]
        self.around(training.gradient, "put", lap, lambda: lap(passes[0]))
        for n in program(training.ell).nodes:
            self.around(n, "forward", lap, lambda n=n: lap(first[n, None]))
            self.around(n, "backward", lambda n=n: lap(runs=n), lambda n=n: lap(last.get(n)))
        for t in {s.target for s in passes if s.target}:
            adds = "addgrad", "addproduct", "own_grad", "complete"
            for name in (name for name in adds if hasattr(t, name)):
                nothing, added = lambda: None, lambda t=t: lap(first.get((self.running, t)))
                self.around(t, name, nothing, added)
        self.around(training.phi, "differentiate_into", lambda: lap(slices), lap)  # by each slice
        self.around(training.step, "update", lambda: lap(clip), lambda: lap(update))

    def start(self):
        self.seconds = defaultdict(float)
        self.lap()

    def lap(self, statement=None, runs=None):
        """What passed since the last lap belongs to this Statement, or to none."""
        self.wait()
        if statement:
            self.seconds[statement] += perf_counter() - self.last
        self.last, self.running = perf_counter(), runs or self.running

    def around(self, thing, name, before, after):
        """From now on, thing.name() calls before() and after()."""
        method = getattr(thing, name)

        def call(*args):
            before()
            result = method(*args)
            after()
            return result

        setattr(thing, name, call)


def measured(training, passes, after_backward):
    """(seconds of a step, {Statement: seconds of it}), medians of some steps after one."""
    whole, each = [], []
    for _ in range(TIMED + 1):
        start = perf_counter()
        training.run()
        training.device.wait()
        whole.append(perf_counter() - start)
    training.device.launch_eagerly("each line is timed")
    watch = Stopwatch(training, passes, after_backward)
    for _ in range(TIMED + 1):
        watch.start()
        training.run()
        each.append(watch.seconds)
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
        device = choose(settings, ranks)
        with closing(device), threadpool_limits(blas_threads(settings, ranks), "blas"):
            show(args.config, Training(settings, ranks, device), args.time)


def show(path, training, timed):
    """Print the page of a config at this path."""
    before, after = training.passes()
    settings, ending = training.settings, training.after_backward()
    rows = " to ".join(map(str, sorted(training.sizes)))
    slices = f", x {training.V} slices of {rows} rows" * (training.V > 1)
    shown = [*training.with_buckets(after)] if settings.run.allreduce == "buckets" else after
    last = ending.values()
    sections = {f"forward{slices}": before, f"backward{slices}": shown, "update": last}
    model, n = settings.model["build"], len(training.phi.value)
    print(f"{path}: {model}, {n:,} numbers in Phi, on {training.device.kind}")
    print(f"a step: B = {training.B} rows{slices}; bytes and flop are those of all", end="\n\n")
    if not timed:
        print(*page(sections), sep="\n")
        return
    seconds, times = measured(training, before + after, ending)
    Forward(training.ell)  # whose shapes are shown, and went with the last step
    print(*page(sections, sum(times.values()), times), sep="\n")
    took = f"{1e3 * seconds:.3f} ms when its lines are not timed"
    print(f"\nA step takes {took}, the median of {TIMED}.")
