"""Train a model, data-parallel over the ranks of a job.

dpedf train configs/mnist.toml train.epochs=3
"""

from dpedf import train
from dpedf.parallel import job


def main(words):
    job.run(train.main, words)
