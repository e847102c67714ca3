"""On a GPU (`pytest -m gpu`): every node, and every kernel against its NumPy meaning.

test_gpu.py runs these on a simulated GPU as well.
"""

from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from products import each
from sliced import fine, in_slices
from test_ops import CASES, move, move_state, passed

from dpedf import models
from dpedf.device import host
from dpedf.device.gpu import UnusableError, acquire
from dpedf.edf import Backward, CompNodes, Forward, Input, Package, Parameter
from dpedf.kernels import conv, cublaslt
from dpedf.kernels.activation import gelu, gelu_gradient, relu, relu_gradient
from dpedf.kernels.attention import attention_weights, scores_gradient, swapped
from dpedf.kernels.concat import concat
from dpedf.kernels.conv import convolution, convolution_gradients
from dpedf.kernels.cublaslt import bindings, operands
from dpedf.kernels.cublaslt.plan import FEWEST
from dpedf.kernels.embedding import scattered
from dpedf.kernels.gemm import affine, product, unchanging
from dpedf.kernels.normalization import (
    layer_norm,
    layer_norm_gradient,
    rms_norm,
    rms_norm_gradient,
)
from dpedf.kernels.philox import uniform
from dpedf.kernels.pool import average_pool, average_pool_gradient, max_pool, max_pool_gradient
from dpedf.kernels.recurrent import (
    gru_cell,
    gru_cell_gradient,
    lstm_cell,
    lstm_cell_gradient,
)
from dpedf.kernels.slices import (
    Slices,
    affine_of_rows,
    merge,
    product_in_tree,
    product_of_rows,
    sum_of_rows,
)
from dpedf.kernels.softmax import log_loss, log_loss_gradient, softmax
from dpedf.kernels.sum_over_rows import sum_over_rows
from dpedf.kernels.vector import adam, add_in_order, momentum, norm, rmsprop
from dpedf.kernels.windows import Windows, patches, sum_of_patches
from dpedf.parallel.gradient import Gradient
from dpedf.parallel.nccl import Nccl
from dpedf.parallel.ranks import Ranks
from dpedf.phi import Phi
from dpedf.program import during
from dpedf.run.step import Step

pytestmark = pytest.mark.gpu
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
NEAR = {"float32": 2e-5, "float64": 1e-12, "int64": 0}


@pytest.fixture(scope="module")
def gpu():
    try:
        return acquire(0, "float32", True, print)
    except UnusableError as why:
        pytest.skip(f"no GPU: {why}")


def near(found, expected):
    found, expected = host(found), np.asarray(expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    scale = max(1, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(found / scale, expected / scale, 0, NEAR[str(found.dtype)])


NODES = sorted({case.node.__name__ for case in CASES})
each_node = pytest.mark.parametrize("node", NODES)


def cases_of(node):
    return [case for case in CASES if case.node.__name__ == node]


@each_node
def test_a_node_computes_on_a_gpu_what_it_does_on_the_cpu(gpu, node):
    each("case", cases_of(node))(compute)(gpu=gpu)


# 4 rows in float32 are below.
@each("B, dtype", [(0, np.float32), (1, np.float32), (4, np.float64)])
def compute(gpu, case, B, dtype):
    (on_cpu, here), (on_gpu, there) = case.program(B, dtype), case.program(B, dtype)
    for n in CompNodes(on_gpu):
        n.value = None
    move(there, gpu.put)
    move_state(on_cpu, np.array)
    move_state(on_gpu, gpu.put)
    for ell in on_cpu, on_gpu:
        Forward(ell)
        Backward(ell, 3)
    expected, found = passed(on_cpu, here), passed(on_gpu, there)
    assert expected.keys() == found.keys()
    for name, array in found.items():
        assert type(array) is gpu.cupy.ndarray, name
        near(array, expected[name])


@each_node
def test_a_node_is_called_recorded_and_replayed_in_training(gpu, node):
    """Nothing in it waits for the GPU, or copies from the host: what is recorded could not."""
    each("case", cases_of(node))(record)(gpu=gpu)


def record(gpu, case):
    (on_cpu, here), (on_gpu, there) = case.program(4, np.float32), case.program(4, np.float32)
    values = [leaf.value for leaf in here]
    move(there, gpu.put)
    move_state(on_cpu, np.array)
    move_state(on_gpu, gpu.put)

    def both(ell, leaves, *values):
        for leaf, value in zip(leaves, values, strict=True):
            leaf.value = value
        Forward(ell, train=True)
        Backward(ell, 3)
        return passed(ell, leaves)

    def on_device(step, *values):
        with during(step=step):
            return both(on_gpu, there, *values)

    for step in range(4):
        with during(step=step):
            expected = both(on_cpu, here, *values)
        found = gpu.run(case, on_device, step, *map(gpu.put, values))
        assert expected.keys() == found.keys()
        for name, array in found.items():
            near(array, expected[name])
        values = [np.flip(value).copy() for value in values]
    assert not gpu.graphs.eager, gpu.graphs.note


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
@each("orders", [(a, b) for a in ORDERS for b in ORDERS])
@each("batch", [((), ()), ((2,), (2,)), ((2,), ()), ((), (3,)), ((2, 3), (3,))])
def test_products_of_matrices_in_any_memory_order(gpu, dtype, orders, batch):
    for I, K, J in SHAPES[: len(SHAPES) if batch == ((), ()) else 6]:
        a, b = normal(*batch[0], I, K, dtype=dtype), normal(*batch[1], K, J, dtype=dtype)
        there = [ORDERS[order](gpu.put(x)) for order, x in zip(orders, (a, b), strict=True)]
        near(product(*there), a @ b)
        out = normal(*(a @ b).shape, dtype=dtype)
        near(product(*there, gpu.put(out)), a @ b)
        near(product(*there, gpu.put(out), add=True), out + a @ b)


@each_dtype
def test_matrices_may_lie_at_any_distance(gpu, dtype):
    wide, b = normal(3, 1 + 4 * 8, dtype=dtype), normal(8, 5, dtype=dtype)
    a, there = (x[:, :32].reshape(3, 4, 8) for x in (wide, gpu.put(wide)))
    near(product(there, gpu.put(b)), a @ b)


@each_dtype
@each("batch", [(), (3,)])
def test_affine_subtracts_its_bias(gpu, dtype, batch):
    for B, I, J in SHAPES:
        x, W, C = (
            normal(*batch, B, I, dtype=dtype),
            normal(I, J, dtype=dtype),
            normal(J, dtype=dtype),
        )
        there, out = [*map(gpu.put, (x, W, C))], gpu.put(normal(*batch, B, J, dtype=dtype))
        near(affine(*there), x @ W - C)
        assert affine(*there, out) is out
        near(out, x @ W - C)


def test_a_product_of_what_does_not_fit_is_refused(gpu):
    for a, b in ((2, 3), (4, 5)), ((0, 3), (4, 5)):
        with pytest.raises(ValueError, match="expected equal inner indices"):
            product(gpu.put(np.ones(a)), gpu.put(np.ones(b)))
        with pytest.raises(ValueError, match="expected equal inner indices"):
            affine(gpu.put(np.ones(a)), gpu.put(np.ones(b)), gpu.put(np.ones(5)))


@pytest.fixture
def multiplies(gpu, monkeypatch):
    """multiplies(precision): until the end of a test, products are in this precision."""
    lt, gemms = pytest.importorskip("nvmath.bindings.cublasLt"), {}

    def in_precision(precision):
        if precision not in gemms:
            there = bindings.Bindings(lt, gpu.stream, gpu.put(np.zeros(1)), gpu.times)
            gemms[precision] = cublaslt.Gemm(precision, there)
        gemm = gemms[precision]
        for name, function in ("product", product), ("affine", affine), ("unchanging", unchanging):
            monkeypatch.setitem(function.versions, gpu.cupy.ndarray, getattr(gemm, name))
        return gemm

    return in_precision


# How rows lie: one after the other, in wider ones, and side by side as after a convolution.
LIE = {
    "packed": lambda x: x.copy(),
    "in wider rows": lambda x: np.concatenate([x[:, :1], x, x], axis=1)[:, 1 : 1 + x.shape[1]],
    "side by side": lambda x: x.T.copy().T,
    "side by side, every other number": lambda x: x.T.repeat(2, axis=0)[::2].T,
}
PRECISIONS = ["float32", "tf32", "bfloat16", "float64"]


def same_bits(found, expected):
    assert host(found).tobytes() == host(expected).tobytes()


@pytest.mark.parametrize("precision", PRECISIONS)
@each("lie", LIE.values())
@each("I, J", [(130, 10), (33, 64), (1, 7), (40, 1)])
@each("B, V", [(32, 4), (4, 4), (23, 4), (2, 3)])
def test_products_of_several_slices_have_the_bits_of_each_by_itself(
    gpu, multiplies, precision, lie, I, J, B, V
):
    """Also where W, and what is written, lie at any address."""
    gemm, slices = multiplies(precision), in_slices(B, V)
    dtype = np.float64 if precision == "float64" else np.float32
    x, g = normal(B, I, dtype=dtype), normal(B, J, dtype=dtype)
    W = gpu.put(normal(1 + I * J, dtype=dtype))[1:].reshape(I, J)
    C = gpu.put(normal(J, dtype=dtype))
    K = 1 + max(k for k, _ in slices.tree)
    sums, expected = (gpu.put(np.zeros((K, 64 + I * J), dtype)) for _ in range(2))
    sums, expected = (v[:, 1 : 1 + I * J].reshape(K, I, J) for v in (sums, expected))

    def there(rows):
        return lie(gpu.put(x[rows])), lie(gpu.put(g[rows]))

    whole, one = there(slice(None)), Slices(tree=[(0, ())])
    y, z = affine_of_rows(whole[0], W, C, slices), product_of_rows(whole[1], W.T, slices)
    product_in_tree(sums, *whole, slices)
    for v, (k, additions) in enumerate(slices.tree):
        rows = slices.rows(v, B)
        a, b = there(rows)
        same_bits(y[rows], affine_of_rows(a, W, C, one))
        same_bits(z[rows], product_of_rows(b, W.T, one))
        product_in_tree(expected[k:], a, b, one)
        for p, q in additions:
            expected[p] += expected[q]
    same_bits(sums[0], expected[0])
    if gpu.kind == "Fake GPU":  # a real cuBLASLt need not have an algorithm for all at once
        assert all(plan.at_once for plan in gemm.plans.values())


def products_of(gpu, dtype, V, I, J, K):
    """What is computed of V matrices: each alone, with a bias, and added to others."""
    a, b, C = (normal(*shape, dtype=dtype) for shape in [(V, I, K), (V, K, J), (J,)])
    a, b, C, out = (gpu.put(x) for x in (a, b, C, normal(V, I, J, dtype=dtype)))
    return product(a, b), affine(a, b[0], C), product(a, b, out, add=True)


@each("precision", PRECISIONS)
@each("V, I, J, K", [(1, 64, 64, 300), (4, 40, 33, 1000), (1, 16, 16, 9), (2, 1024, 1, 100)])
def test_every_algorithm_that_may_be_chosen_has_the_bits_of_the_first(
    gpu, multiplies, precision, V, I, J, K
):
    dtype = np.float64 if precision == "float64" else np.float32
    gemm, tried = multiplies(precision), set()
    gemm.bindings.times, gemm.plans = None, {}
    expected = products_of(gpu, dtype, V, I, J, K)

    def prefer(k, launches):
        tried.update(range(len(launches)))
        return [abs(k - i) for i in range(len(launches))]

    for k in range(bindings.OFFERS):
        gemm.bindings.times, gemm.plans = partial(prefer, k), {}
        for found, first in zip(products_of(gpu, dtype, V, I, J, K), expected, strict=True):
            same_bits(found, first)
        if k >= max(tried, default=0):
            break
    if gpu.kind == "Fake GPU" and I * J >= FEWEST:
        assert tried > {0}


def test_the_fastest_of_them_is_chosen(gpu, multiplies):
    seen = []

    def times(launches):
        seen.append((launches, gpu.times(launches)))
        return seen[-1][1]

    gemm = multiplies("float32")
    gemm.bindings.times = times
    products_of(gpu, np.float32, 4, 40, 33, 1000)
    algorithms = {id(plan.algorithm) for plan in gemm.plans.values()}
    for launches, found in seen:
        assert id(launches[found.index(min(found))].args[1]) in algorithms
    if gpu.kind == "Fake GPU":
        assert [found[0] > found[1] for _, found in seen] == [True] * 3


def test_what_takes_longer_on_the_gpu_is_timed_so(gpu):
    x, y = (gpu.put(normal(100, 100, dtype=np.float32)) for _ in range(2))
    once, often = gpu.times([lambda: product(x, x, y), lambda: [product(x, x, y) for _ in "often"]])
    assert 0 < 1.5 * once < often


def test_what_cannot_be_recorded_takes_infinitely_long_and_nothing_is_left_of_it(gpu):
    x, y = (gpu.put(normal(100, 100, dtype=np.float32)) for _ in range(2))
    works = lambda: product(x, x, y), gpu.wait, lambda: product(x, x, y)
    once, waits, again = gpu.times(works)
    assert 0 < max(once, again) < waits == np.inf
    assert not gpu.stream.is_capturing()


def test_an_algorithm_that_does_not_multiply_what_it_is_tried_on_is_not_chosen(
    gpu, multiplies, monkeypatch
):
    """Though it is said to take matrices of the layouts in question."""
    gemm = multiplies("float32")
    monkeypatch.setattr(gemm.bindings, "takes", lambda *_: True)
    gemm.plans.clear()
    V, I, J, K = 4, 40, 33, 1000
    found = products_of(gpu, np.float32, V, I, J, K)[0]
    a, b = (gpu.put(normal(*shape, dtype=np.float32)) for shape in [(V, I, K), (V, K, J)])
    for v in range(V):
        same_bits(found[v], product(a[v], b[v]))
    gemm.plans.clear()


def test_a_product_that_is_first_met_in_a_recording_is_not_timed(gpu, multiplies):
    gemm = multiplies("float32")
    gemm.bindings.times = lambda launches: pytest.fail("timed")
    x, rows = gpu.put(normal(64, 64, dtype=np.float32)), iter([0, 64])
    for _ in range(2):
        found = gpu.run("rows", lambda x: product(x[: next(rows)], x), x)
    assert not gpu.graphs.eager and len(gemm.plans) == 1
    near(found, host(x) @ host(x))


def test_matrices_for_which_the_workspace_is_too_small_are_multiplied_one_by_one(
    gpu, multiplies, monkeypatch
):
    monkeypatch.setattr(bindings, "WORKSPACE", 20_000)
    gemm = multiplies("float32")
    for I in range(20, 40):
        x, W = gpu.put(normal(8, 16, I, dtype=np.float32)), gpu.put(normal(I, 10, dtype=np.float32))
        found = product(x, W)
        for v in range(8):
            same_bits(found[v], product(x[v], W))
        near(found, host(x) @ host(W))
    if gpu.kind == "Fake GPU":  # whose algorithms need a workspace as often as not
        assert {plan.at_once for plan in gemm.plans.values()} == {True, False}


@each("precision", PRECISIONS)
def test_products_have_the_same_bits_while_a_vector_is_unchanging(gpu, multiplies, precision):
    """What they make of it once is what they make of it at each use: also when it has changed."""
    multiplies(precision)
    dtype = np.float64 if precision == "float64" else np.float32
    I, J, K = 24, 33, 17
    ends = np.cumsum([1, I * J, J, J * K, K])
    phi = gpu.put(normal(ends[-1], dtype=dtype))
    parts = [phi[low:high] for low, high in pairwise(ends)]
    W, C, U, D = parts[0].reshape(I, J), parts[1], parts[2].reshape(J, K), parts[3]
    x = gpu.put(normal(2, 5, I, dtype=dtype))

    def made():
        y = affine(x, W, C)
        z = affine(y, U, D)
        return y, z, product(z, U.T), affine(x[0], W, C)

    block = unchanging(phi)
    for _ in range(3):
        expected = made()
        with block:
            for found, its in zip(made(), expected, strict=True):
                same_bits(found, its)
        phi *= -2
    assert [*block.negated.places] == [(ends[1], J), (ends[3], K)]
    in_bfloat16 = [(1, I * J), (ends[2], J * K)] if precision == "bfloat16" else []
    assert [*block.rounded.places] == in_bfloat16


def test_in_a_step_weights_are_rounded_and_biases_negated_once(gpu, multiplies, monkeypatch):
    """In one launch each, in the second step and later, whatever the number of passes."""
    multiplies("bfloat16")
    launched = []

    def noted(name, launch, threads, x, *rest):
        launched.append((name, x.data.ptr))
        launch(threads, x, *rest)

    for name in "round_to_bfloat16", "round_pieces", "negate_pieces":
        spy = partial(noted, name, getattr(operands.cuda, name))
        monkeypatch.setattr(operands.cuda, name, spy, raising=False)
    x, y = Input((20,)), Input((), classes=10)
    ell = models.mlp(x, y, [20, 12, 10])[1]
    phi = Phi(ell, put=gpu.put)

    def put(*rows):
        x.value, y.value = rows

    def of_phi():
        low, high = phi.value.data.ptr, phi.value.data.ptr + phi.value.nbytes
        return [name for name, address in launched if low <= address < high]

    gradient = Gradient(ell, phi, Ranks(), put, slices=4)
    step = Step(gradient, None, gpu)
    rows = gpu.put(normal(8, 20, dtype=np.float32)), gpu.put(np.arange(8) % 10)
    gradient.compute_in(2)
    step.add_slices(*rows, 0, 8)
    sums = host(phi.grad)
    assert of_phi().count("round_to_bfloat16") == 6  # in two passes; backward, of one layer
    launched.clear()
    step.add_slices(*rows, 0, 8)
    assert of_phi() == ["round_pieces", "negate_pieces"]
    same_bits(host(phi.grad), sums)


@each_dtype
@each("V, b", [(1, 1), (8, 16), (3, 0), (2, 1000)])
@each("shape", [(), (7,), (3, 5), (1000,)])
def test_rows_of_slices_are_summed_and_merged_as_by_numpy(gpu, V, b, shape, dtype):
    x, tree = normal(V, b, *shape, dtype=dtype), in_slices(V, V).tree
    found = sum_of_rows(gpu.put(x))
    near(found, x.sum(axis=1))
    vectors = np.zeros((1 + max(k for k, _ in tree), *shape), dtype)
    sums = gpu.put(vectors)
    merge(vectors, host(found), tree)
    merge(sums, found, tree)
    assert host(sums).tobytes() == vectors.tobytes()


@each_dtype
@each("B, J", [(0, 10), (1, 1), (64, 10), (5, 33), (3, 1000)])
def test_softmax_and_log_loss_agree_with_numpy(gpu, B, J, dtype):
    s, y = 10 * normal(B, J, dtype=dtype), np.random.default_rng(B).integers(0, J, B)
    expected, found = softmax(s), softmax(gpu.put(s))
    for array, its in zip(found, expected, strict=True):
        near(array, its)
    g = np.full(B, 1 / 64, dtype)
    (ell, at), (expected_ell, chosen) = log_loss(*found[1:], gpu.put(y)), log_loss(*expected[1:], y)
    near(ell, expected_ell)
    near(log_loss_gradient(found[0], at, gpu.put(g)), log_loss_gradient(expected[0], chosen, g))


@each_dtype
@each("shape", [(0, 3), (5,), (7, 10), (300, 2, 3)])
def test_draws_have_the_bits_of_the_cpu(gpu, shape, dtype):
    x = np.zeros(shape, dtype)
    for where in (0, 3, 0, 0), (2**63 - 1, 7, 2**40, 12345):
        assert host(uniform(gpu.put(x), *where)).tobytes() == uniform(x, *where).tobytes()


CONVOLUTIONS = [Windows((3, 2), (2, 2)), Windows((3, 2), (1, 2), (1, 0), (1, 2))]
POOLS = [
    *(Windows((size, size), (stride, stride)) for size, stride in ((2, 2), (3, 2), (2, 3))),
    Windows((3, 2), (2, 1), (1, 0), beyond=True),
]
PICTURES = [(3, 2, 4, 7), (64, 3, 28, 28), (0, 2, 5, 4)]  # (B, I, H, W)
IMAGES_LIE = {
    "b first": lambda x: x,
    "the channel last": lambda x: x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2),
    "every other row": lambda x: x.repeat(2, axis=0)[::2],
}


@each_dtype
@each("shape", PICTURES)
@each("order", IMAGES_LIE.values())
@each("over", [Windows((2, 3)), *CONVOLUTIONS])
def test_what_windows_see_has_the_bits_of_the_cpu_and_so_has_the_sum_of_it(
    gpu, order, shape, over, dtype
):
    x = normal(*shape, dtype=dtype)
    there, seen = order(gpu.put(x)), patches(x, over)
    assert host(patches(there, over)).tobytes() == seen.tobytes()
    g = normal(*seen.shape, dtype=dtype)
    sum_of_patches(x, g, over)
    sum_of_patches(there, gpu.put(g), over)
    assert host(there).tobytes() == x.tobytes()


@each_dtype
@each("shape", PICTURES)
@each("pool", POOLS)
@each("order", IMAGES_LIE.values())
@each("kind", ["no two alike", "ties", "nan"])
def test_pools_and_their_gradients_are_those_of_the_cpu(gpu, kind, order, shape, pool, dtype):
    x = normal(*shape, dtype=dtype)
    x = {"no two alike": x, "ties": np.round(x), "nan": np.where(x > 1, np.nan, x)}[kind]
    there, y = order(gpu.put(x)), max_pool(x, pool)
    found, g = max_pool(there, pool), normal(*y.shape, dtype=dtype)
    assert np.array_equal(host(found), y, equal_nan=True)
    delta = max_pool_gradient(there, found, order(gpu.put(g)), pool)
    assert np.array_equal(host(delta), max_pool_gradient(x, y, g, pool))
    mean, its = average_pool(there, pool, False), average_pool(x, pool, False)
    near(np.nan_to_num(host(mean)), np.nan_to_num(its))
    delta = average_pool_gradient(there, order(gpu.put(g)), pool, False)
    near(delta, average_pool_gradient(x, g, pool, False))


@each_dtype
@each("at_a_time", [1, 2000, 1 << 26])
@each("over", CONVOLUTIONS)
@each("grouped", [False, True])
@each("V", [1, 2, 3])
@each("shape", [(3, 2, 4, 7), (20, 3, 10, 9), (0, 2, 5, 4)])
def test_convolution_agrees_with_numpy_however_much_is_computed_at_a_time(
    gpu, shape, V, grouped, over, at_a_time, dtype, monkeypatch
):
    I = 1 if grouped else shape[1]
    x, W = normal(*shape, dtype=dtype), normal(6, I, 3, 2, dtype=dtype)
    C, slices = normal(6, dtype=dtype), in_slices(len(x), V)
    y, _ = convolution(x, W, C, over, slices)
    g = normal(*y.shape, dtype=dtype)
    expected = y, *gradients_of(x, W, C, None, g, over, slices)
    monkeypatch.setattr(conv, "at_a_time", lambda x: at_a_time)
    x, W, C, g = map(gpu.put, (x, W, C, g))
    y, seen = convolution(x, W, C, over, slices)
    found = y, *gradients_of(x, W, C, seen, g, over, slices)
    for array, its in zip(found, expected, strict=True):
        near(array, its)


@each_dtype
@each("at_a_time", [1, 2000, 5500, 1 << 26])  # or 2 or 6 rows, of 5 to 7 in a slice
@each("V", [3, 4])
@each("I", [3, 1])  # of 3 channels, in 1 group or 3
def test_slices_of_a_convolution_have_the_bits_of_each_however_much_is_computed_at_a_time(
    gpu, I, V, at_a_time, dtype, monkeypatch
):
    monkeypatch.setattr(conv, "at_a_time", lambda x: at_a_time)
    x, W = gpu.put(normal(20, 3, 9, 8, dtype=dtype)), gpu.put(normal(6, I, 3, 2, dtype=dtype))
    C, over, slices = gpu.put(normal(6, dtype=dtype)), Windows((3, 2)), in_slices(20, V)
    y, seen = convolution(x, W, C, over, slices)
    g = gpu.put(normal(*y.shape, dtype=dtype))
    dx, dW, dC = gradients_of(x, W, C, seen, g, over, slices)
    for v in range(V):
        rows = slices.rows(v, 20)
        one = in_slices(rows.stop - rows.start, 1)
        z, seen = convolution(x[rows], W, C, over, one)
        alone = z, *gradients_of(x[rows], W, C, seen, g[rows], over, one)
        for found, its in zip(
            (y[rows], dx[rows], dW[v : v + 1], dC[v : v + 1]), alone, strict=True
        ):
            same_bits(found, its)


def gradients_of(x, W, C, seen, g, over, slices):
    """(x.grad, W.grad and C.grad of each slice) of a Conv2D whose grad is g."""
    Phi = Package(w=Parameter(W), b=Parameter(C))
    for p in Phi.w, Phi.b:
        p.sum_over_rows = sum_over_rows(p.value, None, slices)
    with during(slices=slices):
        dx = convolution_gradients(x, seen, Phi, g, over, True, slices)
    return dx, *(p.sum_over_rows.so_far() for p in (Phi.w, Phi.b))


@each_dtype
@each("shape", [(0, 3), (5,), (3, 2, 4, 7)])
def test_relu_agrees_with_numpy_and_lies_as_its_input(gpu, shape, dtype):
    x, g = normal(*shape, dtype=dtype), normal(*shape, dtype=dtype)
    for there in gpu.put(x), gpu.put(x.T).T:
        y = relu(there)
        delta = relu_gradient(y, gpu.put(g))
        assert y.strides == delta.strides == there.strides
        near(y, relu(x))
        near(delta, relu_gradient(relu(x), g))


@each_dtype
@each("shape", [(0, 3), (), (5,), (7, 33), (2, 3, 20_000)])
def test_gelu_agrees_with_numpy(gpu, shape, dtype):
    x, g = np.asarray(3 * normal(*shape, dtype=dtype)), np.asarray(normal(*shape, dtype=dtype))
    (y, s), (found, its) = gelu(x), gelu(gpu.put(x))
    near(found, y)
    near(its, s)
    near(gelu_gradient(gpu.put(x), its, gpu.put(g)), gelu_gradient(x, s, g))


@each_dtype
@each("B, J", [(0, 5), (1, 1), (64, 192), (300, 33)])
@each("gates, states", [(4, 2), (3, 1)])
def test_a_cell_at_a_position_of_a_sequence_agrees_with_numpy(gpu, gates, states, B, J, dtype):
    x, z = 2 * normal(B, 3, gates * J, dtype=dtype), normal(B, gates * J, dtype=dtype)
    s, g = normal(B, states * J, dtype=dtype), normal(B, states * J + 1, dtype=dtype)[:, 1:]

    def lstm(x, z, s, g):
        y, *kept = lstm_cell(x, z, s)
        return y, *kept, *lstm_cell_gradient(*kept, s, g)

    def gru(x, z, h, g):
        y, *kept = gru_cell(x, z, h)
        return y, *kept, *gru_cell_gradient(*kept, z, h, g)

    cell = lstm if gates == 4 else gru
    found = cell(gpu.put(x)[:, 1], *map(gpu.put, (z, s, g)))
    for array, its in zip(found, cell(x[:, 1], z, s, g), strict=True):
        near(array, its)


@each_dtype
@each("shape, axis", [((64, 192), 1), ((8, 16, 33), 1), ((5,), 0), ((3, 0), 0), ((3, 1, 2), 2)])
@each("count", [1, 8, 20])
@each("lie", [lambda x: x, lambda x: x[..., ::-1], lambda x: x.repeat(2, axis=0)[::2]])
def test_arrays_become_one_as_by_numpy(gpu, shape, axis, count, lie, dtype):
    parts = [normal(*shape, k, dtype=dtype)[..., :1].reshape(shape) for k in range(1, 1 + count)]
    parts.append(np.concatenate([parts[0], parts[-1]], axis))
    expected = np.concatenate([lie(x) for x in parts], axis)
    y = gpu.put(np.zeros_like(expected))
    where = concat(y, [lie(gpu.put(x)) for x in parts], axis)
    assert host(y).tobytes() == expected.tobytes()
    assert where[-1][axis].stop == expected.shape[axis]


@each_dtype
@each("labels", [np.uint8, np.int64])
@each("J, I", [(1, 1), (7, 33), (200, 3)])
@each("V, N", [(1, 0), (1, 1), (5, 7), (2, 1200)])
def test_rows_are_added_up_as_by_numpy(gpu, V, N, J, I, labels, dtype):
    g, x = normal(V, N, I, dtype=dtype), np.random.default_rng(J).integers(0, J, (V, N))
    found = scattered(gpu.put(g), gpu.put(x.astype(labels)), J)
    near(found, scattered(g, x, J))


@each_dtype
@each("mu, nesterov", [(0.0, False), (0.9, False), (0.9, True)])
@each("decay", [0.0, 0.01])
def test_momentum_agrees_with_numpy(gpu, mu, nesterov, decay, dtype):
    here = [normal(1000 + k, dtype=dtype)[:1000] for k in range(3)]
    there = [gpu.put(a.copy()) for a in here]
    for eta in 0.1, 0.2:
        grad = here[1].copy()
        there[1].set(grad)
        momentum(*here[:2], fine(dtype), here[2], eta, mu, nesterov, decay)  # which uses grad up
        momentum(*there[:2], fine(dtype, gpu.put), there[2], eta, mu, nesterov, decay)
        here[1][...] = -grad
    near(there[0], here[0])
    near(there[2], here[2])


@each_dtype
@each("decay, decoupled", [(0.0, False), (0.01, False), (0.01, True)])
def test_adam_agrees_with_numpy_called_recorded_and_replayed(gpu, decay, decoupled, dtype):
    constants = 0.9, 0.999, 1e-8, decay, decoupled
    here = [normal(1000, dtype=dtype), *np.zeros((2, 1000), dtype)]
    there, failure = [gpu.put(a.copy()) for a in here], fine(dtype, gpu.put)

    def update(grad, eta, step):
        adam(there[0], grad, failure, *there[1:], eta, step, *constants)

    for step in range(5):
        grad, rate = normal(1000 + step, dtype=dtype)[:1000], dtype(0.1 / (step + 1))
        gpu.run(("adam", decay, decoupled), update, gpu.put(grad.copy()), rate, step)
        adam(here[0], grad, fine(dtype), *here[1:], rate, step, *constants)  # which uses grad up
        for found, expected in zip(there, here, strict=True):
            near(found, expected)
    assert not gpu.graphs.eager


@each_dtype
@each("mu", [0.0, 0.9])
@each("decay", [0.0, 0.01])
def test_rmsprop_agrees_with_numpy(gpu, mu, decay, dtype):
    here = [normal(1000, dtype=dtype), *np.zeros((2, 1000), dtype)]
    there = [gpu.put(a.copy()) for a in here]
    for step, eta in enumerate([0.1, 0.2, 0.05]):
        grad = normal(1000 + step, dtype=dtype)[:1000]
        rmsprop(
            there[0],
            gpu.put(grad.copy()),
            fine(dtype, gpu.put),
            *there[1:],
            eta,
            0.99,
            1e-8,
            mu,
            decay,
        )
        rmsprop(here[0], grad, fine(dtype), *here[1:], eta, 0.99, 1e-8, mu, decay)
        for found, expected in zip(there, here, strict=True):
            near(found, expected)


@each_dtype
def test_additions_have_the_bits_of_the_cpu(gpu, dtype):
    wide, additions = normal(5, 1024, dtype=dtype), ((0, 1), (2, 3), (0, 2), (0, 4))
    there = gpu.put(wide)
    add_in_order(wide[:, :1000], additions, 10, 990)
    add_in_order(there[:, :1000], additions, 10, 990)
    assert host(there).tobytes() == wide.tobytes()


@each_dtype
@each("n", [1, 1000, 200_001])
def test_the_norm_is_the_euclidean_length(gpu, n, dtype):
    vector = normal(n, dtype=dtype)
    expected = np.linalg.norm(vector.astype(np.float64))
    assert float(norm(gpu.put(vector))) == pytest.approx(expected, rel=1e-12)


def test_a_function_that_runs_out_of_memory_is_recorded_when_there_is_more(gpu):
    calls = []

    def function(x):
        calls.append(x)
        if len(calls) == 2:
            raise MemoryError("a test")
        return 2 * x

    for k in range(1, 5):
        x = np.full(3, k, np.float64)
        if k == 2:
            with pytest.raises(MemoryError, match="a test"):
                gpu.run("much memory", function, gpu.put(x))
        else:
            near(gpu.run("much memory", function, gpu.put(x)), 2 * x)
    assert len(calls) == 3 and not gpu.graphs.eager


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


def test_an_array_that_a_called_function_leaves_survives_replays_of_others(gpu):
    """Also one of the size of what those need for a while alone."""
    kept = []

    def scratch(x):
        return (3 * x + 1) * x

    def keep(x):
        kept.append(2 * x)

    x = np.arange(1000, dtype=np.float32)
    for _ in range(3):
        gpu.run("scratch", scratch, gpu.put(x))
    gpu.run("keep", keep, gpu.put(x))
    near(gpu.run("scratch", scratch, gpu.put(-x)), (1 - 3 * x) * -x)
    near(kept[0], 2 * x)


@each_dtype
@each("shape", [(0, 3), (7, 1), (5, 33), (3, 40, 1000)])
def test_normalization_agrees_with_numpy(gpu, shape, dtype):
    x, g, w, c = (
        normal(*size, dtype=dtype) for size in (shape, shape[::-1], shape[-1:], shape[-1:])
    )
    g = np.ascontiguousarray(g.T)
    found, expected = [], []
    for place, results in (gpu.put, found), (np.asarray, expected):
        y, n, s = layer_norm(*map(place, (x + 1, w, c)), 1e-5)
        results += [y, n, s, *layer_norm_gradient(place(g), n, s, place(w))]
        y, n, s = rms_norm(*map(place, (x + 1, w)), 1e-5)
        results += [y, n, s, *rms_norm_gradient(place(g), n, s, place(w))]
    for array, its in zip(found, expected, strict=True):
        near(array, its)


@each_dtype
@each("causal", [False, True])
@each("B, H, T, S, I", [(0, 2, 3, 3, 4), (1, 1, 1, 1, 1), (3, 2, 33, 40, 5), (2, 4, 256, 256, 32)])
def test_attention_agrees_with_numpy(gpu, B, H, T, S, I, causal, dtype):
    q, k, v, g, y = (normal(B, n, H, I, dtype=dtype) for n in (T, S, S, T, T))
    found, expected = [], []
    for place, results in (gpu.put, found), (np.asarray, expected):
        q_there, k_there, v_there, g_there = swapped(*map(place, (q, k, v, g)))
        a = attention_weights(q_there, k_there, I**-0.5, causal)
        y_there = place(y).swapaxes(1, 2)
        results += [q_there, v_there, a, scores_gradient(a, v_there, g_there, y_there, I**-0.5)]
    for array, its in zip(found, expected, strict=True):
        near(array, its)


def test_a_sum_by_nccl_is_recorded_and_replayed(gpu):
    """That of one rank, which exchanges pieces with itself as well."""
    alone = SimpleNamespace(rank=0, size=1, gather=lambda thing: [thing])
    nccl = gpu.nccl()
    if nccl is None:
        pytest.skip("CuPy finds no NCCL")
    link, there = Nccl(alone, gpu, nccl), gpu.put(np.zeros(1000, np.float32))

    def sums(x):
        link.start_add(x, False).Wait()
        link.start_messages([x], [there]).Wait()

    for k in range(1, 5):
        x = np.full(1000, k, np.float32)
        gpu.run("a sum by NCCL", sums, gpu.put(x))
        near(there, x)
    link.raise_errors()
    assert not gpu.graphs.eager, gpu.graphs.note
    gpu.graphs.close()  # NCCL's end would wait for the graph
