"""Models, as procedures in EDF.

model(x, y, **keywords) -> (output, ell): x and y are Inputs that know their shape (without
b), y also its number of classes; ell is the loss of each example, (B,).  A third result may name
parts of ell, {name: (B,)}, which are reported beside it.  Every key of [model] in a config, but
build, is a keyword argument.
"""

from dpedf.models.autoencoder import autoencoder
from dpedf.models.classics import logistic, nineties
from dpedf.models.images import convnet, lenet
from dpedf.models.mlp import MLP, mlp, slides
from dpedf.models.resnet import resnet
from dpedf.models.tables import tabular
from dpedf.models.text import char_gru, char_lstm, char_transformer
from dpedf.models.vae import vae
