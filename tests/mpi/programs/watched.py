"""dpedf.train, which says the process of each rank once it trains, and is watched from then on:
how long a job takes to come so far says how busy the machine is.
"""

import os
import sys

from dpedf import train
from dpedf.parallel import job

learn = train.Training.learn
timeouts = [word for word in sys.argv if word.startswith("run.timeout=")]
sys.argv = [word for word in sys.argv if word not in timeouts]


def main(ranks):
    def trains(self, *minibatch):
        learn(self, *minibatch)
        if self.step.number == 5:  # all kernels are compiled by now, and the step is recorded
            for word in timeouts:
                ranks.timeout = float(word.split("=")[1])
            ranks.say(f"training {' '.join(map(str, ranks.gather(os.getpid())))}")

    train.Training.learn = trains
    return train.main(ranks, sys.argv[1:])


job.run(main)
