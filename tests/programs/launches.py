"""dpedf.train on a simulated GPU, and what a step has the host launch or wait for."""

import sys
import threading
from collections import Counter

from cupy.cuda import stream

from dpedf import train
from dpedf.parallel import job

learn, seen = train.Training.learn, []


def watched(self, x, y, B):
    logs = (self.step.number + 1) % self.settings.run.log_every == 0
    stream.log.clear()
    learn(self, x, y, B)
    here = threading.main_thread().ident
    done = Counter(what for what, thread in stream.log if thread == here)
    if self.step.number > 3 * self.steps_per_epoch and not logs:
        seen.append(", ".join(f"{n} {what}" for what, n in sorted(done.items())))


def main(ranks):
    train.Training.learn = watched
    status = train.main(ranks, sys.argv[1:])
    print("; ".join(sorted(set(seen))))
    return status


job.run(main)
