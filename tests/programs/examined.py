"""dpedf doctor with short measurements and little patience: SECONDS [words of doctor ...]."""

import sys

from dpedf.parallel import observer
from dpedf.tools import doctor
from dpedf.tools.machine import measure

measure.SECONDS = measure.READ = 0.01
measure.PRODUCTS = {"cpu": (64,), "gpu": (64,)}
measure.COPIED = {"cpu": 1 << 20, "gpu": 1 << 20}
measure.BYTES = 4, 1000, 1 << 20
observer.PATIENCE, observer.EXIT = 1.0, 0.3
doctor.STEP = doctor.LOAD = doctor.TRAIN = float(sys.argv[1])
doctor.main(sys.argv[2:])
