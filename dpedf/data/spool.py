"""Rows that come one by one, in a file without a name until it is known how many there are."""

from tempfile import SpooledTemporaryFile

import numpy as np

BLOCK = 1 << 24  # bytes of rows that are read and written at a time
ARRAY = 128  # bytes that an array takes beside its numbers


class Spool:
    """The rows of an iterator, with their shape and type.

    folder: that of the file; few rows stay in memory.  TypeError: rows are of several shapes.
    OSError: the disk is full.
    """

    def __init__(self, rows, where, folder):
        self.file, self.dtypes, self.shape = SpooledTemporaryFile(BLOCK, dir=folder), [], None
        block, held = [], 0
        for row in rows:
            block.append(row.copy())  # the iterator may fill it again
            held += row.nbytes + ARRAY
            if held >= BLOCK:
                self.keep(block, where)
                block, held = [], 0
        if block or not self.dtypes:
            self.keep(block, where)
        self.dtype = np.result_type(*self.dtypes)

    def keep(self, rows, where):
        n, *shape = self.shape or (0, *np.shape(rows[:1])[1:])
        try:
            block = np.array(rows)
        except ValueError:
            block = None
        if block is None or block.shape[1:] != (*shape,):
            raise TypeError(f"{where} has rows of several shapes, expected one")
        np.save(self.file, block)
        self.dtypes.append(block.dtype)
        self.shape = n + len(block), *shape

    def blocks(self):
        """Yield them once, some at a time, each time in a list of one array, as blocks_of does."""
        with self.file:
            self.file.seek(0)
            for _ in self.dtypes:
                yield [np.load(self.file)]
