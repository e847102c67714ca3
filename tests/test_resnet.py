"""resnet against PyTorch in float64, and what its paper says of it."""

import numpy as np
import pytest

from dpedf.edf import Backward, CompNodes, Forward, Input
from dpedf.errors import UserError
from dpedf.models import resnet
from dpedf.ops import BatchNorm
from dpedf.phi import Phi
from dpedf.program import program


def model(shape=(3, 32, 32), dtype=np.float64, **keywords):
    x, y = Input(shape, dtype), Input((), np.intp, classes=10)
    Q, ell = resnet(x, y, **keywords)
    return x, y, ell, Phi(ell, seed=3, dtype=dtype)


def peer(depth, width, torch):
    """The same in PyTorch, as its pages have it: F.pad of every other line, no biases."""
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, I, J, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(I, J, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(J)
            self.conv2 = nn.Conv2d(J, J, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(J)
            self.stride, self.more = stride, J - I

        def forward(self, x):
            z = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
            rest = x[:, :, :: self.stride, :: self.stride]
            return F.relu(z + F.pad(rest, (0, 0, 0, 0, 0, self.more)))

    class Peer(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
            blocks, I = [], width
            for stage in range(3):
                for number in range((depth - 2) // 6):
                    blocks.append(Block(I, width * 2**stage, 2 if stage and not number else 1))
                    I = width * 2**stage
            self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(I, 10)

        def forward(self, x):
            z = self.blocks(F.relu(self.bn(self.conv(x))))
            return self.fc(F.adaptive_avg_pool2d(z, 1).flatten(1))

    return Peer().double()


@pytest.mark.parametrize("depth, width, shape", [(8, 3, (3, 5, 6)), (14, 2, (3, 4, 4))])
def test_losses_gradients_and_running_values_are_those_of_pytorch(depth, width, shape):
    torch = pytest.importorskip("torch", reason="the reference is PyTorch")
    x, y, ell, phi = model(shape, depth=depth, width=width, crop=0, flip=0)
    net, random = peer(depth, width, torch), np.random.default_rng(0)
    phi.value += random.normal(scale=0.1, size=len(phi.value))
    parameters = dict(net.named_parameters())
    assert len(parameters) == len(phi.parameters)
    with torch.no_grad():  # dpedf subtracts its biases, and has weights of layers as (I, J)
        for p, its in zip(phi.parameters, parameters.values(), strict=True):
            value = -p.value if its.ndim == p.value.ndim == 1 and p.name.endswith("b") else p.value
            its.copy_(torch.tensor(value.T if value.ndim == 2 else value))
    x.value, y.value = random.normal(size=(4, *shape)), np.array([3, 0, 9, 3])
    for train in True, False:
        Forward(ell, train=train)
        Backward(ell)
        net.train(train).zero_grad()
        labels = torch.tensor(y.value)
        losses = torch.nn.functional.cross_entropy(
            net(torch.tensor(x.value)), labels, reduction="none"
        )
        losses.mean().backward()
        np.testing.assert_allclose(ell.value, losses.detach(), 1e-9)
        for p, its in zip(phi.parameters, parameters.values(), strict=True):
            sign = -1 if p.value.ndim == 1 and p.name.endswith("b") else 1
            grad = its.grad.numpy().T if p.value.ndim == 2 else its.grad.numpy()
            np.testing.assert_allclose(p.grad, sign * grad, 1e-7, 1e-10, err_msg=p.name)
    norms = [n for n in CompNodes(ell) if isinstance(n, BatchNorm)]
    theirs = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for here, there in zip(norms, theirs, strict=True):
        np.testing.assert_allclose(here.state["mean"], there.running_mean, 1e-9, 1e-12)
        np.testing.assert_allclose(here.state["variance"], there.running_var, 1e-9)


@pytest.mark.parametrize(
    "depth, millions", [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_it_has_as_many_parameters_as_table_6_of_the_paper_says(depth, millions):
    n = len(model(dtype=np.float32, depth=depth)[3].value)
    assert round(n / 1e6, 1 if depth == 110 else 2) == millions


def test_every_parameter_learns_and_a_convolution_has_no_bias():
    _, _, ell, phi = model((1, 8, 8), depth=8, width=2)
    assert not program(ell).frozen
    assert sum(p.name.endswith(".b") for p in phi.parameters) == 7 + 1  # of BatchNorm, the last


def test_it_takes_smoothing_and_weights_of_classes():
    weights = [*range(10)]
    _, _, ell, _ = model((8, 8), depth=8, width=2, smoothing=0.1, class_weights=weights)
    assert ell.smoothing == 0.1 and ell.weights.tolist() == weights


@pytest.mark.parametrize(
    "keywords, line",
    [
        ({"depth": 21}, "model.depth = 21, expected 6n [+] 2: 8, 14, 20"),
        ({"depth": 2}, "model.depth = 2, expected 6n"),
        ({"depth": 20.0}, "model.depth = 20.0, expected a positive integer"),
        ({"width": 0}, "model.width = 0, expected a positive integer"),
        ({"shape": (32, 32, 3)}, r"x is \(32, 32, 3\), expected \(I, H, W\), the channels first"),
        ({"cutout": 40}, r"model.cutout = 40, expected at most 32: x is \(3, 32, 32\)"),
        ({"crop": 33}, "model.crop = 33, expected at most 32"),
        ({"shape": (5,)}, r"model.build = resnet: x is \(5,\), expected \(H, W\)"),
    ],
)
def test_what_is_no_resnet_is_refused_in_a_line(keywords, line):
    with pytest.raises(UserError, match=line):
        model(**keywords)
