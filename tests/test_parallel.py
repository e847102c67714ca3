"""What ranks do together, where each of them is a thread (threaded.py); tests/mpi has mpirun."""

import math
import os
import threading
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from threaded import me, on_ranks

from dpedf.edf import CompNode, Forward, Input, Package, Parameter, context
from dpedf.errors import AgreedError, UserError
from dpedf.kernels import philox
from dpedf.kernels.vector import add_in_order
from dpedf.ops import Affine, BatchNorm, LogLoss, Softmax, Tanh
from dpedf.optim import Momentum
from dpedf.parallel import agreement, ending, job
from dpedf.parallel.agreement import Agreement
from dpedf.parallel.buckets import Buckets
from dpedf.parallel.gradient import Gradient
from dpedf.parallel.links import link_between
from dpedf.parallel.nccl import Nccl
from dpedf.parallel.passes import Passes
from dpedf.parallel.sums import TreeSum, cuts, plan
from dpedf.parallel.through_host import ThroughHost
from dpedf.parallel.trial import choose_overlap, fastest
from dpedf.phi import Phi, dense
from dpedf.program import Context
from dpedf.run.evaluate import Found
from dpedf.run.report import Report
from dpedf.run.step import Step


class Seen(CompNode):
    """ell[b] = p x[b]; seen: what the context was in each forward"""

    def __init__(self, p, x):
        self.p, self.x, self.seen = p, x, []

    def forward(self):
        facts = "train", "B", "row", "seed", "step"
        self.seen.append({name: getattr(context, name) for name in facts})
        self.seen[-1] |= {"add": context.add, "rows": len(self.x.value)}
        self.value = self.p.value * self.x.value

    def backward(self):
        self.p.addgrad(self.grad * self.x.value)


def seen_by(ranks, slices=0, dtype=np.float64, **options):
    """(node, gradient) of a program that is Seen alone."""
    x = Input((), dtype)
    ell = Seen(Parameter(np.ones((), dtype)), x)
    ell.seen.clear()  # that of no rows, where its shape was found

    def put(values, labels):
        x.value = values

    return ell, Gradient(ell, Phi(ell, dtype=dtype), ranks, put, slices, **options)


# The gradient of a minibatch.


@pytest.mark.parametrize("slices", [0, 5])
def test_nodes_find_the_rows_of_the_whole_minibatch_in_their_context_and_where_theirs_are(slices):
    B = 17

    def learn(ranks):
        ell, gradient = seen_by(ranks, slices)
        first, end = gradient.shard(B)
        x = np.arange(first, end, dtype=float)
        gradient(x, x, B)
        return ell.seen, gradient.phi.grad.copy()

    found = on_ranks(3, learn)
    seen = [facts for facts, grad in found for facts in facts]
    assert [facts["B"] for facts in seen] == [B] * (slices or 3)
    assert [facts["row"] for facts in seen] == list(cuts(B, slices or 3))[:-1]
    assert sum(facts["rows"] for facts in seen) == B
    for _, grad in found:
        np.testing.assert_allclose(grad, sum(range(B)) / B, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_gradients_of_slices_begin_at_multiples_of_256_bytes(dtype):
    """On which the choice of a GEMM may depend, and so the bits of a slice."""
    gradient = on_ranks(1, lambda ranks: seen_by(ranks, 8, dtype)[1])[0]
    addresses = [vector.ctypes.data for vector in gradient.summed]
    assert len(addresses) > 2 and not any((a - addresses[0]) % 256 for a in addresses)


def learned(ranks, between, slices, bucket=None):
    """(gradient, losses of slices), bytes, of a network after a minibatch of 11 rows.

    between: the node from (B, 5) to (B, 5) in its middle.  bucket: of a sum during Backward.
    """
    random = np.random.default_rng(0)
    rows, labels = random.normal(size=(11, 4)), np.arange(11) % 3
    x, y = Input((4,), np.float64), Input((), np.intp, 3)
    ell = LogLoss(Softmax(Affine(dense(5, 3), between(Affine(dense(4, 5), x)))), y)

    def put(images, labels):
        x.value, y.value = images, labels

    phi, how = Phi(ell, dtype=np.float64), {"overlap": bool(bucket), "bucket": bucket or 1}
    gradient = Gradient(ell, phi, ranks, put, slices, **how)
    part = slice(*gradient.shard(11))
    gradient(rows[part], labels[part], 11)
    assert ell.value is None  # what was used is not kept
    ranks.add(losses := gradient.losses.copy())
    return phi.grad.tobytes(), losses.tobytes()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_buckets_that_are_summed_during_backward_change_no_bit(size):
    learn = partial(learned, between=Tanh, slices=7)
    (expected,) = on_ranks(1, learn)
    for bucket in 1, 7, 20, 43, 100:  # of 43 numbers
        assert on_ranks(size, partial(learn, bucket=bucket)) == [expected] * size


@pytest.mark.parametrize("bucket", [None, 7])
def test_ranks_that_get_no_slices_take_part_and_change_no_bit(bucket):
    """Where BatchNorm has to hear of all of them, too."""

    def normalized(x):
        return BatchNorm(Package(w=Parameter(np.ones(5)), b=Parameter(np.zeros(5))), x)

    learn = partial(learned, between=normalized, slices=3, bucket=bucket)
    (expected,) = on_ranks(1, learn)
    for size in 3, 4, 8:
        assert on_ranks(size, learn) == [expected] * size


def test_each_step_moves_phi_by_its_own_learning_rate():
    """The gradient of the mean of p x is that of x, 3."""
    gradient = on_ranks(1, seen_by)[0][1]
    step, x, moved = Step(gradient, Momentum(gradient.phi)), np.array([2.0, 4.0]), []
    for eta in 0.5, 0.25, 1.0:
        before = gradient.phi.value.copy()
        step(x, x, 2, eta)
        moved.append(float((before - gradient.phi.value)[0]))
    assert moved == [1.5, 0.75, 3.0]


@pytest.mark.parametrize("fails", [False, True])
def test_after_a_step_no_sum_over_ranks_is_left_for_an_evaluation_to_find(fails):

    def learn_and_evaluate(ranks):
        ell, gradient = seen_by(ranks)
        if fails:
            gradient.put = lambda x, y: 1 / 0
        x = np.ones(gradient.shard(8)[1] - gradient.shard(8)[0])
        try:
            gradient.add_slices(x, x, 8)
        except ZeroDivisionError:
            ell.x.value = x
        Forward(ell)
        return ell.seen

    for *learned, evaluated in on_ranks(2, learn_and_evaluate):
        assert fails or (learned[0]["train"] and learned[0]["add"] is not Context.add)
        assert evaluated["add"] is Context.add
        assert (evaluated["train"], evaluated["B"], evaluated["row"]) == (False, None, 0)


@pytest.mark.parametrize("slices", [0, 2])
def test_losses_are_added_in_float64_over_rows_and_over_steps(slices):
    x = np.array([2**24, 1, 1], np.float32)  # in float32 their sum is 2**24

    def learn(ranks):
        ell, gradient = seen_by(ranks, slices, dtype=np.float32)
        step = Step(gradient, Momentum(gradient.phi))
        for _ in range(3):
            step(x, x, 6, 0.0)
        return gradient.losses, step.losses

    for rank, (losses, added) in enumerate(on_ranks(2, learn)):
        assert losses[rank] == 2**24 + 2 and losses.sum() == losses[rank]
        assert added.tolist() == (3 * losses).tolist()
        assert losses.dtype == added.dtype == np.float64


def test_losses_of_several_passes_are_added_before_they_are_added_to_those_of_earlier_steps():
    gradient = on_ranks(1, seen_by)[0][1]
    gradient.compute_in(3)
    step, x = Step(gradient, Momentum(gradient.phi)), np.array([0.1, 0.3, 0.2])
    for _ in range(3):
        step(x, x, 3, 0.0)
    losses = 0.1 + 0.3 + 0.2
    assert gradient.losses == losses and step.losses == losses + losses + losses


@pytest.mark.parametrize("seed, number", [(0, 0), (7, 0), (2**62, 5)])
def test_nodes_draw_by_the_seed_and_the_number_of_the_step(seed, number):
    ell, gradient = on_ranks(1, seen_by)[0]
    step, x = Step(gradient, Momentum(gradient.phi), seed=seed), np.ones(4)
    step.number = number
    step(x, x, 4, 0.1)
    step(x, x, 4, 0.1)
    assert [(s["seed"], s["step"]) for s in ell.seen] == [(seed, number), (seed, number + 1)]
    draws = {philox.uniform(x, s, 1, number, 0).tobytes() for s in (seed, seed + 1)}
    assert len(draws) == 2


# Sums over ranks.


@pytest.mark.parametrize("size", [1, 4, 5, 7, 11, 100])
def test_a_bucket_holds_only_numbers_of_parameters_that_are_complete(size):
    sizes = 3, 1, 2, 5, 2, 7, 1, 4
    offsets = [0, *np.cumsum(sizes).tolist()]
    random, parameters = np.random.default_rng(0), list("abcdefgh")
    numbers = offsets[-1] + 1  # and the one that says whether a step has failed
    phi = SimpleNamespace(parameters=parameters, offsets=offsets, summed=np.zeros((1, numbers)))
    buckets = Buckets(phi, size)
    for order in [*(random.permutation(8) for _ in range(20)), range(8), range(8)[::-1]]:
        buckets.restart()
        done, end = np.zeros(numbers, bool), numbers
        done[-1] = True
        for k in order:
            done[offsets[k] : offsets[k + 1]] = True
            for low, high in buckets.complete(parameters[k]):
                assert high == end and high - low == size and done[low:high].all()
                end = low
            complete = numbers - max(np.flatnonzero(~done), default=-1) - 1
            assert numbers - end == complete // size * size  # none waits that could go
        assert buckets.left == end == numbers % size


@pytest.mark.parametrize("slices", [0, 4])
def test_sums_that_a_recording_began_and_gave_up_are_not_waited_for(slices):
    def learn(ranks):
        gradient = seen_by(ranks, slices, overlap=True, bucket=2)[1]
        x = np.full(2, 3.0)
        gradient.add_slices(np.ones(2), x, 4)
        given_up = list(gradient.over_ranks.pending)
        gradient.add_slices(x, x, 4)
        left = list(gradient.over_ranks.pending)
        gradient.add_ranks()
        return given_up, left, gradient.phi.grad.copy()

    for given_up, left, grad in on_ranks(2, learn):
        assert len(given_up) == len(left) == 1 and left[0] is not given_up[0]
        assert grad == 3


def by_hand(leaves):
    """((l0 + l1) + (l2 + l3)) + ..., where the first half is the largest power of two."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return by_hand(leaves[:half]) + by_hand(leaves[half:])


def added_by_rank(leaves, first, end):
    """The partial sums of these slices as a rank adds them, and the (first, end) of each."""
    tree, partial = plan(first, end, len(leaves))
    vectors = np.full((1 + max(k for k, _ in tree), leaves.shape[1]), 77, leaves.dtype)
    for leaf, (k, additions) in zip(leaves[first:end], tree, strict=True):
        vectors[k] = leaf
        add_in_order(vectors, additions, 0, leaves.shape[1])
    return vectors, partial


WHOLE = {
    "integers": lambda random, V: random.integers(-99, 99, (V, 3)),
    "floats": lambda random, V: random.normal(size=(V, 3)) * 10.0 ** random.integers(-8, 8, (V, 1)),
}


@pytest.mark.parametrize("numbers", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_slices_are_added_in_the_tree_that_one_writes_by_hand(size, numbers):
    for V in range(size, 20):
        leaves = numbers(np.random.default_rng(V), V)
        ends = cuts(V, size)
        left = [plan(*mine, V)[1] for mine in zip(ends, ends[1:], strict=False)]

        def add(ranks, V=V, leaves=leaves, ends=ends, left=left):
            vectors, partial = added_by_rank(leaves, *ends[ranks.rank : ranks.rank + 2])
            for vector, part in zip(vectors, partial, strict=False):
                assert vector.tobytes() == by_hand(leaves[slice(*part)]).tobytes()
            tree = TreeSum(ranks, left, V)
            tree.start(vectors, 0, 3, overlap=False)
            tree.finish(vectors)
            return vectors[0]

        expected = by_hand(leaves)
        if leaves.dtype.kind == "i":
            assert (expected == np.sum(leaves, axis=0)).all()
        for found in on_ranks(size, add):
            assert found.tobytes() == expected.tobytes()


def test_nccl_waits_for_what_the_gpu_computes_before_each_sum():
    """What an event of the GPU's stream marks is computed before NCCL reads it."""
    log = []

    class Stream:
        ptr = 0

        def __init__(self, name):
            self.name = name

        def wait_event(self, event):
            log.append(f"{self.name} waits for {event}")

    gpu = SimpleNamespace(
        stream=Stream("the GPU"), new_stream=lambda: Stream("NCCL"), mark=lambda stream: stream.name
    )
    calls = {name: lambda *_, name=name: log.append(name) for name in ("allReduce", "send", "recv")}
    nccl = SimpleNamespace(
        **dict(NCCL_FLOAT32=7, NCCL_FLOAT64=8, NCCL_SUM=0, get_unique_id=lambda: 0),
        **dict(NcclCommunicator=lambda *_: SimpleNamespace(**calls)),
        **dict(groupStart=lambda: log.append("start"), groupEnd=lambda: log.append("end")),
    )
    ranks = SimpleNamespace(rank=1, size=2, gather=lambda thing: [0, 0])

    class Array(np.ndarray):
        @property
        def data(self):
            return SimpleNamespace(ptr=0, copy_from_device_async=lambda *_: log.append("copy"))

    link, array = Nccl(ranks, gpu, nccl), np.zeros(8).view(Array)
    for begin in (
        lambda: link.start_add(array, True),
        lambda: link.start_exchange(array, [0, 4, 8], array[:8], [4, 4]),
        lambda: link.start_collect(array, [0, 4, 8]),
    ):
        log.clear()
        request = begin()
        assert log[0] == "NCCL waits for the GPU" and len(log) > 1
        log.clear()
        request.Wait()
        assert log == ["the GPU waits for NCCL"]


LINKS = {  # the GPU of each of two ranks, whose NCCL is found, and what links them
    "a GPU each": ([0, 1], [True, True], Nccl),
    "no NCCL on the first": ([0, 1], [False, True], ThroughHost),
    "no NCCL on the second": ([0, 1], [True, False], ThroughHost),
    "one GPU": ([0, 0], [True, True], ThroughHost),
}


def linked(devices, found, version=23000):
    """The classes of the links of two ranks, and all that was said."""
    said = []

    def link(ranks):
        types = SimpleNamespace(NCCL_FLOAT32=7, NCCL_FLOAT64=8, get_version=lambda: version)
        nccl = types if found[ranks.rank] else None
        streams = {"new_stream": lambda: None, "nccl": lambda: nccl}
        ranks.say = said.append
        return link_between(
            ranks, SimpleNamespace(unit="gpu", place=f"host {devices[ranks.rank]}", **streams)
        )

    return [type(found) for found in on_ranks(2, link)], said


@pytest.mark.parametrize("case", LINKS)
def test_sums_pass_through_the_host_on_all_ranks_or_on_none(case, monkeypatch):
    monkeypatch.delenv("NCCL_MULTI_RANK_GPU_ENABLE", raising=False)
    devices, found, kind = LINKS[case]
    kinds, said = linked(devices, found)
    assert kinds == [kind] * 2 and bool(said) == (kind is ThroughHost)


def test_nccl_may_be_told_that_ranks_share_a_gpu_from_its_version_2_30_on(monkeypatch):
    monkeypatch.setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1")
    assert linked([0, 0], [True, True])[0] == [Nccl] * 2
    kinds, said = linked([0, 0], [True, True], version=22907)
    assert kinds == [ThroughHost] * 2
    assert len(said) == 2  # one line a rank, of which rank 0 alone says it
    assert linked([0, 1], [True, True], version=22907)[0] == [Nccl] * 2


# The trials of how sums are made, and in how many passes.


class TimedDevice:
    """On it a step takes so many seconds, by overlap, and the first of all 100 more."""

    def __init__(self, seconds, clock):
        self.seconds, self.clock, self.ran = seconds, clock, []

    def run(self, key, function, x, y, number):
        overlap = key[1]
        assert number == 7
        self.clock.now += self.seconds[overlap] + 100 * (not self.ran)
        self.ran.append(overlap)

    def wait(self):
        pass


@pytest.fixture
def clock(monkeypatch):
    """What a trial takes for the time: clock.now, of each thread."""
    clock = threading.local()
    clock.perf_counter = lambda: clock.now
    fake = SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr("dpedf.parallel.trial.time", fake)
    return clock


def chosen(clock, seconds, state):
    """(overlap, how many steps of trial) on each of two ranks."""

    def choose(ranks):
        clock.now = 0.0
        link, phi = SimpleNamespace(recordable=True), SimpleNamespace(state={})
        gradient, device = SimpleNamespace(link=link, phi=phi), TimedDevice(seconds[me.rank], clock)
        step = SimpleNamespace(gradient=gradient, device=device, number=7)
        step.losses = np.zeros(2)
        choose_overlap(step, (None, None, 8), ranks, state)
        return gradient.overlap, len(device.ran)

    return on_ranks(2, choose)


@pytest.mark.parametrize("faster", [False, True])
def test_the_trial_takes_what_is_faster_on_the_slowest_rank(clock, faster):
    slow = {faster: 3.0, not faster: 4.0}
    found = chosen(clock, [{faster: 2.0, not faster: 1.0}, slow], {})
    assert [overlap for overlap, _ in found] == [faster] * 2
    assert all(steps > 2 for _, steps in found)


@pytest.mark.parametrize("overlap", [False, True])
def test_a_run_that_goes_on_makes_no_second_trial_unless_on_other_ranks(clock, overlap):
    seconds = [{overlap: 2.0, not overlap: 1.0}] * 2  # a trial would end otherwise
    kept = chosen(clock, seconds, {"ranks": 2, "overlap": overlap})
    assert kept == [(overlap, 0)] * 2
    again = chosen(clock, seconds, {"ranks": 3, "overlap": overlap})
    assert [found for found, _ in again] == [not overlap] * 2


@pytest.mark.parametrize("overlap", [False, True])
def test_what_a_trial_chose_is_in_the_state_of_which_a_run_goes_on(clock, overlap):
    gradient = on_ranks(2, seen_by)[0][1]
    gradient.overlap = overlap
    state = Step(gradient, Momentum(gradient.phi)).state()
    assert chosen(clock, [{overlap: 2.0, not overlap: 1.0}] * 2, state) == [(overlap, 0)] * 2


class TimedGradient:
    """A Gradient that takes so many seconds, by passes, or more memory than there is for None.

    The first time in so many passes takes 0.2 seconds more, as where kernels are compiled.
    """

    def __init__(self, ranks, slices, seconds, clock):
        self.passes, self.overlap = Passes(slices, ranks.rank, ranks.size), True
        self.seconds, self.clock, self.ran = seconds, clock, []

    def compute_in(self, passes):
        self.now = passes

    def add_slices(self, x, y, B):
        assert not self.overlap  # no sum over ranks begins in one rank alone
        if self.seconds[self.now] is None:
            raise MemoryError
        self.clock.now += self.seconds[self.now] + 0.2 * (self.now not in self.ran)
        self.ran.append(self.now)


def passes_chosen(clock, seconds, slices=8):
    """What each of two ranks chooses for 512 rows, of which it has 4 slices or parts."""

    def choose(ranks):
        clock.now = 0.0
        gradient = TimedGradient(ranks, slices, seconds[ranks.rank], clock)
        chosen = fastest(gradient, None, None, 512, ranks, SimpleNamespace(wait=lambda: None))
        assert gradient.overlap
        return chosen

    return on_ranks(2, choose)


@pytest.mark.parametrize("slices", [0, 8])
@pytest.mark.parametrize("best", [1, 2, 4])
def test_a_rank_computes_in_so_many_passes_as_are_fastest_on_the_slowest_rank(clock, best, slices):
    slow = {passes: 0.02 if passes == best else 0.03 for passes in (1, 2, 4)}
    other = {passes: 0.015 if passes == best else 0.01 for passes in (1, 2, 4)}
    assert passes_chosen(clock, [slow, other], slices) == [best] * 2


@pytest.mark.parametrize("slices", [0, 8])
def test_passes_are_not_more_or_fewer_than_fit_into_memory(clock, slices, refused):
    fits = {1: 0.03, 2: 0.04, 4: 0.05}
    for lacking in [1], [1, 2]:
        found = passes_chosen(clock, [fits, fits | dict.fromkeys(lacking)], slices)
        assert found == [2 * lacking[-1]] * 2
    setting = "train.slices above 8" if slices else "train.rows below 64"
    with refused("one of 4 passes over 512 rows does not fit into memory", f"expected {setting}"):
        passes_chosen(clock, [fits, dict.fromkeys(fits)], slices)


@pytest.mark.parametrize("slices, chosen", [(0, 1), (8, 2)])
def test_without_slices_passes_which_change_bits_have_to_be_faster_by_far(clock, slices, chosen):
    assert passes_chosen(clock, [{1: 0.1, 2: 0.095, 4: 0.2}] * 2, slices) == [chosen] * 2


# What ranks agree on.


@pytest.mark.parametrize("told", [(), (0,), (1,), (2,), (0, 2), (0, 1, 2)], ids=str)
def test_all_ranks_stop_where_one_of_them_was_told_to(told):
    def meet(ranks):
        agreed = Agreement(ranks)
        agreed.told = SimpleNamespace(stop=ranks.rank in told)
        assert agreed.meet()
        return bool(agreed.stop), agreed.seconds, ranks.lived

    found = on_ranks(3, meet)
    assert {stop for stop, _, _ in found} == {bool(told)}
    assert len({seconds for _, seconds, _ in found}) == 1 and found[0][2] == 1


@pytest.mark.parametrize("step", [0.001, 0.02, 0.1, 0.7])
def test_ranks_meet_about_twice_a_second_however_long_a_step_takes(monkeypatch, step):
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(agreement, "time", clock)

    def meetings(ranks):
        agreed, times = Agreement(ranks), []
        while clock.now < 20:
            clock.now += step
            if agreed.meet():
                times.append(clock.now)
        return times

    (times,) = on_ranks(1, meetings)
    later = np.diff([t for t in times if t > 10])
    assert (later >= min(0.3, step)).all() and (later <= max(0.6, 1.01 * step)).all()


@pytest.mark.parametrize("wrong", [(0,), (2,), (1, 2)], ids=str)
def test_a_users_error_of_any_rank_becomes_that_of_all(wrong):
    def meet(ranks):
        with pytest.raises(AgreedError, match="rank of"), ranks.together():
            if ranks.rank in wrong:
                raise UserError(f"rank of {ranks.rank}")
        with ranks.together():
            return True

    assert on_ranks(3, meet) == [True] * 3


class EndedError(Exception):
    """What the Abort of MPI raises here: the status."""


@pytest.fixture
def ended(monkeypatch, capsys):
    """ended(error, rank): how job.run ends rank 1 of 3 whose main raises it, and what it prints."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(job.signals, "listen", lambda: None)
    monkeypatch.setattr(job.watchdog, "watch", lambda ranks: None)
    monkeypatch.setattr(ending, "Timer", lambda *arguments: SimpleNamespace(start=lambda: None))
    monkeypatch.setattr(ending, "os", SimpleNamespace(_exit=lambda status: None))
    for name in [name for name in os.environ if name.startswith(("PMI", "OMPI", "SLURM"))]:
        monkeypatch.delenv(name)

    def end(error, rank):
        def abort(status):
            raise EndedError(status)

        mpi = SimpleNamespace(COMM_WORLD=SimpleNamespace(size=3, Abort=abort))
        ranks = SimpleNamespace(rank=rank, size=3, MPI=mpi)
        ranks.words, ranks.host_rank = None, rank
        monkeypatch.setattr(job, "Ranks", lambda: ranks)

        def main(ranks):
            raise error

        with pytest.raises((EndedError, SystemExit)) as caught:
            job.run(main)
        how = "all" if caught.type is EndedError else "itself"
        return how, caught.value.args[0], capsys.readouterr().err

    return end


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_users_error_that_one_rank_alone_knows_ends_all_ranks_with_status_2(ended, rank):
    assert ended(UserError("a = 1, expected 2"), rank) == ("all", 2, "a = 1, expected 2\n")


def test_a_users_error_that_all_ranks_know_is_said_once_and_each_ends_itself(ended):
    assert ended(AgreedError("a = 1"), 0) == ("itself", 2, "a = 1\n")
    assert ended(AgreedError("a = 1"), 1) == ("itself", 2, "")


def test_any_other_error_ends_all_ranks_with_status_1_and_a_traceback(ended):
    how, status, said = ended(RuntimeError("a fault"), 1)
    assert (how, status) == ("all", 1) and said.startswith("rank 1:\nTraceback")


# A run that goes on.


def normalized(seed):
    """The ell and Phi of a layer with BatchNorm."""
    x, y = Input((4,), np.float64), Input((), np.intp, 3)
    scale = Package(w=Parameter(np.ones(5)), b=Parameter(np.zeros(5)))
    z = BatchNorm(scale, Affine(dense(4, 5), x))
    ell = LogLoss(Softmax(Affine(dense(5, 3), z)), y)
    return ell, Phi(ell, seed, np.float64)


def test_a_run_goes_on_with_the_phi_the_momentum_and_the_running_values_of_rank_0():
    """Which alone read the checkpoint."""

    def restore(ranks):
        ell, phi = normalized(seed=ranks.rank)
        for k, array in enumerate(phi.state.values()):
            array[...] = 10 * ranks.rank + k
        step = Step(Gradient(ell, phi, ranks, None), Momentum(phi, momentum=0.9))
        v = np.arange(len(phi.value), dtype=float)
        step.update.state["v"][...] = -ranks.rank
        state = {"step": 7, "rows": 5, "v": v} if ranks.rank == 0 else {}
        rest = step.restore(state, ranks)
        return step.number, rest, phi.value, step.update.state["v"], *phi.state.values()

    for number, rest, phi, v, mean, variance in on_ranks(3, restore):
        assert (number, rest) == (7, {"step": 7, "rows": 5})
        assert np.array_equal(phi, normalized(seed=0)[1].value)
        assert np.array_equal(v, np.arange(len(phi)))
        assert (mean == 0).all() and (variance == 1).all()


@pytest.mark.parametrize("losses", [[1.0, 2, 4, 8, 16], [32.0, 64, 128], [3.0]], ids=str)
@pytest.mark.parametrize("slices", [0, 5])
def test_losses_of_before_a_run_went_on_are_counted_once_and_not_once_a_rank(slices, losses):
    def restore(ranks):
        gradient = seen_by(ranks, slices)[1]
        step, setup = Step(gradient, Momentum(gradient.phi)), SimpleNamespace(ranks=ranks)
        setup.directory = None
        report = Report(setup, step, 10, 5)
        state = {"losses": np.array(losses), "rows": 40} | step.update.state
        state = state if ranks.rank == 0 else {}
        report.restore(step.restore(state, ranks))
        return [report.state() for _ in range(2)]

    for states in on_ranks(3, restore):
        for state in states:
            assert state["rows"] == 40 and state["losses"].sum() == sum(losses)
            assert len(losses) != (slices or 3) or state["losses"].tolist() == losses


def test_the_loss_that_is_said_is_that_of_the_rows_of_all_ranks():
    """The mean of 0, 1, ..., 9, in each of two steps."""
    said = []

    def learn(ranks):
        gradient = seen_by(ranks, 4)[1]
        step = Step(gradient, Momentum(gradient.phi))
        events = SimpleNamespace(event=lambda kind, **facts: said.append((kind, facts)))
        setup = SimpleNamespace(ranks=ranks, directory=events)
        report = Report(setup, step, 2, 2)
        report.say = lambda line: None
        x = np.arange(10.0)[slice(*gradient.shard(10))]
        for _ in range(2):
            step(x, x, 10, 0.0)
            report.learned(10)
            report.train(0.0, None)
        report.evaluated(Found(), "")

    on_ranks(3, learn)
    losses = [facts.get("loss", facts.get("train_loss")) for _, facts in said]
    assert losses == [4.5] * 9 and not any(math.isnan(loss) for loss in losses)
