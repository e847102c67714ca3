"""What the ranks agree on: their settings, and while they train, whether to stop and the time."""

import signal
import time
from itertools import zip_longest

from dpedf.errors import AgreedError

EVERY = 0.5  # seconds between two meetings, about


class Agreement:
    """About twice a second the ranks meet, and agree on what each of them knows by itself.

    stop: was any rank told to stop, by SIGUSR1 or SIGTERM?  seconds: since the run began.
    """

    def __init__(self, ranks):
        self.ranks, self.began = ranks, time.monotonic()
        self.told, self.stop, self.seconds = False, False, 0.0
        self.interval, self.left = 1, 1  # steps between two meetings, and until the next
        for number in signal.SIGUSR1, signal.SIGTERM:
            signal.signal(number, self.tell)

    def tell(self, number, frame):
        self.told = True

    def meet(self):
        """After each step: meet, if it is time, and return whether the ranks met.

        All ranks count the same number of steps to the next meeting, from the agreed seconds.
        """
        self.ranks.alive()
        self.left -= 1
        if self.left:
            return False
        before, now = self.seconds, time.monotonic() - self.began
        self.stop, self.seconds = self.ranks.largest(self.told, now)
        steps = int(self.interval * EVERY / max(self.seconds - before, 1e-3))
        self.interval = self.left = max(1, min(steps, 2 * self.interval))
        return True


def expect_same(ranks, what, text):
    """AgreedError: the ranks do not all have the same text."""
    texts = ranks.gather(text)
    for rank, other in enumerate(texts):
        if other != texts[0]:
            lines = zip_longest(other.split("\n"), texts[0].split("\n"), fillvalue="nothing")
            found, expected = next(pair for pair in lines if pair[0] != pair[1])
            raise AgreedError(f"{what}: rank {rank} has {found}, expected {expected} as on rank 0")
