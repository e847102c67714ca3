"""Models of tables, in which some columns are categories."""

from itertools import groupby

from dpedf.models import expect
from dpedf.models.mlp import ACTIVATIONS, MLP
from dpedf.models.output import classifier_or_regression, outputs
from dpedf.ops import Affine, Concat, Dropout, Embedding, Flatten, Slice
from dpedf.ops.embedding import Codes
from dpedf.phi import Uniform, dense, glorot

MOST = 50  # numbers of an embedding, where nobody says how many


def tabular(
    x,
    y,
    hidden=(128, 64),
    embeddings=0,
    dropout=0.0,
    activation="relu",
    smoothing=0.0,
    class_weights=(),
):
    """An MLP of the numbers in a table and of an Embedding of each column of categories.

    hidden: sizes of its layers.  embeddings: how many numbers a category becomes; 0: half as many
    as its column has categories, at most 50.  dropout: the part of the values of each layer that
    is 0 in a step of training.  It is a regression where y holds numbers.
    """
    hidden = list(hidden) if isinstance(hidden, (list, tuple)) else [hidden]
    expect.positive(hidden=hidden, embeddings=1 if embeddings == 0 else embeddings)
    Activation, bound = expect.activation(activation, ACTIVATIONS)
    z = embedded(x, embeddings)
    sizes = [z.value.shape[1], *hidden]
    for pair in zip(sizes, sizes[1:], strict=False):
        z = MLP([dense(*pair, bound)], z, Activation)
        z = Dropout(z, dropout) if dropout else z
    s = Affine(dense(sizes[-1], outputs(y), glorot), z)
    return classifier_or_regression(s, y, smoothing, class_weights)


def embedded(x, size=0):
    """(B, I): the numbers of a row and the embeddings of its categories, in the order of x."""
    categories = getattr(x, "categories", ())
    if not any(categories):
        return x if len(x.shape) == 1 else Flatten(x)
    parts = []
    for are_numbers, columns in groupby(range(len(categories)), lambda i: categories[i] == 0):
        columns = [*columns]
        if are_numbers:
            parts.append(Slice(x, slice(columns[0], columns[-1] + 1)))
            continue
        for column in columns:
            K = categories[column]
            W = Categories((K, size or min(MOST, -(-K // 2))), 3**0.5)  # of variance 1
            parts.append(Embedding(W, Codes(Slice(x, column))))
    return Concat(parts)


class Categories(Uniform):
    """The weights of an Embedding whose code 0 is what no row to train may have: it begins at 0."""

    def draw(self, seed):
        W = super().draw(seed)
        W[0] = 0
        return W
