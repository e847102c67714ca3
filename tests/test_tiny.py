"""The whole of dpedf in 60 lines: a newcomer reads this first.

train, of tests/mpi/launcher.py, starts mpirun; digits, of conftest.py, is a data file.
"""

import numpy as np
from launcher import train

from dpedf.check import check
from dpedf.edf import SGD, Backward, Forward, Input, Package, Parameter, Parameters
from dpedf.ops import Affine, LogLoss, Sigmoid, Softmax
from dpedf.phi import Phi, dense

random = np.random.default_rng(0)
IMAGES = random.normal(size=(60, 4))  # (B, I)
LABELS = (IMAGES.argmax(axis=1) + 1) % 4  # (B,)


def program():
    """The program of the slides, and its inputs."""
    x, y = Input((4,)), Input((), classes=4)
    x.value, y.value = IMAGES, LABELS
    Phi1, Phi2 = dense(4, 16), dense(16, 4)
    L1 = Sigmoid(Affine(Phi1, x))
    Q = Softmax(Affine(Phi2, L1))
    return LogLoss(Q, y), Q, x, y


def test_the_program_of_the_slides_learns():
    ell, Q, x, y = program()
    Phi(ell, seed=0, dtype=np.float64)  # draws initial values, and all p.value are views of it
    for _ in range(200):
        Forward(ell)
        Backward(ell)
        SGD(Parameters(ell), 3.0)
    Forward(ell)
    assert (Q.value.argmax(axis=1) == LABELS).mean() > 0.9


def test_backward_agrees_with_finite_differences():
    w, b = Parameter(random.normal(size=(4, 3))), Parameter(random.normal(size=3))
    check(Sigmoid(Affine(Package(w=w, b=b), Input((4,)))))


def test_the_gradients_of_the_shards_of_a_minibatch_add_up_to_its_gradient():
    ell, Q, x, y = program()
    phi = Phi(ell, seed=0, dtype=np.float64)
    gradients = []
    for rows in slice(0, 60), slice(0, 17), slice(17, 60):  # the whole, and two ranks' shards
        x.value, y.value = IMAGES[rows], LABELS[rows]
        Forward(ell)
        Backward(ell, B=60)  # of the mean over the whole minibatch
        gradients.append(phi.grad.copy())
    np.testing.assert_allclose(gradients[1] + gradients[2], gradients[0], rtol=1e-12, atol=1e-15)


def test_the_number_of_ranks_does_not_change_a_bit(digits, tmp_path):
    words = f"data.file={digits}", f"run.dir={tmp_path}", "train.steps=20", "--overwrite"
    ends = [train(n, "configs/digits.toml", *words).splitlines()[-1] for n in (1, 2, 3)]
    assert ends[0].startswith("phi_sha256 ") and ends[0] == ends[1] == ends[2]
