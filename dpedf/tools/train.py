"""Train a model, data-parallel over the ranks of a job.

dpedf train configs/mnist.toml train.epochs=3
"""

import sys

from dpedf import train
from dpedf.parallel import job


def main(words):
    sys.argv[1:] = words  # those of python -m dpedf.train
    job.run(train.main)
