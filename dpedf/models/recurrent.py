"""Recurrent layers, as procedures that make a node for each position of a sequence.

x is (B, T, I), and h[b,t], of J numbers, tells of x[b,:t+1]; in reverse, of x[b,t:].  mask, (B, T),
is not 0 where there is something: other positions are passed over, whatever stands in x there, and
have h = 0, as in PyTorch's packed sequences.
"""

import numpy as np

from dpedf.edf import Package, Parameter
from dpedf.ops import Affine, Concat, GRUCell, LSTMCell, Reshape, Slice, Where, Zeros
from dpedf.phi import Uniform, dense


def lstm(I, J):
    """The package of an LSTM: w, (I, 4J), for x; u, (J, 4J), for h; b, (4J,), for both."""
    bound, b = J**-0.5, np.zeros(4 * J)
    b[J : 2 * J] = -1  # subtracted: at first the cells remember
    return Package(w=Uniform((I, 4 * J), bound), u=Uniform((J, 4 * J), bound), b=Parameter(b))


def gru(I, J):
    """The packages of a GRU, each w and b: one for x, (I, 3J), and one for h, (J, 3J)."""
    return [dense(size, 3 * J, lambda *sizes: J**-0.5) for size in (I, J)]


def LSTM(Phi, x, reverse=False, mask=None):
    """h[b,t,j], the outputs of a long short-term memory for x[b,t,i].  Phi: as of lstm."""
    z, T, J = Affine(Phi, shown(x, mask)), x.value.shape[1], len(Phi.u.value)
    state, h, outputs = Zeros(z, 2 * J), Zeros(z, J), []
    for t in positions(T, reverse):
        state = where_shown(mask, t, LSTMCell(Slice(z, t), h @ Phi.u, state), state)
        h = Slice(state, slice(J, None))
        outputs.append(h)
    return sequence(outputs, reverse, mask)


def GRU(Phi, Psi, x, reverse=False, mask=None):
    """h[b,t,j], the outputs of gated recurrent units for x[b,t,i].  Phi, Psi: as of gru."""
    z, T, J = Affine(Phi, shown(x, mask)), x.value.shape[1], len(Psi.w.value)
    h, outputs = Zeros(z, J), []
    for t in positions(T, reverse):
        h = where_shown(mask, t, GRUCell(Slice(z, t), Affine(Psi, h), h), h)
        outputs.append(h)
    return sequence(outputs, reverse, mask)


def BidirectionalLSTM(Phi, Psi, x, mask=None):
    """h[b,t], of 2J numbers: LSTM(Phi, x), and beside it LSTM(Psi, x) in reverse."""
    return Concat([LSTM(Phi, x, mask=mask), LSTM(Psi, x, reverse=True, mask=mask)])


def BidirectionalGRU(Phis, Psis, x, mask=None):
    """h[b,t], of 2J numbers: GRU(*Phis, x), and beside it GRU(*Psis, x) in reverse."""
    return Concat([GRU(*Phis, x, mask=mask), GRU(*Psis, x, reverse=True, mask=mask)])


def positions(T, reverse):
    return reversed(range(T)) if reverse else range(T)


def shown(x, mask):
    """x, but 0 where it is masked."""
    if mask is None:
        return x
    return Where(Reshape(mask, (x.value.shape[1], 1)), x, 0)


def where_shown(mask, t, new, old):
    """What an LSTM or a GRU remembers after position t."""
    return new if mask is None else Where(Slice(mask, t), new, old)


def sequence(outputs, reverse, mask):
    """(B, T, J), of what was made one after the other."""
    T, J = len(outputs), outputs[0].value.shape[1]
    return shown(Reshape(Concat(outputs[::-1] if reverse else outputs), (T, J)), mask)
