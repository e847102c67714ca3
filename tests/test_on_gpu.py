"""On a GPU (`pytest -m gpu`): every node, and every kernel against its NumPy meaning.

test_gpu.py runs these on a simulated GPU as well.
"""

import numpy as np
import pytest
from test_ops import each_case, move, passed

from dpedf import device
from dpedf.device import host
from dpedf.edf import Backward, CompNodes, Forward
from dpedf.kernels.gemm import affine, product
from dpedf.kernels.philox import uniform
from dpedf.kernels.softmax import log_loss, log_loss_gradient, softmax
from dpedf.kernels.vector import add_in_order, momentum, norm

pytestmark = pytest.mark.gpu
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
NEAR = {"float32": 2e-5, "float64": 1e-12}


@pytest.fixture(scope="module")
def gpu():
    try:
        return device.acquire(0, "float32", True, print)
    except device.UnusableError as why:
        pytest.skip(f"no GPU: {why}")


def near(found, expected):
    found, expected = host(found), np.asarray(expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    scale = max(1, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(found / scale, expected / scale, 0, NEAR[str(found.dtype)])


@each_case
@each_dtype
@pytest.mark.parametrize("B", [0, 1, 4])
def test_a_node_computes_on_a_gpu_what_it_does_on_the_cpu(gpu, case, B, dtype):
    (on_cpu, here), (on_gpu, there) = case.program(B, dtype), case.program(B, dtype)
    for n in CompNodes(on_gpu):
        n.value = None
    move(there, gpu.put)
    for ell in on_cpu, on_gpu:
        Forward(ell)
        Backward(ell, 3)
    expected, found = passed(on_cpu, here), passed(on_gpu, there)
    assert expected.keys() == found.keys()
    for name, array in found.items():
        assert type(array) is gpu.cupy.ndarray, name
        near(array, expected[name])


def normal(*shape, dtype):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)


ORDERS = {
    "packed": lambda a: a,
    "transposed": lambda a: a.swapaxes(-1, -2).copy().swapaxes(-1, -2),
    "every other row": lambda a: a.repeat(2, axis=-2)[..., ::2, :],
    "every other column": lambda a: a.repeat(2, axis=-1)[..., ::2],
}
SHAPES = [(4, 3, 5), (1, 1, 1), (1, 7, 2), (7, 1, 3), (3, 4, 1), (0, 3, 2), (3, 0, 2), (3, 2, 0)]
SHAPES += [(64, 784, 10), (784, 64, 10), (130, 129, 131)]


@each_dtype
@pytest.mark.parametrize("orders", [(a, b) for a in ORDERS for b in ORDERS], ids=str)
@pytest.mark.parametrize("batch", [((), ()), ((2,), (2,)), ((2,), ()), ((), (3,)), ((2, 3), (3,))])
def test_products_of_matrices_in_any_memory_order(gpu, dtype, orders, batch):
    for I, K, J in SHAPES[: len(SHAPES) if batch == ((), ()) else 6]:
        a, b = normal(*batch[0], I, K, dtype=dtype), normal(*batch[1], K, J, dtype=dtype)
        there = [ORDERS[order](gpu.put(x)) for order, x in zip(orders, (a, b), strict=True)]
        near(product(*there), a @ b)
        out = normal(*(a @ b).shape, dtype=dtype)
        near(product(*there, gpu.put(out)), a @ b)
        near(product(*there, gpu.put(out), add=True), out + a @ b)


@each_dtype
def test_affine_subtracts_its_bias(gpu, dtype):
    for B, I, J in SHAPES:
        x, W, C = normal(B, I, dtype=dtype), normal(I, J, dtype=dtype), normal(J, dtype=dtype)
        near(affine(*map(gpu.put, (x, W, C))), x @ W - C)


def test_a_product_of_what_does_not_fit_is_refused(gpu):
    for a, b in ((2, 3), (4, 5)), ((0, 3), (4, 5)):
        with pytest.raises(ValueError, match="expected equal inner indices"):
            product(gpu.put(np.ones(a)), gpu.put(np.ones(b)))
        with pytest.raises(ValueError, match="expected equal inner indices"):
            affine(gpu.put(np.ones(a)), gpu.put(np.ones(b)), gpu.put(np.ones(5)))


@each_dtype
@pytest.mark.parametrize("B, J", [(0, 10), (1, 1), (64, 10), (5, 33), (3, 1000)])
def test_softmax_and_log_loss_agree_with_numpy(gpu, B, J, dtype):
    s, y = 10 * normal(B, J, dtype=dtype), np.random.default_rng(B).integers(0, J, B)
    expected, found = softmax(s), softmax(gpu.put(s))
    for array, its in zip(found, expected, strict=True):
        near(array, its)
    g = np.full(B, 1 / 64, dtype)
    (ell, at), (expected_ell, places) = log_loss(*found[1:], gpu.put(y)), log_loss(*expected[1:], y)
    near(ell, expected_ell)
    near(log_loss_gradient(found[0], at, gpu.put(g)), log_loss_gradient(expected[0], places, g))


@each_dtype
@pytest.mark.parametrize("shape", [(0, 3), (5,), (7, 10), (300, 2, 3)])
def test_draws_have_the_bits_of_the_cpu(gpu, shape, dtype):
    x = np.zeros(shape, dtype)
    for where in (0, 3, 0, 0), (2**63 - 1, 7, 2**40, 12345):
        assert host(uniform(gpu.put(x), *where)).tobytes() == uniform(x, *where).tobytes()


@each_dtype
@pytest.mark.parametrize("mu, nesterov", [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_momentum_agrees_with_numpy(gpu, mu, nesterov, decay, dtype):
    here = [normal(1000 + k, dtype=dtype)[:1000] for k in range(3)]
    there = [gpu.put(a.copy()) for a in here]
    for eta in 0.1, 0.2:
        grad = here[1].copy()
        there[1].set(grad)
        momentum(*here, eta, mu, nesterov, decay)  # which uses grad up
        momentum(*there, eta, mu, nesterov, decay)
        here[1][...] = -grad
    near(there[0], here[0])
    near(there[2], here[2])


@each_dtype
def test_additions_have_the_bits_of_the_cpu(gpu, dtype):
    wide, additions = normal(5, 1024, dtype=dtype), ((0, 1), (2, 3), (0, 2), (0, 4))
    there = gpu.put(wide)
    add_in_order(wide[:, :1000], additions, 10, 990)
    add_in_order(there[:, :1000], additions, 10, 990)
    assert host(there).tobytes() == wide.tobytes()


@each_dtype
@pytest.mark.parametrize("n", [1, 1000, 200_001])
def test_the_norm_is_the_euclidean_length(gpu, n, dtype):
    vector = normal(n, dtype=dtype)
    expected = np.linalg.norm(vector.astype(np.float64))
    assert float(norm(gpu.put(vector))) == pytest.approx(expected, rel=1e-12)


def test_what_is_recorded_gives_what_was_called(gpu):
    """Three times each, with other numbers in the same places: called, recorded, replayed."""
    scale = gpu.put(np.zeros((), np.float64))

    def function(x):
        return product(x, x.T) * scale, x.sum(axis=0)

    for k in range(1, 6):
        x = normal(4, 3 if k % 2 else 5, dtype=np.float64)
        scale.fill(k)
        square, total = gpu.run("a test", function, gpu.put(k * x))
        near(square, k * (k * x) @ (k * x).T)
        near(total, (k * x).sum(axis=0))
    assert not gpu.graphs.eager
