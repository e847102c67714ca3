"""The rows of a split: in which order an epoch shows them, and how they stream to the device."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from math import prod

import numpy as np

from dpedf.errors import RunError, UserError

BLOCK = 16  # minibatches that the loader's thread hands over at a time
BYTES = 1 << 25  # that it hands over at a time at most, where minibatches are large


def expect_integer(name, found, least=0):
    """UserError: it is no integer, too small, or of more than 63 bits."""
    whole = isinstance(found, int | np.integer) and not isinstance(found, bool)
    if not whole or not least <= found < 2**63:
        expected = f"an integer of at least {least}, and less than 2**63"
        raise UserError(f"{name} = {found!r}, expected {expected}")


def gathered(rows, numbers, empty=np.empty):
    """Those of these numbers, as stored, in an array made by empty(shape, dtype)."""
    out = empty((len(numbers), *rows.shape[1:]), rows.dtype.newbyteorder("="))
    rows.gather(numbers, out)
    return out


class Split:
    """Some rows of a group, to learn from, to validate or to test on.

    x, y: all rows of the group, as in layout.py.  numbers: which of them belong to the split.
    chunk: how many rows are shuffled as one; window: how many chunks are shuffled together.  Both
    follow from the layout of the file, so they stay when x and y move to memory.
    """

    def __init__(self, x, y, numbers, device):
        self.x, self.y, self.numbers, self.device, self.on_device = x, y, numbers, device, False
        self.chunk, self.window = getattr(x, "chunk", 1), getattr(x, "window", x.shape[0])

    def __len__(self):
        return len(self.numbers)

    def move(self, x, y, on_device):
        """From now on, gather the rows from these copies."""
        self.x, self.y, self.on_device = x, y, on_device

    def pack(self, numbers, empty=np.empty):
        """What travels to the device for these rows, in arrays made by empty(shape, dtype).

        These are x, (len(numbers), ...), and y, as stored.  Where the rows are on the device
        already, only their numbers travel.
        """
        if self.on_device:
            travelling = empty(numbers.shape, numbers.dtype)
            travelling[...] = numbers
            return [travelling]
        return [gathered(rows, numbers, empty) for rows in (self.x, self.y)]

    def unpack(self, *packed):
        """x and y, of what was packed and has arrived on the device."""
        if self.on_device:
            return self.x.take_on_device(*packed), self.y.take_on_device(*packed)
        return packed

    def load(self, numbers):
        """x and y of these rows, on the device."""
        return self.unpack(*map(self.device.put, self.pack(numbers)))

    @property
    def global_shuffle(self):
        """Can any two rows meet in a minibatch?  If not, only those of one window of chunks."""
        return self.window * self.chunk >= self.x.shape[0]

    def order(self, seed, epoch):
        """The numbers of all rows, shuffled: a function of (seed, epoch), equal on every rank."""
        random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
        numbers = random.permutation(self.numbers)
        if self.global_shuffle:
            return numbers
        chunk = numbers // self.chunk
        window = random.permutation(chunk.max() + 1) // self.window  # of each chunk
        return numbers[np.argsort(window[chunk], kind="stable")]

    def minibatches(self, seed, epoch, B, shard, start=0):
        """Yield (x, y, b) for each minibatch of an epoch: this rank's rows, of b rows in all.

        B: rows of a minibatch, all ranks together; the last one may have fewer.
        shard(b): where the rows of this rank start and end among b rows.
        start: how many minibatches of the epoch are skipped.  UserError: there is no such B.
        """
        expect_integer("B", B, 1)
        order, batches, sizes = self.order(seed, epoch), [], []
        for first in range(start * B, len(order), B):
            sizes.append(min(B, len(order) - first))
            low, high = shard(sizes[-1])
            batches.append(order[first + low : first + high])
        for (x, y), b in zip(self.stream(batches), sizes, strict=True):
            yield x, y, b

    def stream(self, batches):
        """Yield (x, y) for each list of row numbers, while a thread gathers the next ones."""

        def load(block, buffer):
            try:
                buffer.send(self.pack(np.concatenate(block), buffer.empty))
            except UserError as error:  # a file that was damaged since, amid a run
                raise RunError(str(error)) from None

        row = sum(prod(rows.shape[1:]) * rows.dtype.itemsize for rows in (self.x, self.y))
        most = max(1, min(BLOCK, BYTES // (1 + row * max(map(len, batches), default=0))))
        blocks = [batches[low:high] for low, high in growing(len(batches), most)]
        now, next_one = self.device.buffer(), self.device.buffer()
        enter = self.device.enter_thread
        with closing(now), closing(next_one), ThreadPoolExecutor(1, "loader", enter) as loader:
            ahead = blocks and loader.submit(load, blocks[0], now)
            for block, following in zip(blocks, [*blocks[1:], None], strict=False):
                ahead.result()
                ahead = following and loader.submit(load, following, next_one)
                (x, y), end = self.unpack(*now.receive()), 0
                for numbers in block:
                    part = slice(end, end := end + len(numbers))
                    yield x[part], y[part]
                now.release()
                now, next_one = next_one, now


def growing(n, most):
    """The (low, high) that cut n things into blocks of 1, 2, 4, ... and at last `most` things.

    The first block is small, so that it is there soon.
    """
    low, size = 0, 1
    while low < n:
        yield low, min(low + size, n)
        low, size = low + size, min(2 * size, most)
