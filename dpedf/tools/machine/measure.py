"""Short measurements of what a run is made of: sums over ranks, copies, products, rows, steps.

Each takes about a second.  All ranks call them together, and get the same numbers: the time of the
slowest rank, in the median of some repetitions.
"""

import os
import time
from contextlib import closing, contextmanager
from statistics import median

import numpy as np

from dpedf.data import Data
from dpedf.data.disk import expect_regular
from dpedf.data.file import fits_in_memory
from dpedf.data.stored import Stored
from dpedf.errors import RunError, UserError, concerning
from dpedf.kernels.gemm import product
from dpedf.parallel.gradient import Gradient
from dpedf.parallel.groups import wait_for_all
from dpedf.parallel.passes import Passes
from dpedf.parallel.sums import sum_over
from dpedf.parallel.trial import choose_passes
from dpedf.run import config, room
from dpedf.run.rules import update_rule
from dpedf.run.setup import assemble, expect_rows_to_learn_from
from dpedf.run.step import Step

SECONDS, FEWEST, MOST = 0.2, 3, 50  # of repetitions: how long, and how many
LONG = 0.5  # seconds after which nothing larger is tried
BYTES = 4 << 10, 64 << 10, 1 << 20, 16 << 20  # of sums
COPIED = {"cpu": 32 << 20, "gpu": 256 << 20}  # bytes, more than a cache has
PRODUCTS = {"cpu": (256, 1024), "gpu": (1024, 4096)}  # N of matrices of N x N
READ = 1.0  # seconds for which rows are read
SAMPLES = 256  # pages of a file that are asked for
WINDOW = 128  # symbols in a row of a text, if no config says how many


def seconds(work, device):
    device.wait()
    start = time.perf_counter()
    work()
    device.wait()
    return time.perf_counter() - start


def repeated(work, device):
    """The median time of some repetitions on this rank."""
    seconds(work, device)  # the first one loads what it needs
    first = seconds(work, device)
    count = max(FEWEST, min(MOST, int(SECONDS / first)))
    return median(seconds(work, device) for _ in range(count))


def together(work, device, ranks):
    """The median time of some repetitions, which all ranks begin together."""
    seconds(work, device)
    first = ranks.largest(seconds(work, device))[0]  # so that all ranks repeat it as often
    times, fewest = [], 1 if first > LONG else FEWEST
    for _ in range(max(fewest, min(MOST, int(SECONDS / first)))):
        ranks.wait()
        times.append(seconds(work, device))
    return ranks.largest(median(times))[0]


def alone(work, device, ranks):
    """The median time on rank 0, while the others sleep."""
    mine = repeated(work, device) if ranks.rank == 0 else None
    wait_for_all(ranks, 0.001, ranks.alive)
    return ranks.gather(mine)[0]


def copies(device, ranks):
    """Bytes a second that each rank copies in its memory, all at once."""
    nbytes = COPIED[device.unit]
    here = device.put(np.ones(nbytes // 4, np.float32))
    there = np.empty_like(here)
    time = together(lambda: np.copyto(there, here), device, ranks)
    return {"bytes": nbytes, "bytes_per_second": nbytes / time}


def products(device, ranks):
    """Operations a second in products of float32 matrices: of rank 0 alone, and of each at once."""
    found = []
    for n in PRODUCTS[device.unit]:
        a, b, c = (device.put(np.ones((n, n), np.float32)) for _ in range(3))

        def work(a=a, b=b, c=c):
            product(a, b, c)

        times = alone(work, device, ranks), together(work, device, ranks)
        rates = [2 * n**3 / time for time in times]
        found.append(dict(zip(("n", "alone", "each"), (n, *rates), strict=True)))
        if times[1] * 64 > LONG * 4:
            break
    return found


def sums(link, device, ranks, slices):
    """Sums over ranks by size, as a run of so many slices makes them, and as the library does.

    bytes_per_second is what nccl-tests call algbw: the bytes of the sum by its time; busbw is
    2 (n - 1) / n times as much for n ranks, what each of them would send and receive a second, if
    it sent the least that a sum needs.
    """
    ways, found = {"library": 0}, []
    if slices:
        ways = {"run": slices} | ways
    for nbytes in BYTES:
        row, n = {"bytes": nbytes}, nbytes // 4
        for way, V in ways.items():
            passes = Passes(V, ranks.rank, ranks.size)
            adding = sum_over(link, passes)
            grads = np.zeros_like(device.put(np.empty(0, np.float32)), shape=(passes.vectors, n))

            def work(adding=adding, grads=grads, n=n):
                piece = link.piece or n
                for end in range(n, 0, -piece):
                    adding.start(grads, max(0, end - piece), end, False)
                adding.finish(grads)

            time = together(work, device, ranks)
            rate = nbytes / time
            busbw = rate * 2 * (ranks.size - 1) / ranks.size
            row[way] = {"seconds": time, "bytes_per_second": rate, "busbw": busbw}
        found.append(row)
        if max(row[way]["seconds"] for way in ways) > LONG:
            break
    return found


def rows(settings, device, ranks):
    """Rows a second that all ranks together read, shuffled, as training does.

    AgreedError: the file cannot be read.
    """
    asked, train = settings.data, settings.train
    warm = ranks.gather(share_in_memory(asked.file) if ranks.rank == 0 else None)[0]
    with ranks.together():
        data = opened(settings, device)
        shard = Passes(train.slices, ranks.rank, ranks.size).shard
        mine = stream(data, settings.seed, min(train.batch_size, len(data.train)), shard)
    nbytes = sum(its.nbytes for its in data.stored_rows())
    return {
        "file": asked.file,
        "rows": len(data.train),
        "bytes": nbytes,
        "cache": asked.cache,
        "warm": warm,
        "fits_in_memory": fits_in_memory(nbytes),
        "rows_per_second": sum(ranks.gather(mine)),
    }


def opened(settings, device):
    """The Data of settings.  UserError: they cannot be read."""
    asked, window = settings.data, settings.data.window
    if not settings.model and os.path.isfile(asked.file) and Stored(asked.file).has("train/text"):
        window = WINDOW
    return Data(asked.file, asked.valid, settings.seed, np.float32, device, window, asked.stride)


def stream(data, seed, B, shard):
    """Rows a second that this rank reads of minibatches of B rows.  UserError: it cannot."""
    count, epoch, start = 0, 0, time.perf_counter()
    with rejected():
        while time.perf_counter() - start < READ:
            with closing(data.train.minibatches(seed, epoch, B, shard)) as minibatches:
                for x, _, _ in minibatches:
                    count += len(x)
                    if time.perf_counter() - start > READ:
                        break
            epoch += 1
        data.device.wait()
    return count / (time.perf_counter() - start)


@contextmanager
def rejected():
    """A RunError inside is a UserError: nothing has begun that it could end."""
    try:
        yield
    except RunError as error:
        raise UserError(str(error)) from None


def share_in_memory(path):
    """The share of a file that is in memory already; None where the system does not say."""
    if not hasattr(os, "RWF_NOWAIT"):
        return None
    try:
        expect_regular(path)
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                return None
            offsets = {size * k // SAMPLES for k in range(SAMPLES)}
            return sum(is_in_memory(file.fileno(), offset) for offset in offsets) / len(offsets)
    except OSError:  # this file system does not
        return None


def is_in_memory(file, offset):
    try:
        os.preadv(file, [bytearray(1)], offset, os.RWF_NOWAIT)
        return True
    except BlockingIOError:
        return False


def steps(settings, path, device, link, ranks):
    """Rows a second of steps of training, on rows that are there already.

    AgreedError: there is no such model, or it does not fit.
    """
    train, run = settings.train, settings.run
    with ranks.together():
        data, _, ell, phi = assemble(settings, device)
        n = len(data.train)
        expect_rows_to_learn_from(ell, n, train)
        how = config.slices(train, n), run.allreduce == "buckets", run.bucket
        gradient = Gradient(ell, phi, link, data.put, *how)
        if device.unit == "cpu":
            rows_of_slice = gradient.passes.rows_of_slice(min(train.batch_size, n))
            room.expect_room_for_rows(ell, rows_of_slice)
        step = Step(gradient, update_rule(phi, train), device, settings.seed, train.grad_clip)

    minibatches = data.train.minibatches(settings.seed, 0, train.batch_size, gradient.shard)
    with closing(minibatches), concerning(path):
        x, y, B = next(minibatches)
        choose_passes(step, (x, y, B), ranks, {}, {B}, train.rows)
        time = together(lambda: step(x, y, B, 0.0), device, ranks)
    return {"rows": B, "seconds": time, "rows_per_second": B / time}
