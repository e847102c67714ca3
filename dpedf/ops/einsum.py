"""Index notation: any sum of products, as the slides write it."""

from itertools import compress
from math import prod
from string import ascii_lowercase

import numpy as np

from dpedf.edf import CompNode, context
from dpedf.kernels import floats, packed
from dpedf.kernels.gemm import product
from dpedf.kernels.sums import sum_of_axes
from dpedf.ops.indices import LETTERS, indexed


class Einsum(CompNode):
    """z = sum x y, over the letters that z lacks: Einsum("bti,ij->btj", x, W)

    x.grad += sum z.grad y
    y.grad += sum x z.grad

    The sums are over the letters that the left side lacks: the output is swapped with an input.
    Letters of both operands and of z are those of a batch of products.  More than two operands
    pair up from left to right; one is transposed, and summed over what z lacks.  The first letter
    of a value with b stands for b.

    ValueError: a letter twice in an operand, an ellipsis or a capital, a letter of z that no
    operand has, b that is not first, sizes that differ.
    """

    def __init__(self, indices, x, *others):
        inputs, _, z = indices.replace(" ", "").partition("->")
        words = inputs.split(",")
        for word in (*words, z):
            if len({*word}) < len(word) or word.strip(ascii_lowercase):
                raise ValueError(f'Einsum("{indices}"): {word}, expected distinct letters')
        if len(words) != 1 + len(others) or not {*z} <= {*inputs}:
            expected = f"letters for {1 + len(others)} operands, and no others in the output"
            raise ValueError(f'Einsum("{indices}"), expected {expected}')
        while len(words) > 2:
            needed = {*z}.union(*words[2:])
            rows = [word[0] for n, word in zip((x, others[0]), words, strict=False) if n.batched]
            letters = dict.fromkeys([*rows, *words[0], *words[1]])  # b first
            both = "".join(i for i in letters if i in needed)
            x = Einsum(f"{words[0]},{words[1]}->{both}", x, others[0])
            words, others = [both, *words[2:]], others[1:]
        self.x, self.y, self.words, self.z = x, others[0] if others else None, words, z
        for n, word in zip(self.operands, words, strict=True):
            if n.batched and word[:1] != z[:1]:
                raise ValueError(f'Einsum("{indices}"), expected b first in {word} and in {z}')

    def equations(self):
        """Those of these letters; b is that of rows, and no other."""
        first = self.z[0] if self.batched else next(a for a in LETTERS if a not in self.sizes)
        swapped = str.maketrans(f"b{first}", f"{first}b")
        z, *words = (word.translate(swapped) for word in (self.z, *self.words))
        words = {name: word for name, word in zip("xy", words, strict=False)}
        lines = [f"{indexed('z', z)} = {product_of(words, z)}"]
        for name, word in words.items():
            others = {other: letters for other, letters in words.items() if other != name}
            right = product_of({"z.grad": z} | others, word)
            lines.append(f"{indexed(f'{name}.grad', word)} += {right}")
        return "\n".join(lines)

    @property
    def operands(self):
        return [self.x] if self.y is None else [self.x, self.y]

    def forward(self):
        values = floats(*[n.value for n in self.operands])
        self.sizes = {}
        for value, word in zip(values, self.words, strict=True):
            if value.ndim != len(word):
                raise ValueError(f"expected {value.ndim} letters, not {word}")
            for letter, size in zip(word, value.shape, strict=True):
                if self.sizes.setdefault(letter, size) != size:
                    raise ValueError(
                        f"expected one size of {letter}, not {self.sizes[letter]} and {size}"
                    )
        cut = [n.batched for n in self.operands]
        pieces = [piece for _, piece in summed_by_slices(values, self.words, cut, self.z)]
        self.value = rows(pieces) if self.batched else pieces[0][0]

    def backward(self):
        for k, n in enumerate(self.operands):
            if n.varies:
                others = self.operands[:k] + self.operands[k + 1 :]
                values = floats(self.grad, *[other.value for other in others])
                words = [self.z, *self.words[:k], *self.words[k + 1 :]]
                cut = [self.batched, *(other.batched for other in others)]
                known = "".join(i for i in self.words[k] if i in "".join(words))
                deltas = [*summed_by_slices(values, words, cut, known)]
                if n.batched:
                    delta = rows([delta for _, delta in deltas])
                    n.addgrad(self.spread(delta, known, self.words[k]))
                else:
                    for these, delta in deltas:
                        n.addslices(these, self.spread(delta, known, self.words[k]))

    def spread(self, x, letters, word):
        """x, repeated along the letters of a word that it lacks; it may have slices first."""
        lead = x.shape[: x.ndim - len(letters)]
        lacking = (axis for axis, letter in enumerate(word, len(lead)) if letter not in letters)
        x = np.expand_dims(x, tuple(lacking))
        return np.broadcast_to(x, (*lead, *(self.sizes[i] for i in word)))


def product_of(words, left):
    """A product of what is named, with words as indices, summed over the letters left lacks."""
    over = ",".join(dict.fromkeys(i for word in words.values() for i in word if i not in left))
    factors = [indexed(name, word) for name, word in words.items()]
    return " ".join([f"sum_{over}"] * bool(over) + factors)


def summed_by_slices(values, words, cut, z):
    """Yield (which slices, what summed gives for them, with an index of slices first).

    cut: which values have the rows as first index.
    """
    for these, *parts in context.slices.cut(*compress(values, cut)):
        parts = iter(parts)
        each = [
            packed(next(parts)) if has_rows else x[np.newaxis]
            for x, has_rows in zip(values, cut, strict=True)
        ]
        yield these, summed(each, words, z)


def rows(pieces):
    """The rows of all slices, (B, ...), of pieces (V, b, ...)."""
    pieces = [x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]) for x in pieces]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def summed(values, words, z):
    """Sums of products of one or two arrays with the letters of words, with the letters of z.

    The first index of the arrays is that of slices, of which each is a product of its own.
    """
    if len(values) == 1:
        return arranged(*values, *words, z)
    (x, y), (i, j) = values, words
    x, i = without(x, i, [*j, *z])
    y, j = without(y, j, [*i, *z])
    batch = [letter for letter in z if letter in i and letter in j]
    inner = [letter for letter in i if letter in j and letter not in z]
    rows = [letter for letter in i if letter not in j]
    columns = [letter for letter in j if letter not in i]
    a, b = arranged(x, i, batch + rows + inner), arranged(y, j, batch + inner + columns)
    sizes = dict(zip([*i, *j], x.shape[1:] + y.shape[1:], strict=True))
    shape = [[sizes[letter] for letter in letters] for letters in (batch, rows, inner, columns)]
    N, I, K, J = map(prod, shape)
    c = product(a.reshape(len(a), N, I, K), b.reshape(len(b), N, K, J))
    c = c.reshape((len(c), *shape[0], *shape[1], *shape[3]))
    return arranged(c, batch + rows + columns, z)


def arranged(x, letters, order):
    """x with its indices in this order after the first, summed over those that it lacks."""
    x, letters = without(x, letters, order)
    return x.transpose(0, *(1 + letters.index(letter) for letter in order))


def without(x, letters, kept):
    """x summed over the letters that are not kept, and the letters that are left."""
    over = tuple(axis for axis, letter in enumerate(letters, 1) if letter not in kept)
    if over:
        x = sum_of_axes(x, over)
    return x, [letter for letter in letters if letter in kept]
