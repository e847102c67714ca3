"""Phi: all parameters of a graph as one vector, with names and initial values."""

import hashlib
from itertools import accumulate, pairwise

import numpy as np

from dpedf.device import host
from dpedf.edf import Package, Parameter, Parameters
from dpedf.errors import UserError
from dpedf.program import program


class Uniform(Parameter):
    """A parameter whose initial value Phi draws from U(-bound, bound), by its name."""

    def __init__(self, shape, bound):
        super().__init__(np.zeros(shape))
        self.bound = float(bound)

    def draw(self, seed):
        """The same numbers for the same (seed, name), whatever else is in the model."""
        key = hashlib.sha256(f"{seed} {self.name}".encode(errors="surrogatepass")).digest()
        random = np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little")))
        return (2 * random.random(self.value.shape) - 1) * self.bound


def glorot(I, J):
    """The bound for weights (I, J) into a sigmoid, tanh or softmax: Glorot and Bengio, 2010."""
    return (6 / (I + J)) ** 0.5


def he(I, J):
    """The bound for weights (I, J) into a relu: He et al., 2015."""
    return (6 / I) ** 0.5


def dense(I, J, bound=glorot, name=None):
    """The package of a layer: w, (I, J), drawn from U(-bound(I, J), bound(I, J)); b, (J,), zero."""
    return Package(name, w=Uniform((I, J), bound(I, J)), b=Parameter(np.zeros(J)))


def name_parameters(parameters):
    """Phi1.w, Phi1.b, Phi2.w, ...: packages count as they were made, or have a name of their own.

    A parameter outside of any package is named like one.  Two of one name: UserError.
    """
    packages = sorted({p.package or p for p in parameters}, key=lambda package: package.number)
    for number, package in enumerate(packages, 1):
        if isinstance(package, Parameter):
            package.name = f"Phi{number}"
        else:
            for key, p in vars(package).items():
                if isinstance(p, Parameter):
                    p.name = f"{package.name or f'Phi{number}'}.{key}"
    names = [p.name for p in parameters]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two parameters are named {twice[0]}, expected a name for each")


class Phi:
    """The vector of all parameters that a loss depends on, and that of their gradients.

    value, grad: (n,), in program order.  The value and grad of every parameter become views of
    them, so that SGD([Phi], eta), a broadcast or a sum over ranks moves one array.
    failed: (1,), behind grad in memory, so that it is summed over ranks with it: 0, or nan from the
    step on whose loss was not finite on some rank.  From then on update rules only count in
    skipped, (1,).  failure: both.
    state: by name, frozen parameters and running values of nodes, which belong to the model too.
    put: brings an array to the device that computes.
    """

    def __init__(self, loss, seed=0, dtype=np.float32, put=np.asarray):
        self.parameters, frozen = Parameters(loss), program(loss).frozen
        name_parameters(self.parameters + frozen)
        self.offsets = [0, *accumulate(p.value.size for p in self.parameters)]
        value, kept = np.empty(self.offsets[-1], dtype), [p.value.astype(dtype) for p in frozen]
        for p, view in zip(self.parameters + frozen, self.views(value) + kept, strict=True):
            view[...] = p.draw(seed) if isinstance(p, Uniform) else p.value
        self.value = put(value)
        self.parts = self.views(self.value)
        for p, part in zip(self.parameters + frozen, self.parts + [*map(put, kept)], strict=True):
            p.value, p.sum_over_rows = part, None  # so that a frozen one gets no gradient
        self.state = {p.name: p.value for p in frozen}
        self.skipped = np.zeros_like(self.value, shape=1, dtype=np.int64)
        self.differentiate_into(np.zeros_like(self.value, shape=(1, len(self.value) + 1)))
        for n, name in program(loss).names.items():
            running = getattr(n, "state", None)  # in a user's node, this may be an input
            for key, array in running.items() if isinstance(running, dict) else ():
                running[key] = self.state[f"{name}.{key}"] = put(array.astype(dtype))

    def __reduce__(self):
        raise TypeError("Phi cannot be copied: copy its loss, and make another Phi of that")

    def views(self, vectors):
        """The parts of a vector like Phi, or of several, each in the shape of its parameter."""
        lead, parts = vectors.shape[:-1], zip(pairwise(self.offsets), self.parameters, strict=True)
        return [vectors[..., a:b].reshape(lead + p.value.shape) for (a, b), p in parts]

    def differentiate_into(self, summed):
        """From now on, grad and failed are the first of these vectors, (K, n + 1)."""
        n = len(self.value)
        self.summed, self.grad, self.failed = summed, summed[0, :n], summed[0, n:]
        self.failure = self.failed, self.skipped
        for p, view in zip(self.parameters, self.views(summed), strict=True):
            p.differentiate_into(view)

    def sha256(self):
        """The SHA-256 of the bytes of Phi, in hexadecimal."""
        return hashlib.sha256(host(self.value).tobytes()).hexdigest()
