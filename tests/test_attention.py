"""Attention with masks and with heads that share keys, on a CPU and on an emulated GPU."""

import numpy as np
import pytest
from collected import given, gradients_collected
from emulator import Emulated, put
from products import each
from test_kernels import emulator, gpu, watched, whole  # noqa: F401, fixtures
from test_ops import attention, torch

from dpedf.edf import Backward, Forward, Input, Parameter
from dpedf.kernels.attention import attention_weights, scores_gradient
from dpedf.ops import Attention, NotEqual, Square, Sum

each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def gradients(y):
    """{Input: its gradient} of the sum of the squares of y; no number warns."""
    with np.errstate(all="raise", under="ignore"), gradients_collected(y) as grads:
        Forward(ell := Sum(Square(y)))
        Backward(ell, B=1)
    return grads


def passed(q, k, v, **keywords):
    """y and the gradients of q, k and v."""
    nodes = [given(x) for x in (q, k, v)]
    grads = gradients(y := Attention(*nodes, **keywords))
    return [y.value, *(grads[x] for x in nodes)]


def normal(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def sequences(B=3, T=5, S=5, q=8, k=8, v=8, dtype=np.float64):
    return (
        normal(B, T, q, dtype=dtype),
        normal(B, S, k, seed=1, dtype=dtype),
        normal(B, S, v, seed=2, dtype=dtype),
    )


@each_dtype
@each("causal", [False, True])
@each("groups", [None, 1, 2])
def test_a_position_that_looks_at_nothing_is_0_and_sends_nothing(causal, groups, dtype):
    width = 2 * (groups or 4)
    q, k, v = sequences(k=width, v=width, dtype=dtype)
    keys, pairs = np.ones((3, 5)), np.ones((3, 5, 5))
    keys[1], keys[2, 0], pairs[0, 2], pairs[1] = 0, 0, 0, 0
    for mask, blind in (
        (keys, [(1, ...), (2, 0)] if causal else [(1, ...)]),
        (pairs, [(0, 2), (1, ...)]),
    ):
        found = passed(q, k, v, heads=4, causal=causal, mask=given(mask), groups=groups)
        y, dq, dk, dv = found
        assert all(np.isfinite(x).all() and x.dtype == dtype for x in found)
        for place in blind:
            assert not y[place].any() and not dq[place].any()
        assert not dk[1].any() and not dv[1].any()
        seen = np.ones((3, 5), bool)
        for place in blind:
            seen[place] = False
        assert np.abs(y[seen]).min() > 0


@each_dtype
@each("bad", [0.0, 1e30, np.inf, np.nan])
def test_keys_of_padding_do_not_matter(bad, dtype):
    """A sequence with padding behind it, or before, has the values of one without."""
    q, k, v = sequences(dtype=dtype)
    for real in slice(0, 3), slice(2, 5):
        mask, spoilt = np.zeros((3, 5), np.float32), k.copy()
        mask[:, real] = 1
        spoilt[mask == 0] = bad
        y = Attention(*(given(x) for x in (q, spoilt, v)), heads=2, mask=given(mask))
        alone = Attention(*(given(x) for x in (q, k[:, real], v[:, real])), heads=2)
        with np.errstate(invalid="ignore", over="ignore"):
            Forward(y)
        Forward(alone)
        np.testing.assert_allclose(y.value, alone.value, 64 * np.finfo(dtype).eps)


def test_a_mask_may_be_made_in_the_graph_be_of_any_type_and_lack_b():
    q, k, v = sequences()
    symbols = np.array([[1, 2, 9, 9, 9], [3, 9, 9, 9, 9], [1, 2, 3, 4, 5]])
    expected = passed(q, k, v, heads=2, mask=given((symbols != 9).astype(float)))
    for mask in NotEqual(given(symbols), 9), *map(given, (symbols != 9, -2.5 * (symbols != 9))):
        for found, its in zip(passed(q, k, v, heads=2, mask=mask), expected, strict=True):
            assert np.array_equal(found, its)
    lower = Parameter(np.tri(5))
    causal = passed(q, k, v, heads=2, causal=True)
    for found, its in zip(passed(q, k, v, heads=2, mask=lower), causal, strict=True):
        assert np.array_equal(found, its)
    assert not lower.grad.any()


def test_all_masks_of_pairs_and_groups_agree_with_pytorch():
    pytest.importorskip("torch", reason="the reference is PyTorch")
    random = np.random.default_rng(5)
    for case in range(16):
        groups, causal, keys = [None, 1, 2, 3, 6][case % 5], bool(case % 2), bool(case % 3)
        B, T, S, I, J = random.integers(1, 6, 5)
        width = groups or 6
        arrays = sequences(B, T, S, 6 * I, width * I, width * J)
        mask = random.integers(0, 2, (B, S) if keys else (B, T, S))
        tensors = [torch().tensor(x, requires_grad=True) for x in arrays]
        y = attention(*tensors, torch().tensor(mask), 6, groups, causal)
        (y * y).sum().backward()
        found = passed(*arrays, heads=6, causal=causal, mask=given(mask), groups=groups)
        for x, its in zip(found, [y, *(t.grad for t in tensors)], strict=True):
            np.testing.assert_allclose(x, its.detach(), 1e-9, 1e-12)


def test_one_group_for_each_head_has_the_bits_of_none():
    for found, its in zip(
        passed(*sequences(), heads=4, groups=4), passed(*sequences(), heads=4), strict=True
    ):
        assert found.tobytes() == its.tobytes()


def test_a_value_that_is_also_the_query_gets_both_gradients_where_heads_share_keys():
    q, k, _ = sequences(T=4, S=4, q=8, k=2)
    x, y = given(q), given(k)
    grads = gradients(Attention(x, y, x, heads=4, groups=1))
    apart = [given(q), given(q)]
    its = gradients(Attention(apart[0], y, apart[1], heads=4, groups=1))
    np.testing.assert_allclose(grads[x], its[apart[0]] + its[apart[1]], 1e-12)


WRONG = {
    "Attention of 4 heads in 3 groups, expected": dict(heads=4, groups=3),
    "Attention of 4 heads in 0 groups, expected": dict(heads=4, groups=0),
    "Attention by 1.5, expected whole numbers": dict(heads=4, groups=1.5),
    "Attention of q (B, 5, 8), k (B, 5, 8), v (B, 5, 8): expected k (B, S, 4)": dict(
        heads=4, groups=2
    ),
    "Attention of q (B, 5, 8), k (B, 5, 8), v (B, 5, 8), mask (B, 4): expected mask": dict(
        mask=Input((4,))
    ),
    "Attention of q (B, 5, 8), k (B, 5, 8), v (B, 5, 8), mask (B, 4, 5): expected mask": dict(
        mask=Input((4, 5))
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_mask_and_groups_that_do_not_fit_are_one_line(message):
    with pytest.raises(ValueError) as caught:
        Attention(*(Input((5, 8)) for _ in range(3)), **WRONG[message])
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@each_dtype
@each("T, S", [(1, 1), (33, 2), (3, 70)])
@each("sharing", [1, 3])
@each("causal, keys", [(False, True), (True, False)])
def test_masked_weights_on_a_gpu_are_those_of_numpy(watched, keys, causal, sharing, T, S, dtype):  # noqa: F811
    for B, rows in (0, 0), (2, 1 if keys else 2):
        q, k = whole((B, 2, sharing * T, 5), dtype, 0), whole((B, 2, S, 5), dtype, 1)
        mask = np.random.default_rng(2).integers(0, 2, (rows, 1 if keys else T, S)).astype(bool)
        mask[:1, :1] = False
        a = attention_weights(put(q), put(k), 0.5, causal, put(mask), sharing)
        expected = attention_weights(q, k, 0.5, causal, mask, sharing)
        assert type(a) is Emulated and a.dtype == dtype and a.shape == expected.shape
        np.testing.assert_allclose(a, expected, (S / 32 + 60) * np.finfo(dtype).eps)
        if B:
            assert not np.asarray(a)[0, ..., ::T].any()
        v, g = whole((B, 2, S, 3), dtype, 3), whole((B, 2, sharing * T, 3), dtype, 4)
        y = whole((B, T, 2 * sharing, 3), dtype, 5).swapaxes(1, 2)
        d = scores_gradient(a, put(v), put(g), put(y.swapaxes(1, 2)).swapaxes(1, 2), 0.5)
        its = scores_gradient(expected, v, g, y, 0.5)
        np.testing.assert_allclose(d, its, 1e-3 if dtype is np.float32 else 1e-9, 1e-5)
