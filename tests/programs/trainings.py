"""Runs of dpedf.train, one after another in one job: most of the time that a small run takes is
what its processes take to start.

RUNS is a file of JSON, a list of command lines; a word NAME=value, in capitals, is a variable of
the environment.  Before what a run says there is a line `run K`, and after it `status S`.
"""

import gc
import json
import os
import sys
from pathlib import Path

from dpedf import train
from dpedf.parallel import job
from dpedf.parallel.ranks import Ranks


def is_variable(word):
    return word.split("=")[0].isupper()


ranks = Ranks()
for number, words in enumerate(json.loads(Path(sys.argv[1]).read_text())):
    before = dict(os.environ)
    os.environ.update(word.split("=", 1) for word in words if is_variable(word))
    if hasattr(stream := sys.modules.get("cupy.cuda.stream"), "made"):
        stream.made = 1  # a simulated GPU counts its streams anew, after the default one
    ranks.say(f"run {number}")
    try:
        job.run(train.main, [word for word in words if not is_variable(word)])
    except SystemExit as end:
        ranks.say(f"status {end.code or 0}")
    gc.collect()  # which lets go of the directory, as the end of a process does
    os.environ.clear()
    os.environ.update(before)
