"""What ranks agree on while they train: signals and time."""

import signal
import time


class Pulse:
    """About twice a second all ranks meet, and agree on what each sees for itself.

    stop: was a rank told to, by SIGUSR1 or SIGTERM?  seconds: since the run began.
    """

    def __init__(self, ranks):
        self.ranks, self.began = ranks, time.monotonic()
        self.told, self.stop, self.seconds = False, False, 0.0
        self.interval, self.left = 1, 1  # steps from one meeting to the next, and until it
        for number in signal.SIGUSR1, signal.SIGTERM:
            signal.signal(number, self.tell)

    def tell(self, number, frame):
        self.told = True

    def beat(self):
        """After each step: do the ranks meet now?  When they do follows from the last time."""
        self.ranks.alive()
        self.left -= 1
        if self.left:
            return False
        before, now = self.seconds, time.monotonic() - self.began
        self.stop, self.seconds = self.ranks.largest(self.told, now)
        steps = int(self.interval * 0.5 / max(self.seconds - before, 1e-3))
        self.interval = self.left = max(1, min(steps, 2 * self.interval))
        return True
