"""The average of Phi over the steps, which train.average asks for, and which is evaluated then."""

from contextlib import contextmanager

from dpedf.errors import plural
from dpedf.kernels.vector import average
from dpedf.program import program


class Averaged:
    """An update rule that keeps an exponential moving average of Phi beside it.

    mean <- Phi after the first step, then  mean <- decay mean + (1 - decay) Phi

    So Phi of step t has the weight (1 - decay) decay**(n - t) after n steps, and that of the first
    step decay**(n - 1): the weights add up to 1, but for long the first step counts too much.
    torch.optim.swa_utils.AveragedModel does the same, with get_ema_multi_avg_fn(decay).
    """

    def __init__(self, rule, decay):
        self.rule, self.phi, self.decay = rule, rule.phi, decay
        self.mean = self.phi.value.copy()
        self.state = rule.state | {"average": self.mean}

    def __call__(self, eta, step):
        self.rule(eta, step)
        average(self.mean, self.phi.value, self.phi.failed, step, self.decay)


def averaging(rule, train, ell, note):
    """The rule, or what averages its Phi, if train.average asks for that.  note(line) tells more.

    Phi is that of ell, where the run starts.
    """
    if not train.average:
        return rule
    frozen = {p.name for p in program(ell).frozen}
    if running := [name for name in rule.phi.state if name not in frozen]:
        found = f"{plural(len(running), 'running value')} of nodes"
        note(f"train.average = {train.average}: {found} are not averaged, but those of Phi itself")
    return Averaged(rule, train.average)


@contextmanager
def averaged(rule):
    """with averaged(rule): Phi has the numbers of its average, where the rule keeps one."""
    if not isinstance(rule, Averaged):
        yield
        return
    value, mean = rule.phi.value, rule.mean
    kept = value.copy()
    value[...] = mean
    try:
        yield
    finally:
        value[...] = kept
