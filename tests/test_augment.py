"""Random crops, flips and holes, against what they are defined as, written out."""

from collections import Counter

import numpy as np
import pytest
from products import each

from dpedf.edf import Backward, Forward, Input, Parameter, Parameters
from dpedf.ops import Crop, Cutout, Flip, Shift, Sum
from dpedf.program import during

SHAPES = (5, 6), (1, 1), (3, 4, 7), (2, 2, 3, 3)
NODES = {
    "crop": lambda x: Crop(x, 4),
    "flip": lambda x: Flip(x),
    "cutout": lambda x: Cutout(x, 3),
    "shift": lambda x: Shift(x, 0.3),
}


def made(node, x, varies=False):
    """A node of rows x; with varies, of rows times a parameter of 1."""
    rows = Input(x.shape[1:], x.dtype)
    rows.value = x
    return node(rows * Parameter(np.ones(x.shape[1:], x.dtype)) if varies else rows)


def in_training(z, **facts):
    with during(**{"seed": 1, "step": 3, **facts}):
        Forward(z, train=True)
    return z.value


def images(B, shape, dtype=np.float64):
    """Of numbers that are not 0, no two alike."""
    numbers = 1 + np.random.default_rng(0).permutation(B * np.prod(shape))
    return numbers.reshape(B, *shape).astype(dtype)


def windows(x, P):
    """All that a crop may show of an image."""
    wide, (H, W) = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(P, P)] * 2), x.shape[-2:]
    return [wide[..., i : i + H, j : j + W] for i in range(2 * P + 1) for j in range(2 * P + 1)]


def holes(x, S):
    """All that a cutout may show, as DeVries and Taylor cut: x is 0 around each place of it."""
    H, W = x.shape[-2:]
    for i in range(H):
        for j in range(W):
            y, (top, left) = x.copy(), (i - S // 2, j - S // 2)
            for h in range(H):
                for w in range(W):
                    if top <= h < top + S and left <= w < left + S:
                        y[..., h, w] = 0
            yield y


ALL = {  # what each may become: with its probability, all alike
    "crop 1": (lambda x: Crop(x, 1), lambda x: windows(x, 1)),
    "crop 4": (lambda x: Crop(x, 4), lambda x: windows(x, 4)),
    "flip": (Flip, lambda x: [x, x[..., ::-1]]),
    "cutout 1": (lambda x: Cutout(x, 1), lambda x: [*holes(x, 1)]),
    "cutout 4": (lambda x: Cutout(x, 4), lambda x: [*holes(x, 4)]),
    "cutout 5": (lambda x: Cutout(x, 5), lambda x: [*holes(x, 5)]),
}


@pytest.mark.parametrize("name", ALL)
def test_every_picture_that_may_come_comes_as_often_as_the_others(name):
    node, those = ALL[name]

    @each("shape", [(4, 5), (2, 3, 4), (2, 1, 3, 3)])
    def compare(shape):
        x = np.broadcast_to(images(1, shape), (8000, *shape)).copy()
        may_be = Counter(y.tobytes() for y in those(x[0]))
        counts = Counter(y.tobytes() for y in in_training(made(node, x)))
        assert counts.keys() <= may_be.keys()
        share = len(x) / may_be.total()
        for y, times in may_be.items():  # five standard deviations of a binomial
            assert abs(counts[y] - times * share) < 5 * (times * share) ** 0.5 + 1

    compare()


@pytest.mark.parametrize("name", NODES)
def test_in_evaluation_images_stay_and_so_do_gradients(name):
    x = images(4, (3, 5, 4))
    ell = Sum(z := made(NODES[name], x, varies=True))
    Forward(ell, train=True)
    assert z.value.tobytes() != x.tobytes()
    Forward(ell)
    assert z.value.tobytes() == x.tobytes()
    Backward(ell, 1)
    (p,) = Parameters(ell)
    assert np.array_equal(p.grad, x.sum(axis=0))


@pytest.mark.parametrize("name", NODES)
def test_what_is_drawn_follows_from_seed_step_and_row_alone(name):
    x = images(13, (2, 5, 4))

    def drawn(first, end, **facts):
        return in_training(made(NODES[name], x[first:end]), row=first, **facts)

    whole = drawn(0, 13)
    for cut in 0, 1, 6, 13:
        assert np.concatenate([drawn(0, cut), drawn(cut, 13)]).tobytes() == whole.tobytes()
    assert drawn(0, 13, seed=2).tobytes() != whole.tobytes()
    assert drawn(0, 13, step=4).tobytes() != whole.tobytes()


@pytest.mark.parametrize("name", NODES)
def test_a_gradient_goes_the_way_of_its_number(name):
    """ell = sum w y is linear in x, so its gradient times x is ell again, for each x."""

    @each("shape", SHAPES)
    @each("dtype", [np.float32, np.float64])
    def compare(shape, dtype):
        x = Parameter(images(1, shape, dtype)[0])
        rows, w = Input(shape, dtype), Input(shape, dtype)
        rows.value, w.value = np.random.default_rng(1).normal(size=(2, 7, *shape)).astype(dtype)
        z = NODES[name](rows * x)
        ell = Sum(z * w)
        in_training(ell)
        Backward(ell, 1)
        assert x.grad.dtype == z.value.dtype == dtype
        exact = np.sum(w.value * z.value, dtype=float)
        np.testing.assert_allclose(np.sum(x.grad * x.value, dtype=float), exact, 1e-4, 1e-3)

    compare()


@pytest.mark.parametrize("name", NODES)
def test_no_number_becomes_nan_by_a_neighbour_and_none_stays_where_it_is_cut(name):
    x = images(50, (5, 5))
    x[:, 2, 2], x[:, 0, 0] = np.nan, np.inf
    y = in_training(made(NODES[name], x))
    assert (np.isnan(y).sum(axis=(1, 2)) <= 1).all() and np.isnan(y).any()
    if name in ("cutout", "crop"):
        assert not np.isnan(y).any(axis=(1, 2)).all()


@pytest.mark.parametrize("name", NODES)
def test_bytes_become_floats_and_rows_may_be_none(name):
    x = images(6, (3, 4)).astype(np.uint8)
    assert in_training(made(NODES[name], x)).dtype == np.float32
    assert in_training(made(NODES[name], x[:0])).shape == (0, 3, 4)


def test_nothing_is_drawn_where_nothing_can_change(monkeypatch):
    x = images(4, (3, 4))
    for node in (lambda x: Crop(x, 0)), (lambda x: Flip(x, 0)), (lambda x: Cutout(x, 0)):
        monkeypatch.setattr("dpedf.ops.augment.uniform", None)
        z = made(node, x)
        assert in_training(z) is z.x.value
    monkeypatch.undo()
    assert in_training(made(lambda x: Flip(x, 1), x)).tobytes() == x[..., ::-1].tobytes()


@pytest.mark.parametrize(
    "make, line",
    [
        (lambda x: Crop(x, -1), "Crop of padding -1, expected at least 0"),
        (lambda x: Crop(x, 1.5), "Crop by 1.5, expected whole numbers"),
        (lambda x: Cutout(x, -2), "Cutout of size -2, expected at least 0"),
        (lambda x: Flip(x, 1.1), "Flip of rate 1.1, expected 0 <= rate <= 1"),
        (lambda x: Flip(x, float("nan")), "Flip of rate nan, expected 0 <= rate <= 1"),
        (lambda x: Crop(Sum(x, 0), 1), r"Crop of x \(B, 4\): expected x \(B, ..., H, W\)"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_made(make, line):
    with pytest.raises(ValueError, match=line):
        make(Input((3, 4)))
