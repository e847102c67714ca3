"""What the ranks agree on: their settings, and while they train, whether to stop and the time."""

import time
from itertools import zip_longest

from dpedf.errors import AgreedError, StoppedError
from dpedf.parallel import signals

EVERY = 0.5  # seconds between two meetings, about


class Agreement:
    """About twice a second the ranks meet, and agree on what each of them knows by itself.

    stop: was any rank told to stop, by a signal?  seconds: since the run began.
    """

    def __init__(self, ranks):
        self.ranks, self.began = ranks, time.monotonic()
        self.told, self.stop, self.seconds = signals.told, False, 0.0
        self.interval, self.left = 1, 1  # steps between two meetings, and until the next

    def meet(self, step=None):
        """After each step: meet, if it is time, and return whether the ranks met.

        All ranks count the same number of steps to the next meeting, from the agreed seconds.
        """
        self.ranks.alive(step)
        self.left -= 1
        if self.left:
            return False
        before, now = self.seconds, time.monotonic() - self.began
        self.stop, self.seconds = self.ranks.largest(self.told.stop, now)
        steps = int(self.interval * EVERY / max(self.seconds - before, 1e-3))
        self.interval = self.left = max(1, min(steps, 2 * self.interval))
        return True

    def expect_no_stop(self, step):
        """StoppedError: a rank was told to stop before the first step after this one.

        Until then a run writes nothing to its directory.
        """
        if self.ranks.largest(self.told.stop)[0]:
            left = (
                "the run is as it was"
                if step
                else "there is nothing to resume, and nothing was removed"
            )
            raise StoppedError(f"stopped before the first step: {left}")


def expect_same(ranks, what, text):
    """AgreedError: the ranks do not all have the same text."""
    texts = ranks.gather(text)
    for rank, other in enumerate(texts):
        if other != texts[0]:
            lines = zip_longest(other.split("\n"), texts[0].split("\n"), fillvalue="nothing")
            found, expected = next(pair for pair in lines if pair[0] != pair[1])
            raise AgreedError(f"{what}: rank {rank} has {found}, expected {expected} as on rank 0")
