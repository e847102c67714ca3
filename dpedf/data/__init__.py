"""Data files: HDF5 in, shuffled shards of minibatches out; and the writer that recipes use."""

from dpedf.data.splits import Data
from dpedf.data.writer import scatter, write
