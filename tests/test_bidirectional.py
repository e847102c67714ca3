"""Recurrent layers in both directions, of sequences of different lengths, against PyTorch."""

import numpy as np
import pytest
from collected import given, gradients_collected
from products import each

from dpedf.check import check
from dpedf.edf import Backward, Forward, Input
from dpedf.models.recurrent import GRU, LSTM, BidirectionalGRU, BidirectionalLSTM, gru, lstm
from dpedf.ops import Affine, Embedding, LogLoss, NotEqual, Softmax, Sum
from dpedf.phi import Phi, Uniform, dense
from dpedf.run.pytorch import exchanged

B, T, I, J = 4, 5, 3, 2
LENGTHS = [5, 3, 1, 4]
MASK = (np.arange(T) < np.array(LENGTHS)[:, np.newaxis]).astype(float)


def lstms():
    """Two packages, what runs them, and their parameters under PyTorch's names."""
    packages = lstm(I, J), lstm(I, J)

    def named():
        for its, end in zip(packages, ("", "_reverse"), strict=True):
            yield f"weight_ih_l0{end}", its.w, lambda a: exchanged(a.T)
            yield f"weight_hh_l0{end}", its.u, lambda a: exchanged(a.T)
            yield f"bias_ih_l0{end}", its.b, lambda a: exchanged(-a)

    return packages, BidirectionalLSTM, [*named()]


def grus():
    packages = gru(I, J), gru(I, J)

    def named():
        for pair, end in zip(packages, ("", "_reverse"), strict=True):
            for its, word in zip(pair, ("ih", "hh"), strict=True):
                yield f"weight_{word}_l0{end}", its.w, np.transpose
                yield f"bias_{word}_l0{end}", its.b, np.negative

    return packages, BidirectionalGRU, [*named()]


def inputs(seed=0):
    return np.random.default_rng(seed).normal(size=(B, T, I))


def filled(names):
    random = np.random.default_rng(1)
    for _, p, _ in names:
        p.value[...] = random.normal(size=p.value.shape)


@pytest.mark.parametrize("kind", [lstms, grus])
@each("masked", [False, True])
def test_both_directions_agree_with_pytorch_in_float64(kind, masked):
    torch = pytest.importorskip("torch", reason="the reference is PyTorch")
    packages, layer, names = kind()
    filled(names)
    x, g = given(inputs()), inputs(2)[:, :, [0, 1, 2, 0]]
    y = layer(*packages, x, *[given(MASK)] * masked)
    assert y.value.shape == (0, T, 2 * J)

    theirs = {lstms: torch.nn.LSTM, grus: torch.nn.GRU}[kind](
        I, J, batch_first=True, bidirectional=True, dtype=torch.float64
    )
    with torch.no_grad():
        for p in theirs.parameters():
            p.zero_()
        for name, p, turn in names:
            getattr(theirs, name).copy_(torch.tensor(turn(p.value)))
    leaf = torch.tensor(x.value, requires_grad=True)
    if masked:
        pack = torch.nn.utils.rnn.pack_padded_sequence(leaf, LENGTHS, True, enforce_sorted=False)
        out, _ = theirs(pack)
        out, _ = torch.nn.utils.rnn.pad_packed_sequence(out, batch_first=True)
    else:
        out, _ = theirs(leaf)
    (out * torch.tensor(g)).sum().backward()

    with gradients_collected(y) as grads:
        ell = Sum(y * given(g))
        Forward(ell)
        Backward(ell, B=1)
    near = dict(rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(y.value, out.detach(), **near)
    np.testing.assert_allclose(grads[x], leaf.grad, **near)
    for name, p, turn in names:
        np.testing.assert_allclose(turn(p.grad), getattr(theirs, name).grad, **near, err_msg=name)


def alone(layer, packages, row, reverse):
    """The outputs for the positions of one sequence that are no padding, and for no others."""
    y = layer(*packages, given(row[np.newaxis]), reverse=reverse)
    Forward(y)
    return y.value[0]


@pytest.mark.parametrize("kind", [lstms, grus])
@each("reverse", [False, True])
@each("bad", [0.0, np.nan, np.inf, 1e200])
def test_padding_is_passed_over_wherever_it_is_and_whatever_it_holds(kind, reverse, bad):
    packages, _, names = kind()
    filled(names)
    layer, mine = (LSTM, packages[:1]) if kind is lstms else (GRU, packages[0])
    mask = np.array([[0, 0, 1, 1, 1], [1, 0, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    x = given(np.where(mask[..., np.newaxis], inputs(), bad))
    y = layer(*mine, x, reverse=reverse, mask=given(mask))
    with gradients_collected(y) as grads:
        ell = Sum(y * y)
        Forward(ell)
        Backward(ell, B=1)
    for row, value, grad, real in zip(x.value, y.value, grads[x], mask == 1, strict=True):
        assert not value[~real].any() and not grad[~real].any()
        if real.any():
            np.testing.assert_allclose(value[real], alone(layer, mine, row[real], reverse), 1e-12)
    for _, p, _ in names[: len(names) // 2]:
        assert np.isfinite(p.grad).all() and p.grad.any()


@pytest.mark.parametrize("kind", [lstms, grus])
def test_a_mask_of_ones_changes_no_bit_and_no_rows_are_none(kind):
    packages, layer, names = kind()
    filled(names)
    x = given(inputs())
    plain, masked = layer(*packages, x), layer(*packages, x, given(np.ones((B, T), bool)))
    for y in plain, masked:
        Forward(y)
    assert plain.value.tobytes() == masked.value.tobytes()
    x.value = x.value[:0]
    Forward(plain)
    assert plain.value.shape == (0, T, 2 * J)


def test_reverse_is_the_sequence_from_its_end():
    packages, _, names = lstms()
    filled(names)
    x = inputs()
    there, back = LSTM(packages[0], given(x)), LSTM(packages[0], given(x[:, ::-1].copy()), True)
    for y in there, back:
        Forward(y)
    assert np.array_equal(there.value, back.value[:, ::-1])


def tagger(T):
    """A model of tags for symbols 0..4, where 5 is padding; and its vector."""
    x, y = Input((T,), int, 6), Input((T,), int, 6)
    mask = NotEqual(x, 5)
    h = BidirectionalLSTM(lstm(I, J), lstm(I, J), Embedding(Uniform((6, I), 1), x), mask)
    ell = LogLoss(Softmax(Affine(dense(2 * J, 6), h)), y, mask)
    return x, y, ell, Phi(ell, seed=0, dtype=np.float64)


def test_the_loss_and_gradients_of_sequences_with_padding_are_those_without():
    found = []
    for length in 5, 3:
        x, y, ell, phi = tagger(length)
        x.value = np.array([[1, 0, 4, 5, 5], [2, 2, 3, 5, 5]])[:, :length]
        y.value = np.array([[1, 2, 3, 0, 5], [4, 3, 1, 1, 2]])[:, :length]
        Forward(ell)
        Backward(ell)
        found.append((ell.value, phi.grad))
        check(ell)
    for padded, without in zip(*found, strict=True):
        np.testing.assert_allclose(padded, without, 1e-12, 1e-15)
