"""Buckets: parts of the gradient that are summed over ranks while Backward runs."""


class Buckets:
    """The suffix of phi.summed that is complete so far in Backward, cut into buckets.

    size: the numbers of a bucket.  left: the numbers at the start of phi.summed in no bucket yet.
    """

    def __init__(self, phi, size):
        self.phi, self.size = phi, size
        self.restart()

    def restart(self):
        self.done, self.left = set(), self.phi.summed.shape[1]

    def complete(self, p):
        """Yield (low, high) of each bucket that is complete now that p.grad is."""
        self.done.add(p)
        waiting = len(self.phi.parameters)  # parameters before the suffix
        while waiting and self.phi.parameters[waiting - 1] in self.done:
            waiting -= 1
        while self.left - self.phi.offsets[waiting] >= self.size:
            self.left -= self.size
            yield self.left, self.left + self.size
