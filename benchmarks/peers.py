"""The same models in PyTorch, as its users write them."""

import torch
from torch import nn
from torch.nn import functional


def lenet(channels, hidden, padding):
    """Max-pool before relu, which is the same, and cheaper."""
    J, K = channels
    side = (28 + 2 * padding - 4) // 2
    sizes = [K * ((side - 4) // 2) ** 2, *hidden, 10]
    dense = [nn.Linear(*pair) for pair in zip(sizes, sizes[1:], strict=False)]
    return nn.Sequential(
        *(nn.Conv2d(1, J, 5, padding=padding), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(J, K, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten()),
        *(module for layer in dense[:-1] for module in (layer, nn.ReLU())),
        dense[-1],
    )


class LSTM(nn.Module):
    def __init__(self, classes, embedding=64, hidden=192):
        super().__init__()
        self.embedding = nn.Embedding(classes, embedding)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True)
        self.scores = nn.Linear(hidden, classes)

    def forward(self, x):
        return self.scores(self.lstm(self.embedding(x))[0])


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.norms = heads, nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        qkv = self.qkv(self.norms[0](x)).chunk(3, dim=2)
        q, k, v = (z.unflatten(2, (self.heads, -1)).transpose(1, 2) for z in qkv)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.norms[1](x))))


class Transformer(nn.Module):
    """gelu is the exact one, which is faster here than the approximation by tanh."""

    def __init__(self, classes, length=64, layers=4, heads=4, width=128):
        super().__init__()
        self.embedding = nn.Embedding(classes, width)
        self.positions = nn.Parameter(torch.zeros(length, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        z = self.norm(self.blocks(self.embedding(x) + self.positions))
        return z @ self.embedding.weight.T


def mlp(sizes, B):
    """(an MLP, B random rows, their labels)"""
    layers = []
    for pair in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(*pair), nn.ReLU()]
    return nn.Sequential(*layers[:-1]), torch.rand(B, sizes[0]), torch.randint(0, sizes[-1], (B,))


def pytorch_step(sizes, B, wrap=lambda model: model):
    """A function that makes one SGD step of an MLP on B random rows."""
    model, x, y = mlp(sizes, B)
    return step_of(wrap(model), x, y)


def loss(scores, y):
    """The mean over all rows, of a text over its positions too."""
    return functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), y.reshape(-1))


def step_of(model, x, y, eta=0.01):
    """A function that makes one SGD step of a model on the rows x, y."""
    optimizer = torch.optim.SGD(model.parameters(), lr=eta, fused=True)

    def step():
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()

    return step
