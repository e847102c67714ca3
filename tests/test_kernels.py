"""The CUDA kernels, with no GPU: NVRTC compiles them, and a CPU runs them beside NumPy."""

import math
import re
import sys
from functools import partial
from itertools import product as product_of
from math import prod
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from emulator import Emulated, Emulator, compiler, put
from products import each
from sliced import fine, in_slices

from dpedf import kernels
from dpedf.edf import Package, Parameter
from dpedf.kernels import (
    FAST,
    TYPES,
    Kernels,
    arguments,
    attention,
    concat,
    conv,
    embedding,
    pool,
    slices,
    softmax,
    vector,
    windows,
)
from dpedf.kernels.activation import gelu, gelu_gradient, relu, relu_gradient
from dpedf.kernels.attention import attention_weights, scores_gradient, swapped
from dpedf.kernels.conv import convolution, convolution_gradients
from dpedf.kernels.cublaslt import operands
from dpedf.kernels.cublaslt.operands import rounded
from dpedf.kernels.cublaslt.reused import Pieces, Reused
from dpedf.kernels.embedding import scattered
from dpedf.kernels.gemm import add_products
from dpedf.kernels.images import moved, without_square
from dpedf.kernels.losses import add_losses, binary_log_loss
from dpedf.kernels.normal import normal_cdf
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
from dpedf.kernels.slices import WHOLE, Slices, merge, product_in_tree, sum_of_rows
from dpedf.kernels.softmax import log_loss, log_loss_gradient
from dpedf.kernels.sum_over_rows import sum_over_rows
from dpedf.kernels.vector import CACHED, adam, add_in_order, momentum, norm, rmsprop, shorten
from dpedf.kernels.windows import add_columns, columns, patches, sum_of_patches, windows_along
from dpedf.parallel.sums import plan
from dpedf.program import during

FOLDER = Path(kernels.__file__).parent
SOURCES, SOFTMAX = sorted(FOLDER.rglob("*.cu")), FOLDER / "softmax.cu"
ARCHITECTURES = "sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100"
OLDEST, NEWEST = ARCHITECTURES[0], ARCHITECTURES[-1]
COMPILED = [  # every file and type on the oldest, every file on the newest, and one on all
    *((file, dtype, OLDEST) for file in SOURCES for dtype in TYPES),
    *((file, "float32", NEWEST) for file in SOURCES),
    *((SOFTMAX, "float64", architecture) for architecture in ARCHITECTURES[1:]),
]
PLACES = {"H": 14, "W": 15, "STRIDE": 2, "DOWN": 7, "ACROSS": 7}
SIZES = {  # that are compiled in
    "images": {"I": 3, "H": 14, "W": 15},
    "pool": PLACES | {"I": 3, "SIZE": 3},
    "windows": PLACES | {"I": 3, "U": 3, "V": 5, "PADDING": 1},
}
N = 2 * CACHED + 17  # longer than what NumPy computes with at a time, and no multiple of a block
WIDER = {np.float32: np.float64, np.float64: np.longdouble}

each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
each_width = each("J", [1, 2, 10, 31, 32, 33, 65, 1000])


def same_bits(found, expected):
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


# Compiled for GPUs, by NVRTC, which needs no driver


class Compiled:
    """What cupy.RawModule makes of a source, as far as that goes without a GPU."""

    def __init__(self, code, options, architecture="sm_90"):
        nvrtc = compiler_of_cuda()
        program = nvrtc.createProgram(code, "kernels.cu", (), ())
        as_cupy_does = "-ftz=true", f"-arch={architecture}"
        try:
            nvrtc.compileProgram(program, (*options, *as_cupy_does, "--ptxas-options=-v"))
            self.cubin, log = nvrtc.getCUBIN(program), nvrtc.getProgramLog(program)
        except nvrtc.NVRTCError:
            raise SyntaxError(nvrtc.getProgramLog(program)[:2000]) from None
        finally:
            nvrtc.destroyProgram(program)
        self.in_memory = re.findall(r"(\w+) bytes stack frame, (\w+) bytes spill", log)
        self.warnings = re.sub(r"ptxas info .*|.* bytes stack frame, .*", "", log).strip("\0\n ")

    def get_function(self, name):
        assert f".text.{name}\0".encode() in self.cubin
        assert not self.warnings, self.warnings
        assert set(self.in_memory) == {("0", "0")}, "registers do not hold all numbers"


def compiler_of_cuda():
    pytest.importorskip("cupy", reason="NVRTC comes with CuPy")
    from cupy.cuda import nvrtc

    try:
        nvrtc.getVersion()
    except RuntimeError as error:
        pytest.skip(f"CuPy finds no NVRTC: {error}")
    return nvrtc


def kernels_of(source):
    """The Kernels of a file, and the names of all of them, with the sizes that are compiled in."""
    names = re.findall(r"__global__ void (\w+)\(", source.read_text())
    return Kernels(source.relative_to(FOLDER)), names, SIZES.get(source.stem, {})


@pytest.mark.parametrize(
    "source, dtype, architecture", COMPILED, ids=lambda x: getattr(x, "stem", x)
)
def test_every_kernel_compiles_without_a_warning_and_computes_in_registers(
    source, dtype, architecture, monkeypatch
):
    nvrtc = compiler_of_cuda()
    if int(architecture[3:]) not in nvrtc.getSupportedArchs():
        pytest.skip(f"this NVRTC does not know {architecture}")
    monkeypatch.setattr(kernels.gpu, "compile", partial(Compiled, architecture=architecture))
    loaded, names, sizes = kernels_of(source)
    assert names
    for name, large in product_of(names, (False, True) if sizes else (False,)):
        loaded.kernel(name, dtype, large, **sizes)


@each("source", SOURCES)
def test_a_broken_source_does_not_compile(source, monkeypatch):
    monkeypatch.setattr(kernels.gpu, "compile", Compiled)
    loaded, (name, *_), sizes = kernels_of(source)
    loaded.source = loaded.source.rstrip().removesuffix("}")
    with pytest.raises(SyntaxError, match="^At end of source: error"):
        loaded.kernel(name, "float32", **sizes)


@each("source", SOURCES)
def test_a_warning_of_the_compiler_is_noticed(source, monkeypatch):
    monkeypatch.setattr(kernels.gpu, "compile", Compiled)
    loaded, (name, *_), sizes = kernels_of(source)
    before, kernel, code = loaded.source.partition("__global__")
    loaded.source = before + kernel + code.replace(") {", ") { int unused;", 1)
    with pytest.raises(AssertionError, match="unused"):
        loaded.kernel(name, "float32", **sizes)


ABOVE_ITS_REGISTERS = """
extern "C" __global__ void __launch_bounds__(1024) hold(T *x, int n) {
    T held[64];
    #pragma unroll
    for (int k = 0; k < 64; k++)
        held[k] = x[k];
    for (int i = 0; i < n; i++)
        #pragma unroll
        for (int k = 0; k < 64; k++)
            held[k] += held[(k + 1) % 64] * x[i];
    #pragma unroll
    for (int k = 0; k < 64; k++)
        x[k] = held[k];
}
"""
INDEXED = """
extern "C" __global__ void hold(T *x, int n) {
    T held[64];
    for (int k = 0; k < 64; k++)
        held[x[k] > 0 ? k : n] = x[k];
    x[0] = held[n & 63];
}
"""


@each("source", [ABOVE_ITS_REGISTERS, INDEXED])
def test_numbers_that_registers_do_not_hold_are_noticed(source, monkeypatch):
    monkeypatch.setattr(kernels.gpu, "compile", Compiled)
    loaded = Kernels("vector.cu")
    loaded.source = source
    with pytest.raises(AssertionError, match="registers"):
        loaded.kernel("hold", "float32")


# Run on the CPU


@pytest.fixture(scope="session")
def emulator(compiled):
    if not compiler():
        pytest.skip("no C++ compiler to run CUDA kernels on the CPU")
    return Emulator(compiled)


@pytest.fixture
def gpu(emulator, monkeypatch):
    """Until the end of a test, what is put there is computed with by emulated kernels."""
    monkeypatch.setattr(kernels.gpu, "compile", emulator.compile)
    monkeypatch.setattr(kernels.gpu, "put", put)
    vector.on_device.cache_clear()
    slices.merging.cache_clear()
    for name, module in sys.modules.items():
        if name.startswith("dpedf.kernels.") and isinstance(getattr(module, "cuda", None), Kernels):
            monkeypatch.setattr(module.cuda, "compiled", {})
    for function, fast in FAST:
        function.register(Emulated, fast)


SUSPECTS = """
extern "C" __global__ void fill(T *x, long long n) {
    for (long long i = threadIdx.x; i < n; i += blockDim.x)
        x[i] = 1;
}
extern "C" __global__ void add_up(T *x, unsigned long long n) {
    if (threadIdx.x < n)
        x[threadIdx.x] = __shfl_xor_sync(0xffffffff, x[threadIdx.x], 1);
}
extern "C" __global__ void scale(T *x, double factor) { x[threadIdx.x] *= factor; }
"""


@pytest.fixture
def suspects(gpu):
    loaded = Kernels("vector.cu")
    loaded.source = SUSPECTS
    return loaded


def test_the_threads_of_a_warp_exchange_their_numbers(suspects):
    x = put(np.arange(64.0))
    suspects.add_up(64, x, 256)
    assert np.array_equal(x, np.arange(64) ^ 1)


def test_a_thread_that_waits_for_one_that_has_ended_is_noticed(suspects):
    suspects.add_up(64, put(np.arange(64.0)), 32)
    with pytest.raises(RuntimeError, match="waits for threads"):
        suspects.add_up(64, put(np.arange(64.0)), 33)


def test_a_number_written_beside_an_array_is_noticed(suspects):
    for shape in 5, 0:
        x = put(np.zeros(shape))
        suspects.fill(1, x, shape)
        assert x.all()
        with pytest.raises(RuntimeError, match="beside an array"):
            suspects.fill(1, x, shape + 1)


@pytest.mark.parametrize(
    "arguments", [(1,), (True,), (np.float32(1),), (), (1.0, 1.0), (np.ones(1),), (None,)]
)
def test_an_argument_that_a_kernel_reads_as_something_else_is_noticed(suspects, arguments):
    suspects.scale(1, put(np.ones(256)), 1.0)
    with pytest.raises(TypeError, match="expected"):
        suspects.scale(1, put(np.ones(256)), *arguments)


def test_an_array_of_another_type_or_of_the_host_is_noticed(suspects):
    for x in np.ones(256), put(np.ones(256, np.int64)):
        with pytest.raises(TypeError, match="expected"):
            suspects.kernel("scale", "float64")((1,), (256,), (x, 1.0))


# Softmax and its log loss


def scores(B, J, dtype):
    return np.random.default_rng(B * J).normal(size=(B, J)).astype(dtype)


def check_softmax(s):
    """softmax of s on the GPU; shifted as NumPy has it, the rest as near as the type allows."""
    dtype, J = s.dtype.type, s.shape[1]
    Q, shifted, Z = softmax.softmax(put(s))
    with np.errstate(invalid="ignore"):
        same_bits(shifted, np.ascontiguousarray(softmax.softmax(s)[1]))
        expected, _, total = softmax.softmax(np.asarray(shifted, WIDER[dtype]))
    # exp and the division, and what a lane adds, and the tree of 32 lanes
    near = {"rtol": (J / 32 + 12) * np.finfo(dtype).eps, "atol": np.finfo(dtype).tiny}
    assert Q.dtype == Z.dtype == dtype
    np.testing.assert_allclose(Z, total, **near)
    np.testing.assert_allclose(Q, expected, **near)
    return Q, shifted, Z


@each_dtype
@each_width
@each("B", [0, 1, 7, 16])
def test_softmax_on_a_gpu_is_that_of_numpy(gpu, B, J, dtype):
    Q, shifted, Z = check_softmax(scores(B, J, dtype))
    assert np.array_equal(shifted.max(axis=1), np.zeros(B))


@each_dtype
@each_width
def test_softmax_of_large_scores_neither_overflows_nor_vanishes(gpu, J, dtype):
    s = scores(9, J, dtype) + np.random.default_rng(0).choice([-1e4, 0, 1e4], (9, J)).astype(dtype)
    Q, _, Z = check_softmax(s)
    assert np.isfinite(Q).all() and (Z >= 1).all()


@each_dtype
@each_width
def test_the_smallest_probabilities_are_not_lost(gpu, J, dtype):
    smallest = np.log(np.finfo(dtype).tiny) + 8  # then Q is normal, also where Z is 1000
    Q, _, _ = check_softmax(np.linspace(0, smallest, J, dtype=dtype)[np.newaxis])
    assert (Q > np.finfo(dtype).tiny).all()


@each_dtype
@each_width
@each("score", [0, -1e4, 1e4])
def test_a_row_of_equal_scores_has_equal_probabilities(gpu, score, J, dtype):
    Q, shifted, Z = check_softmax(np.full((9, J), score, dtype))
    same_bits(Z, np.full(9, J, dtype))
    same_bits(Q, np.full((9, J), dtype(1) / dtype(J)))


@each_dtype
@each_width
def test_the_largest_score_is_found_in_every_place(gpu, J, dtype):
    largest = np.arange(J) if J < 100 else np.arange(0, J, 37)
    s = np.full((len(largest), J), -1e4, dtype)
    s[np.arange(len(largest)), largest] = 1e4
    Q, _, Z = check_softmax(s)
    assert np.array_equal(Q, s > 0)


@each_dtype
@each_width
def test_a_score_of_minus_infinity_has_probability_0(gpu, J, dtype):
    s = scores(9, J, dtype)
    s[:, 1::2] = -np.inf
    s[1::2] = s[1::2, ::-1]  # also in the first place, if J is even
    Q, _, _ = check_softmax(s)
    kept = ~np.isinf(s).all(axis=1)
    assert kept.any()
    assert np.array_equal((Q == 0)[kept], np.isinf(s)[kept])


@each_dtype
@each_width
def test_a_nan_among_the_scores_is_not_lost(gpu, J, dtype):
    for place in {0, J // 2, J - 1}:
        s = scores(3, J, dtype)
        s[1, place] = np.nan
        Q, shifted, Z = softmax.softmax(put(s))
        ell, _ = log_loss(shifted, Z, put(np.zeros(3, np.int64)))
        for value in Q, Z, ell:
            assert np.isnan(value[1]).all() and np.isfinite(value[[0, 2]]).all()


@each_dtype
def test_softmax_takes_scores_in_any_memory_order(gpu, dtype):
    s = scores(9, 33, dtype)
    packed = softmax.softmax(put(s))
    wide = put(np.repeat(s, 2, axis=1))
    for other in put(np.asfortranarray(s)), put(s.T.copy()).T, wide[:, ::2], put(s[::-1])[::-1]:
        assert np.array_equal(other, s) and not other.flags.c_contiguous
        for found, expected in zip(softmax.softmax(other), packed, strict=True):
            same_bits(found, expected)


@each_dtype
@each_width
def test_log_loss_and_its_gradient_on_a_gpu_are_those_of_numpy(gpu, J, dtype):
    y = np.concatenate([np.arange(J), np.random.default_rng(J).integers(0, J, 9)])
    s, g = scores(len(y), J, dtype), scores(len(y), 1, dtype)[:, 0]
    Q, shifted, Z = softmax.softmax(s)
    eps = np.finfo(dtype).eps
    on_gpu = [put(np.ascontiguousarray(x)) for x in (Q, shifted, Z, y, g)]
    ell, at = log_loss(*on_gpu[1:4])
    expected, chosen = log_loss(shifted, Z, y)
    assert type(ell) is Emulated and ell.dtype == dtype
    np.testing.assert_allclose(ell, expected, rtol=eps, atol=2 * eps * np.log(J + 1) + eps)
    delta = log_loss_gradient(on_gpu[0], at, on_gpu[4])
    slope = log_loss_gradient(Q, chosen, g)
    assert delta.dtype == dtype
    assert (np.abs(delta - slope) <= 2 * eps * np.abs(g)[:, np.newaxis]).all()
    others = np.arange(J) != y[:, np.newaxis]
    same_bits(np.asarray(delta)[others], slope[others])


@each_dtype
def test_the_gradient_of_log_loss_takes_an_ell_grad_in_any_memory_order(gpu, dtype):
    Q, y = softmax.softmax(scores(9, 10, dtype))[0].copy(order="C"), np.arange(9)
    g = scores(1, 9, dtype)[0]
    expected = log_loss_gradient(put(Q), put(y), put(g))
    for other in put(np.repeat(g, 3))[::3], put(g[::-1])[::-1]:
        same_bits(log_loss_gradient(put(Q), put(y), other), expected)
    same = np.broadcast_to(put(g[:1]), 9, subok=True)
    expected = log_loss_gradient(put(Q), put(y), put(same))
    same_bits(log_loss_gradient(put(Q), put(y), same), expected)


@each_dtype
def test_the_log_loss_of_two_classes_on_a_gpu_is_that_of_numpy(gpu, dtype):
    some = [-np.inf, -1e4, -17, -1, 0, 1, 17, 1e4, np.inf, np.nan]
    pairs = np.array([*product_of(some, [0, 0.3, 1, -1, 2, np.nan])], dtype)
    s, y = pairs.T
    with np.errstate(invalid="ignore"):
        expected = binary_log_loss(s, y)
    found = binary_log_loss(put(s), put(y))
    assert type(found) is Emulated and found.dtype == expected.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=4 * np.finfo(dtype).eps)
    assert np.isnan(found).tolist() == (np.isnan(s) | ~((y >= 0) & (y <= 1))).tolist()


@each_dtype
def test_a_label_that_is_no_class_has_no_number_for_a_loss_on_a_gpu_and_nothing_else_is_read(
    gpu, dtype
):
    Q, shifted, Z = softmax.softmax(put(scores(5, 10, dtype)))
    ell, _ = log_loss(shifted, Z, put(np.array([9, -1, 0, 10, 1 << 40])))
    assert np.isnan(ell).tolist() == [False, True, False, True, True]


@each_dtype
def test_the_log_loss_of_no_rows_is_empty(gpu, dtype):
    Q, shifted, Z = softmax.softmax(put(np.empty((0, 10), dtype)))
    ell, y = log_loss(shifted, Z, put(np.empty(0, np.int64)))
    assert ell.shape == (0,)
    assert log_loss_gradient(Q, y, ell).shape == (0, 10)


# Random draws


@pytest.fixture
def draw():
    """draw(x, seed, place, step, row): a uniform of x."""

    def call(x, seed, place, step, row=0):
        return uniform(x, seed, place, step, row)

    return call


EDGES = [(0, 0, 0, 0), (2**63 - 1, 2**20, 2**40, 2**40), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)]
SHAPES = [(0,), (1,), (2, 0), (5,), (512, 3), (300, 1), (7, 10), (3, 257), (2, 3, 5), (9, 2, 2, 3)]


def places_of_draws():
    random = np.random.default_rng(0)
    highest = 2**63 - 1, 100, 2**40, 2**32
    return EDGES + [tuple(int(random.integers(high)) for high in highest) for _ in range(10)]


@each_dtype
@each("shape", SHAPES)
def test_draws_on_a_gpu_have_the_bits_of_numpy(gpu, draw, shape, dtype):
    x = np.zeros(shape, dtype)
    for where in places_of_draws():
        found = draw(put(x), *where)
        assert type(found) is Emulated
        same_bits(found, draw(x, *where))


@each_dtype
@each("n", [1, 4, 10])
def test_draws_on_a_gpu_do_not_depend_on_the_split_of_the_rows(gpu, draw, n, dtype):
    x = put(np.zeros((20, n), dtype))
    whole = draw(x, 7, 3, 11, 100)
    for cut in 0, 1, 13, 20:
        parts = draw(x[:cut], 7, 3, 11, 100), draw(x[cut:], 7, 3, 11, 100 + cut)
        same_bits(np.concatenate(parts), np.asarray(whole))


@each_dtype
@each("step", [0, 1, 2**31, 2**40])
def test_a_step_may_be_an_int_or_an_array_of_the_gpu(gpu, draw, step, dtype):
    x = put(np.zeros((5, 7), dtype))
    same_bits(draw(x, 1, 2, put(np.array(step, np.int64))), draw(x, 1, 2, step))


@each_dtype
def test_draws_for_a_transposed_value_lie_as_for_a_packed_one(gpu, draw, dtype):
    x = np.zeros((5, 7), dtype)
    expected = draw(x, 1, 2, 3)
    for other in put(np.asfortranarray(x)), put(x.T).T, put(np.zeros((5, 14), dtype))[:, ::2]:
        same_bits(draw(other, 1, 2, 3), expected)


@each("n", [1, 3, 4, 8, 10])
def test_draws_in_float64_are_those_of_numpys_generator(draw, n):
    for seed, place, step, row in places_of_draws():
        found = draw(np.zeros((6, n)), seed, place, step, row)
        blocks = -(-n // 4)
        for b in range(6):
            counter = [(row + b) * blocks, 0, step, 1]
            random = np.random.Generator(np.random.Philox(key=[seed, place], counter=counter))
            same_bits(found[b], random.random(n))


def test_draws_in_float32_are_those_in_float64_cut_to_24_bits(draw):
    x = np.zeros((64, 10))
    found = draw(x.astype(np.float32), 1, 2, 3)
    same_bits(found, (np.floor(draw(x, 1, 2, 3) * 2**24) / 2**24).astype(np.float32))


@each_dtype
@each("seed, place, step", [(0, 0, 0), (1, 2, 3), (2**63 - 1, 5, 2**40)])
def test_draws_are_even_between_0_and_1(draw, seed, place, step, dtype):
    B, bins = 1 << 14, 256
    u = draw(np.zeros((B, 10), dtype), seed, place, step)
    assert (u >= 0).all() and (u < 1).all()
    expected = u.size / bins
    counts = np.histogram(u, bins, (0, 1))[0]
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_squared - (bins - 1)) < 4 * np.sqrt(2 * (bins - 1))
    columns = u.astype(np.float64)
    deviations = np.sqrt(1 / 12 / B)
    assert (np.abs(columns.mean(axis=0) - 0.5) < 5 * deviations).all()
    assert np.abs(np.corrcoef(columns.T) - np.eye(10)).max() < 5 / np.sqrt(B)


def test_draws_of_another_seed_place_step_or_row_are_others(draw):
    x, where = np.zeros((8, 4)), (1, 2, 3, 100)
    seen = {draw(x, *where).tobytes()}
    for changed in range(4):
        other = [value + 8 * (i == changed) for i, value in enumerate(where)]
        seen.add(draw(x, *other).tobytes())
    assert len(seen) == 5


# Vectors


def numbers(n, dtype, seed=0):
    return np.random.default_rng(seed).normal(size=n).astype(dtype)


@each_dtype
@each("decay", [0, 0.0, 0.01])
@each("mu, nesterov", [(0, False), (0.0, True), (0.9, False), (0.9, True)])
@each("n", [0, 1, 300, 512, N])
def test_momentum_on_a_gpu_has_the_bits_of_numpy(gpu, n, mu, nesterov, decay, dtype):
    Phi, v = numbers(n, dtype), numbers(n, dtype, 1) if mu else np.zeros(0, dtype)
    on_gpu = put(Phi), put(v)
    for step, rate in enumerate([0.1, 0.02, 0.3]):
        grad, eta = numbers(n, dtype, 2 + step), np.array(rate, dtype)
        momentum(on_gpu[0], put(grad), fine(dtype, put), on_gpu[1], put(eta), mu, nesterov, decay)
        momentum(Phi, grad, fine(dtype), v, eta, mu, nesterov, decay)
        same_bits(on_gpu[0], Phi)
        same_bits(on_gpu[1], v)


@each_dtype
@pytest.mark.parametrize("nesterov", [False, True])
def test_without_momentum_v_is_left_alone(gpu, nesterov, dtype):
    v = put(np.full(300, np.nan, dtype))
    Phi, grad = put(numbers(300, dtype)), put(numbers(300, dtype, 1))
    momentum(Phi, grad, fine(dtype, put), v, put(np.array(0.1, dtype)), 0.0, nesterov, 0.01)
    assert np.isnan(v).all() and np.isfinite(Phi).all()


@each_dtype
@each("decay, decoupled", [(0.0, False), (0.01, False), (0.01, True)])
@each("betas", [(0.9, 0.999), (0.0, 0.0)])
@each("n", [0, 1, 300, 512, N])
def test_adam_on_a_gpu_has_the_bits_of_numpy(gpu, n, betas, decay, decoupled, dtype):
    Phi, m, v = (numbers(n, dtype, seed) for seed in range(3))
    v = np.square(v)
    on_gpu = put(Phi), put(m), put(v)
    for step, rate in (0, 0.1), (1, 0.02), (10**9, 0.3):
        grad, eta, rest = numbers(n, dtype, 3), np.array(rate, dtype), (1e-8, decay, decoupled)
        counter = put(np.array(step, np.int64))
        adam(on_gpu[0], put(grad), fine(dtype, put), *on_gpu[1:], put(eta), counter, *betas, *rest)
        adam(Phi, grad, fine(dtype), m, v, eta, step, *betas, *rest)
        for found, expected in zip(on_gpu, (Phi, m, v), strict=True):
            same_bits(found, expected)


@each_dtype
def test_the_step_of_adam_may_be_an_int_or_an_array_of_the_gpu(gpu, dtype):
    found = []
    for step in 0, put(np.array(0, np.int64)), 1:
        Phi, grad, m, v = (put(numbers(300, dtype, seed)) for seed in (0, 1, 2, 2))
        vectors = Phi, grad, fine(dtype, put), m, np.square(v)
        adam(*vectors, put(np.array(0.1, dtype)), step, 0.9, 0.9, 1e-8, 0.0, False)
        found.append(Phi.tobytes())
    assert found[0] == found[1] != found[2]


@each_dtype
@each("decay", [0.0, 0.01])
@each("mu", [0.0, 0.9])
@each("n", [0, 1, 300, 512, N])
def test_rmsprop_on_a_gpu_has_the_bits_of_numpy(gpu, n, mu, decay, dtype):
    Phi, s, v = (
        numbers(n, dtype),
        np.square(numbers(n, dtype, 1)),
        numbers(n if mu else 0, dtype, 2),
    )
    on_gpu = put(Phi), put(s), put(v)
    for seed, rate in enumerate([0.1, 0.02, 0.3]):
        grad, eta = numbers(n, dtype, 3 + seed), np.array(rate, dtype)
        rmsprop(
            on_gpu[0], put(grad), fine(dtype, put), *on_gpu[1:], put(eta), 0.99, 1e-8, mu, decay
        )
        rmsprop(Phi, grad, fine(dtype), s, v, eta, 0.99, 1e-8, mu, decay)
        for found, expected in zip(on_gpu, (Phi, s, v), strict=True):
            same_bits(found, expected)


def random_tree(random, K):
    """Additions that leave the sum of K vectors in one of them, in any order."""
    left, additions = list(range(K)), []
    while len(left) > 1:
        p, q = (int(k) for k in random.choice(left, 2, replace=False))
        additions.append((p, q))
        left.remove(q)
    return tuple(additions)


def check_additions(additions, K, n, low, high, dtype):
    """In vectors that are slices of wider ones, of which nothing else may change."""
    wide = np.random.default_rng(n).normal(size=(K, n + 5)).astype(dtype)
    on_gpu = put(wide)
    add_in_order(on_gpu[:, :n], additions, low, high)
    add_in_order(wide[:, :n], additions, low, high)
    same_bits(on_gpu, wide)


@each_dtype
@each("K", [1, 2, 3, 8, 13])
def test_additions_on_a_gpu_have_the_bits_of_numpy(gpu, K, dtype):
    random = np.random.default_rng(K)
    for n in 1, 31, 300, 512:
        low, high = sorted(int(i) for i in random.integers(0, n + 1, 2))
        for lowest, highest in (0, n), (low, high), (low, low), (n - 1, n):
            check_additions(random_tree(random, K), K, n, lowest, highest, dtype)


@each_dtype
def test_additions_of_long_vectors_have_the_bits_of_numpy(gpu, dtype):
    check_additions(random_tree(np.random.default_rng(0), 5), 5, N, 3, N - 2, dtype)


@each_dtype
@each("V", [1, 2, 5, 8, 11])
def test_the_tree_over_slices_has_the_bits_of_numpy(gpu, V, dtype):
    for first, end in (0, V), (V // 2, V):
        for k, additions in plan(first, end, V)[0]:
            check_additions(additions, k + 1, 300, 7, 290, dtype)


@each_dtype
def test_an_addition_reads_what_those_before_it_wrote(gpu, dtype):
    check_additions(((0, 1), (1, 0), (0, 1), (2, 2), (0, 2)), 3, 300, 0, 300, dtype)


@each_dtype
def test_the_order_of_additions_shows_in_the_bits(gpu, dtype):
    sums = []
    for additions in ((0, 1), (0, 2)), ((1, 2), (0, 1)):
        vectors = put(np.random.default_rng(0).normal(size=(3, 1000)).astype(dtype))
        add_in_order(vectors, additions, 0, 1000)
        sums.append(vectors[0].tobytes())
    assert sums[0] != sums[1]


@each_dtype
@each("n", [0, 1, 31, 300, N, 3 << 15])
def test_the_norm_on_a_gpu_is_the_euclidean_length(gpu, n, dtype):
    x = numbers(n, dtype)
    for found in norm(put(x)), norm(x):
        assert found.dtype == np.float64
        assert float(found) == pytest.approx(np.linalg.norm(x.astype(np.float64)), rel=1e-12)


@each_dtype
@each("most", [1e-3, 30.0, 1e3])
def test_a_vector_that_is_too_long_is_shortened_on_a_gpu_as_by_numpy(gpu, most, dtype):
    """And one whose length is not known becomes nan."""
    x = numbers((1000,), dtype)
    there, here = put(x), x.copy()
    shorten(there, norm(there), most)
    shorten(here, norm(here), most)
    np.testing.assert_allclose(there, here, 4 * np.finfo(dtype).eps)
    assert (norm(here) < 1.001 * most) and np.array_equal(here, x) == (most == 1e3)
    for place in np.array, put:
        lost = place(np.array([1, np.nan, 3], dtype))
        shorten(lost, norm(lost), most)
        assert np.isnan(lost).all()


def test_the_norm_of_float32_is_added_in_float64(gpu):
    x = np.full(N, 1e-3, np.float32)
    x[0] = 1e4
    for found in norm(put(x)), norm(x):
        expected = np.sqrt(1e8 + (N - 1) * float(x[1]) ** 2)
        assert float(found) == pytest.approx(expected, rel=1e-14)
    assert float(norm(put(np.full(4, 3e30, np.float32)))) == pytest.approx(6e30)


# Slices of rows


def trees(V):
    """What ranks do with V slices: with all of them, with some, and pass by pass."""
    for first, end in {(0, V), (V // 2, V), (0, V - V // 3)}:
        tree = tuple(plan(first, end, V)[0])
        for together in {len(tree), 2, 3}:
            yield tree, [tree[v : v + together] for v in range(0, len(tree), together)]


@each_dtype
@each("V", [1, 2, 3, 5, 8, 11])
@each("shape", [(), (1,), (300,), (7, 33), (2, 3, 5), (0,), (2, CACHED)])
def test_slices_merged_on_a_gpu_have_the_bits_of_numpy(gpu, V, shape, dtype):
    """In vectors that are parts of wider ones, of which nothing else changes."""
    random, n = np.random.default_rng(V), prod(shape)
    for tree, passes in trees(V):
        wide = random.normal(size=(1 + max(k for k, _ in tree), n + 5)).astype(dtype)
        parts = random.normal(size=(len(tree), *shape)).astype(dtype)
        results = []
        for place in np.array, put:
            for pieces in [tree], passes:
                vectors, rest = place(wide), place(parts)
                for steps in pieces:
                    here = vectors[:, 2 : n + 2].reshape(len(wide), *shape)
                    assert np.may_share_memory(here, vectors) or not n
                    merge(here, rest[: len(steps)], steps)
                    rest = rest[len(steps) :]
                results.append(np.asarray(vectors))
        left = len(plan(0, V, V)[1]) if len(tree) == V else 1
        for found in results[1:]:
            same_bits(found[:left], results[0][:left])
        same_bits(results[2], results[0])  # all that is left, by NumPy and by the kernel
        assert (results[0][:, n + 2 :] == wide[:, n + 2 :]).all()


@each_dtype
@each("V", [2, 5, 8])
def test_slices_are_merged_as_the_tree_says(gpu, V, dtype):
    """((g0 + g1) + (g2 + g3)) + g4, written out."""
    parts = np.random.default_rng(V).normal(size=(V, 300)).astype(dtype)
    sums = list(parts)
    while len(sums) > 1:
        pairs = zip(sums[::2], sums[1::2], strict=False)
        sums = [a + b for a, b in pairs] + sums[len(sums) // 2 * 2 :]
    tree, partial = plan(0, V, V)
    assert partial == [(0, V)]
    for place in np.array, put:
        vectors = place(np.full((1 + max(k for k, _ in tree), 300), np.nan, dtype))
        merge(vectors, place(parts), tuple(tree))
        same_bits(np.asarray(vectors[0]), sums[0])


ROWS = [1, 2, 3, 4, 5, 31, 100]
NUMBERS = [(), (1,), (7,), (8,), (9,), (33,), (3, 5), (0,)]


@each_dtype
@each("V", [1, 2, 7])
@each("b", [0, *ROWS])
@each("shape", NUMBERS)
def test_rows_of_each_slice_are_added_on_a_gpu_as_in_float64(gpu, V, b, shape, dtype):
    x = numbers((V, b, *shape), dtype)
    found, wide = sum_of_rows(put(x)), x.astype(WIDER[dtype])
    assert type(found) is Emulated and found.dtype == dtype
    most = b * np.finfo(dtype).eps * np.abs(wide).sum(axis=1)
    assert (np.abs(found - wide.sum(axis=1)) <= most).all()
    same_bits(sum_of_rows(x), x.sum(axis=1))
    for factor in -1, 0.3:
        same_bits(sum_of_rows(put(x), factor), factor * found)
        same_bits(sum_of_rows(x, factor), factor * x.sum(axis=1))


@each_dtype
@each("b, few, many", [(257, 256, 2048), (2048, 256, 2048), (2049, 256, 2048), (100, 3, 5)])
@each("shape", [(), (9,), (3, 5)])
def test_many_rows_are_added_on_a_gpu_in_stages(gpu, b, few, many, shape, dtype, monkeypatch):
    """By their number alone, into what is there."""
    monkeypatch.setattr(slices, "FEW", few)
    monkeypatch.setattr(slices, "MANY", many)
    x = numbers((3, b, *shape), dtype)
    out = put(np.full((5, *shape), np.nan, dtype))
    sum_of_rows(put(x), -1, out[1:4])
    wide = -x.astype(WIDER[dtype]).sum(axis=1)
    most = b * np.finfo(dtype).eps * np.abs(x.astype(WIDER[dtype])).sum(axis=1)
    assert (np.abs(out[1:4] - wide) <= most).all() and np.isnan(out[[0, 4]]).all()
    for v in range(3):
        same_bits(sum_of_rows(put(x[v : v + 1]), -1), np.asarray(out[1 + v : 2 + v]))
    there = np.asarray(out[1:4]).copy()
    sum_of_rows(put(x), -1, out[1:4], add=True)
    same_bits(out[1:4], there + there)


@each("of, into, first", [("d", "f", 2**24), ("q", "f", 2**24), ("f", "d", 8)])
@each("add", [False, True])
def test_rows_of_another_type_are_added_in_theirs_and_the_sum_is_rounded(gpu, add, of, into, first):
    """Such as a node of one's own may give."""
    x = np.tile(np.array([[first], [1], [1], [1]], of), (2, 1, 3))
    for place in np.array, put:
        out = place(np.ones((4, 3), into))
        sum_of_rows(place(x), -1, out[1:3], add)
        expected = np.array(add - (first + 3.0), into)
        assert (np.asarray(out[1:3]) == expected).all() and (np.asarray(out[::3]) == 1).all()


@each_dtype
@each("b", [0, 1, 31, 33, 700])
def test_losses_are_added_on_a_gpu_in_float64(gpu, b, dtype):
    """Anew, or to those of earlier passes; and to the totals when they are complete."""
    ell = 1e-6 * numbers((3 * b,), dtype) + 1000
    for cut in in_slices(3 * b, 3), WHOLE:
        expected = ell.reshape(len(cut), -1).sum(axis=1, dtype=np.float64)
        for place in np.array, put:
            sums, totals = place(np.full(len(cut), 7.0)), place(np.full(len(cut), 1.0))
            failed = place(np.zeros(1, dtype))
            add = partial(add_losses, place(ell), cut, sums, totals, failed)
            add()
            np.testing.assert_allclose(sums, expected, 1e-14)
            np.testing.assert_allclose(totals, 1 + expected, 1e-14)
            add(last=False)
            np.testing.assert_allclose(sums, expected, 1e-14)
            np.testing.assert_allclose(totals, 1 + expected, 1e-14)
            add(first=False)
            np.testing.assert_allclose(sums, 2 * expected, 1e-14)
            np.testing.assert_allclose(totals, 1 + 3 * expected, 1e-14)
            assert failed[0] == 0


@each_dtype
@each("number", [np.nan, np.inf, -np.inf])
@each("row", [0, 40, 99])
def test_a_loss_that_is_not_finite_is_noted(gpu, row, number, dtype):
    ell = numbers((100,), dtype)
    for cut in in_slices(100, 4), in_slices(99, 3), WHOLE:
        n, V = cut.ends[-1] if cut.ends else 100, len(cut)
        for place in np.array, put:
            failed, sums = place(np.zeros(1, dtype)), (place(np.zeros(V)), place(np.zeros(V)))
            for wrong in 0, number, 0:  # nan, once it is there, stays
                losses = ell[:n].copy()
                losses[row : row + 1] = wrong
                add_losses(place(losses), cut, *sums, failed)
                if wrong == 0 and not np.isnan(failed[0]):
                    assert failed[0] == 0
            assert np.isnan(failed[0]) == (row < n)


@each_dtype
def test_updates_are_skipped_and_counted_once_a_step_has_failed(gpu, dtype):
    rules = {
        momentum: (1, [0.9, True, 0.01]),
        adam: (2, [3, 0.9, 0.99, 1e-8, 0.01, True]),
        rmsprop: (2, [0.99, 1e-8, 0.9, 0.01]),
    }
    for rule, (n, constants) in rules.items():
        for place in np.array, put:
            Phi, grad, *state = (place(numbers(300, dtype, seed) ** 2) for seed in range(2 + n))
            failure = failed, skipped = fine(dtype, place)
            for number, count in (np.nan, 1), (np.nan, 2), (0, 2):
                before = [np.array(vector) for vector in (Phi, *state)]
                failed[0] = number
                rule(Phi, grad, failure, *state, place(np.array(0.1, dtype)), *constants)
                same = map(np.array_equal, (Phi, *state), before)
                assert set(same) == {bool(np.isnan(number))} and skipped[0] == count


@each_dtype
@each("b", ROWS)
def test_a_sum_of_rows_does_not_depend_on_what_is_summed_beside_it(gpu, b, dtype):
    """Neither on other slices, nor on other columns."""
    x = numbers((5, b, 40), dtype)
    together = np.asarray(sum_of_rows(put(x)))
    for v in range(5):
        same_bits(np.asarray(sum_of_rows(put(x[v : v + 1]))), together[v : v + 1])
        for low, high in (0, 1), (0, 9), (7, 15), (13, 40):
            found = sum_of_rows(put(x[v : v + 1, :, low:high]))
            same_bits(np.asarray(found), together[v : v + 1, low:high])


@each_dtype
@each("shape", [(3, 4, 9), (3, 4, 5, 6), (2, 31, 1)])
def test_rows_are_summed_in_any_memory_order(gpu, shape, dtype):
    x = numbers(shape, dtype)
    expected = np.asarray(sum_of_rows(put(x)))
    middle = x.swapaxes(1, 2).copy()
    for other in (
        put(np.asfortranarray(x)),
        put(middle).swapaxes(1, 2),
        put(np.repeat(x, 2, axis=1))[:, ::2],
        put(np.repeat(x, 3, axis=-1))[..., ::3],
        put(np.repeat(x, 2, axis=0))[::2],
        put(x[:, ::-1])[:, ::-1],
    ):
        assert np.array_equal(other, x)
        same_bits(np.asarray(sum_of_rows(other)), expected)
    same = np.broadcast_to(put(x[:, :1]), x.shape, subok=True)
    packed = sum_of_rows(put(np.array(same)))
    same_bits(np.asarray(sum_of_rows(same)), np.asarray(packed))


@each_dtype
@each("V, N", [(1, 12), (3, 12), (4, 14), (5, 3), (4, 4)])
def test_products_of_slices_are_added_in_the_tree_on_a_gpu_too(gpu, V, N, dtype):
    """Slices of a row and none, too; BLAS makes what is multiplied, here, wherever it is."""
    x, g = numbers((N, 6), dtype), numbers((N, 9), dtype)
    cut = in_slices(N, V)
    parts = np.stack([x[cut.rows(v, N)].T @ g[cut.rows(v, N)] for v in range(V)])
    wide = np.zeros((1 + max(k for k, _ in cut.tree), 6 * 9 + 5), dtype)
    expected = wide[:, :54].reshape(-1, 6, 9).copy()
    merge(expected, parts, cut.tree)
    for place in np.array, put:
        vectors = place(wide)
        here = vectors[:, :54].reshape(-1, 6, 9)
        product_in_tree(here, place(x), place(g), cut)
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(here[0], expected[0], 0, 32 * N * eps)
        assert not vectors[:, 54:].any()


# Images

ROWS = 0, 1, 3, 33  # of which a kernel has no size compiled in
# (I, H, W, U, V, stride, padding)
WINDOWS = [
    (3, 5, 4, 1, 1, 1, 0),
    (2, 4, 7, 2, 3, 1, 0),
    (3, 7, 5, 3, 2, 2, 0),
    (2, 6, 8, 2, 2, 3, 0),
    (1, 4, 4, 4, 4, 1, 0),
    (3, 4, 6, 2, 5, 3, 2),
]
# (I, H, W, size, stride)
POOLS = [
    (1, 5, 4, 1, 1),
    (2, 4, 7, 2, 2),
    (3, 7, 5, 2, 1),
    (2, 7, 5, 3, 2),
    (2, 5, 8, 2, 3),
    (2, 7, 8, 4, 3),
]

each_window = each("I, H, W, U, V, stride, padding", WINDOWS)
each_pool = each("I, H, W, size, stride", POOLS)
each_rows = each("B", ROWS)


def picture(shape, dtype, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


# How images lie in memory.
ORDERS = {
    "b first": lambda x: x.copy(),
    "the channel last": lambda x: x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2),
    "b innermost": lambda x: x.transpose(1, 2, 3, 0).copy().transpose(3, 0, 1, 2),
    "every other column": lambda x: x.repeat(2, axis=3)[..., ::2],
    "backwards": lambda x: x[:, ::-1, ::-1].copy()[:, ::-1, ::-1],
}
each_order = each("order", ORDERS.values())


@each_dtype
@each_window
def test_columns_of_several_slices_are_those_of_each(I, H, W, U, V, stride, padding, dtype):
    x = picture((I, H, W, 12), dtype)
    here = U, V, stride, 0, windows_along(H, U, stride)
    found, back = columns(x, *here, 3), x.copy()
    add_columns(back, found, *here)
    for s in range(3):
        part = x[..., 4 * s : 4 * s + 4].copy()
        seen = columns(part, *here, 1)
        same_bits(found[s], seen[0])
        add_columns(part, seen, *here)
        same_bits(back[..., 4 * s : 4 * s + 4].copy(), part)


def seen_by_windows(x, U, V, stride, padding):
    """What patches gives, by NumPy's own windows."""
    wide = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    every = np.lib.stride_tricks.sliding_window_view(wide, (U, V), (2, 3))
    return every[:, :, ::stride, ::stride].transpose(0, 2, 3, 1, 4, 5)


@each_dtype
@each_window
@each_rows
@each_order
def test_patches_are_what_windows_see(gpu, order, B, I, H, W, U, V, stride, padding, dtype):
    x, how = picture((B, I, H, W), dtype), (U, V, stride, padding)
    expected = seen_by_windows(x, *how).copy()
    for place, kind in (np.asarray, np.ndarray), (put, Emulated):
        found = patches(order(place(x)), *how)
        assert type(found) is kind and found.flags.c_contiguous
        same_bits(found, expected)


def added_up(seen, shape, stride, padding):
    """What sum_of_patches leaves in images of a shape, by NumPy's own windows."""
    B, I, H, W = shape
    sums = np.zeros((B, I, H + 2 * padding, W + 2 * padding), seen.dtype)
    places = np.arange(sums.size).reshape(sums.shape)
    np.add.at(sums.reshape(-1), seen_by_windows(places, *seen.shape[4:], stride, 0), seen)
    return sums[:, :, padding : padding + H, padding : padding + W]


@each_dtype
@each_window
@each_rows
@each_order
def test_the_sum_of_patches_is_that_over_windows(
    gpu, order, B, I, H, W, U, V, stride, padding, dtype
):
    shape = B, I, H, W
    nothing = picture(shape, dtype)
    seen = picture(seen_by_windows(nothing, U, V, stride, padding).shape, dtype, 1)
    expected = added_up(seen.astype(WIDER[dtype]), shape, stride, padding)
    sums, there = order(nothing), order(put(nothing))
    sum_of_patches(sums, seen, stride, padding)
    np.testing.assert_allclose(sums, expected, 0, 64 * np.finfo(dtype).eps)
    sum_of_patches(there, put(seen), stride, padding)
    assert type(there) is Emulated
    same_bits(there, sums)


MANY = {
    "no two alike": picture,
    "ties": lambda *about: np.round(picture(*about)),
    "all alike": lambda shape, dtype: np.full(shape, -1, dtype),
    "nan": lambda *about: np.where(picture(*about) > 1, np.nan, picture(*about, 1)).astype(
        about[1]
    ),
    "infinite": lambda *about: np.copysign(np.inf, picture(*about)),
}


@each_dtype
@each_pool
@each_rows
@each("numbers", MANY.values())
def test_pools_and_their_gradients_on_a_gpu_are_those_of_numpy(
    gpu, numbers, B, I, H, W, size, stride, dtype
):
    x, pool = numbers((B, I, H, W), dtype), (size, stride)
    found, y = max_pool(put(x), *pool), max_pool(x, *pool)
    assert type(found) is Emulated and found.dtype == dtype
    assert np.array_equal(found, y, equal_nan=True)  # but for the sign of 0, of which NumPy is free
    g = picture(y.shape, dtype, 2)
    delta = max_pool_gradient(put(x), found, put(g), *pool)
    assert type(delta) is Emulated and delta.dtype == dtype
    assert np.array_equal(delta, max_pool_gradient(x, y, g, *pool))


@each_dtype
@each_pool
@each_rows
def test_averages_and_their_gradients_are_those_of_windows(gpu, B, I, H, W, size, stride, dtype):
    x, pool, eps = picture((B, I, H, W), dtype), (size, stride), np.finfo(dtype).eps
    seen = seen_by_windows(x.astype(WIDER[dtype]), size, size, stride, 0)
    expected = seen.mean(axis=(4, 5)).transpose(0, 3, 1, 2)
    g = picture(expected.shape, dtype, 1)
    share = g.transpose(0, 2, 3, 1)[..., None, None].astype(WIDER[dtype]) / size**2
    dx = added_up(np.broadcast_to(share, seen.shape), x.shape, stride, 0)
    for place, kind in (np.asarray, np.ndarray), (put, Emulated):
        y, delta = average_pool(place(x), *pool), average_pool_gradient(place(x), place(g), *pool)
        for found, its in (y, expected), (delta, dx):
            assert type(found) is kind and found.dtype == dtype
            np.testing.assert_allclose(found, its, 0, 16 * eps)


@each_dtype
def test_the_gradient_of_a_pool_goes_to_the_first_of_equal_places(gpu, dtype):
    x = np.array([[1, 1, 0], [0, 1, 2], [2, 1, 2]], dtype).reshape(1, 1, 3, 3)
    expected = [[1, 0, 0], [0, 0, 4], [3, 0, 0]]
    for place in np.asarray, put:
        there = place(x)
        y = max_pool(there, 2, 1)
        assert np.array_equal(y[0, 0], [[1, 2], [2, 2]])
        g = place(np.array([[1, 2], [3, 2]], dtype).reshape(1, 1, 2, 2))
        assert np.array_equal(max_pool_gradient(there, y, g, 2, 1)[0, 0], expected)


@each("dtype, other", [("f", "d"), ("d", "f"), ("f", "q")])
@each("B, I, H, W", [(1, 1, 2, 2), (2, 3, 4, 6)])
def test_gradients_of_another_type_are_read_as_that_of_the_value(gpu, B, I, H, W, dtype, other):
    """Such as a node of one's own may give, also of one number."""
    x, g = picture((B, I, H, W), dtype), np.arange(B * I * H * W // 4).reshape(B, I, H // 2, W // 2)
    found, expected = [], []
    for place, kind, results in (put, other, found), (np.asarray, dtype, expected):
        here, its = place(x), place(1 + g.astype(kind))
        y = max_pool(here, 2, 2)
        results += [relu_gradient(y, its), max_pool_gradient(here, y, its, 2, 2)]
        results += [average_pool_gradient(here, its, 2, 2), gelu_gradient(y, y, its)]
    for array, exact in zip(found, expected, strict=True):
        assert array.dtype == dtype
        np.testing.assert_allclose(array, exact, 1e-6)


@each_dtype
@each_order
def test_pools_take_images_in_any_memory_order_and_their_gradients_lie_as_they_do(
    gpu, order, dtype
):
    x = picture((3, 2, 4, 7), dtype)
    y, mean = max_pool(x, 2, 2), average_pool(x, 2, 2)
    g, there = picture(y.shape, dtype, 1), order(put(x))
    found = max_pool(there, 2, 2)
    assert found.flags.c_contiguous and np.array_equal(found, y)
    assert np.array_equal(average_pool(there, 2, 2), mean)
    for its in ORDERS.values():
        delta = max_pool_gradient(there, its(found), its(put(g)), 2, 2)
        assert np.array_equal(delta, max_pool_gradient(x, y, g, 2, 2))
        assert delta.strides == np.empty_like(there).strides
        delta = average_pool_gradient(there, its(put(g)), 2, 2)
        assert np.array_equal(delta, average_pool_gradient(x, g, 2, 2))
        assert delta.strides == np.empty_like(there).strides


@each_dtype
@each_order
@each("B, I, H, W", [(5, 2, 4, 7), (3, 1, 1, 1), (0, 3, 4, 5), (300, 1, 3, 2)])
def test_images_are_moved_and_cut_on_a_gpu_as_by_numpy(gpu, order, B, I, H, W, dtype):
    """By any distance, also out of sight; nan and inf stay where they were, or are gone."""
    x, random = picture((B, I, H, W), dtype), np.random.default_rng(2)
    x[random.random(x.shape) < 0.2] = np.nan
    for far in 2, 50:
        by = random.integers(-far, far + 1, (B, 2))
        for way in 1, -1:
            same_bits(np.asarray(moved(order(put(x)), put(by), way)), moved(x, by, way))
        for size in 1, 3, 60:
            found = without_square(order(put(x)), put(by), size)
            same_bits(np.asarray(found), without_square(x, by, size))


def gradients_of(x, W, C, g, how, varies, cut, seen=None):
    """(x.grad, W.grad and C.grad of each slice) of a Conv2D whose grad is g."""
    Phi = Package(w=Parameter(W), b=Parameter(C))
    for p in Phi.w, Phi.b:
        p.sum_over_rows = sum_over_rows(p.value, None, cut)
    with during(slices=cut):
        dx = convolution_gradients(x, seen, Phi, g, *how, varies, cut)
    return dx, *(p.sum_over_rows.so_far() for p in (Phi.w, Phi.b))


@each_dtype
@each("at_a_time", [1, 100, 300, 1 << 20])
@each("I, H, W, U, V, stride, padding", WINDOWS[1::2])
@each("count", [1, 3, 4])
@each_rows
def test_a_convolution_is_the_same_on_a_gpu_and_however_much_is_computed_at_a_time(
    gpu, B, count, I, H, W, U, V, stride, padding, at_a_time, dtype, monkeypatch
):
    x, w = picture((B, I, H, W), dtype), picture((4, I, U, V), dtype, 1)
    C, how, cut = numbers(4, dtype), (stride, padding), in_slices(B, count)
    wide = [a.astype(WIDER[dtype]) for a in (x, w, C)]
    seen = seen_by_windows(wide[0], U, V, *how)
    expected = np.einsum("bmniuv,jiuv->bjmn", seen, wide[1]) - wide[2][:, None, None]
    g = picture(expected.shape, dtype, 2)
    each_slice = [cut.rows(v, B) for v in range(count)]
    dW = [np.einsum("bjmn,bmniuv->jiuv", g[r].astype(WIDER[dtype]), seen[r]) for r in each_slice]
    dC = [-g[r].astype(WIDER[dtype]).sum(axis=(0, 2, 3)) for r in each_slice]
    dx = added_up(np.einsum("bjmn,jiuv->bmniuv", g, wide[1]), x.shape, *how)
    monkeypatch.setattr(conv, "at_a_time", lambda x: at_a_time)
    for place, kind in (np.asarray, np.ndarray), (put, Emulated):
        x_there, W_there, C_there, g_there = map(place, (x, w, C, g))
        y, kept = convolution(x_there, W_there, C_there, *how, cut)
        there = x_there, W_there, C_there, g_there, how
        gradients = gradients_of(*there, True, cut, kept)
        no, *same = gradients_of(*there, False, cut)
        assert no is None
        for one, other in zip(same, gradients[1:], strict=True):
            same_bits(one, other)
        for found, its in zip((y, *gradients), (expected, dx, dW, dC), strict=True):
            assert type(found) is kind and found.dtype == dtype
            near = {
                "rtol": 0,
                "atol": 64 * np.finfo(dtype).eps * max(1, np.abs(its).max(initial=0)),
            }
            np.testing.assert_allclose(found, its, **near)


def test_images_of_a_convolution_take_no_copies_on_a_gpu(gpu, monkeypatch):
    """Neither of what it computes, nor of the gradient that a pool sends it."""
    x, w = put(picture((3, 2, 4, 7), np.float32)), put(picture((2, 2, 2, 3), np.float32))
    C = put(numbers(2, np.float32))
    monkeypatch.setattr(Emulated, "copy", None)
    y, seen = convolution(x, w, C, 1, 0, WHOLE)
    z = max_pool(relu(y), 2, 2)
    g = max_pool_gradient(y, z, z, 2, 2)
    g = relu_gradient(y, g)
    gradients_of(x, w, C, g, (1, 0), True, WHOLE, seen)


def test_what_windows_saw_is_used_again_on_a_gpu(gpu):
    x, w = put(picture((3, 2, 4, 7), np.float32)), put(picture((2, 2, 2, 3), np.float32))
    y, seen = convolution(x, w, put(numbers(2, np.float32)), 1, 0, WHOLE)
    twice = gradients_of(x, w, w[:, 0, 0, 0], y, (1, 0), True, WHOLE, 2 * seen)
    once = gradients_of(x, w, w[:, 0, 0, 0], y, (1, 0), True, WHOLE)
    same_bits(twice[1], 2 * once[1])


def test_a_slice_of_no_rows_may_stand_between_others_that_are_computed_in_pieces(gpu, monkeypatch):
    monkeypatch.setattr(conv, "at_a_time", lambda x: 1)
    x, w = put(picture((5, 2, 4, 7), np.float32)), put(picture((2, 2, 2, 3), np.float32))
    y, seen = convolution(x, w, put(numbers(2, np.float32)), 1, 0, WHOLE)
    cut = Slices([0, 3, 3, 5], [(v, ()) for v in range(3)])
    _, dW, dC = gradients_of(x, w, w[:, 0, 0, 0], y, (1, 0), True, cut, seen)
    assert seen is None and not dW[1].any() and not dC[1].any()
    assert dW[0].all() and dW[2].all()


def test_indices_of_64_bits_are_taken_where_32_are_too_few(gpu, monkeypatch):
    x = put(picture((3, 2, 4, 7), np.float32))
    expected = patches(x, 2, 3, 1, 0), max_pool(x, 2, 2)
    monkeypatch.setattr(kernels, "LARGE", 1)
    for found, its in zip((patches(x, 2, 3, 1, 0), max_pool(x, 2, 2)), expected, strict=True):
        same_bits(found, its)
    for module in windows, pool:
        assert [large for _, _, _, large, *_ in module.cuda.compiled] == [False, True]


MORE = 1 << 31  # than an index of 32 bits reaches


@each(
    "shape, strides, large",
    [
        ((MORE - 256,), (4,), False),
        ((MORE - 255,), (4,), True),
        ((2, 3), (4 * MORE, 4), True),
        ((2, 3), (4, -2 * MORE), True),
        ((MORE, 3), (0, 4), False),
    ],
)
def test_the_reach_of_an_array_tells_whether_its_indices_need_64_bits(
    shape, strides, large, monkeypatch
):
    launched = SimpleNamespace(get_function=lambda name: lambda *launch: None)
    monkeypatch.setattr(kernels.gpu, "compile", lambda code, options: launched)
    loaded, y = Kernels("pool.cu"), np.zeros(1, np.float32)
    loaded.max_pool(1, y, np.lib.stride_tricks.as_strided(y, shape, strides), SIZE=2)
    assert list(loaded.compiled) == [(None, "max_pool", "float32", large, ("SIZE", 2))]
    loaded.max_pool(MORE, y, SIZE=2)
    assert (None, "max_pool", "float32", True, ("SIZE", 2)) in loaded.compiled


@each_dtype
@each_order
def test_relu_on_a_gpu_lies_as_its_input(gpu, order, dtype):
    x = picture((3, 2, 4, 7), dtype)
    x[0, 0, 0, 0] = np.nan
    found = relu(order(put(x)))
    assert type(found) is Emulated and found.strides == np.empty_like(order(x)).strides
    same_bits(found.copy(), relu(x))


# The arguments of what is replayed


def test_arguments_are_brought_to_where_they_are_read(gpu, monkeypatch):
    """Arrays of any type and memory order, at any address, and numbers; more than four of them."""
    monkeypatch.setattr(kernels.gpu, "array", Emulated)
    random = np.random.default_rng(0)
    wide = random.integers(0, 256, (7, 33), np.uint8)
    found = [put(wide)[1:, 3:20], random.normal(size=(40, 8)), put(wide).T, 7, np.float32(0.1)]
    found += [put(np.empty((0, 3))), -(2**40), np.float64(1 / 3), put(np.arange(5, dtype=np.int32))]
    found[1] = put(found[1])
    there = [arguments.kept(argument) for argument in found]
    for array in there:
        assert type(array) is Emulated
        array[...] = 0
    arguments.bring(found, there)
    for argument, array in zip(found, there, strict=True):
        same_bits(np.asarray(array), np.asarray(argument))


# Activations


@each_dtype
@each("shape", [(0, 3), (), (5,), (7, 300)])
def test_the_gradient_of_relu_is_selected_in_any_memory_order(gpu, shape, dtype):
    x, g = (np.asarray(picture(shape, dtype, seed)) for seed in (0, 1))
    y = np.maximum(x, 0)
    expected = np.where(y > 0, g, dtype(0))
    assert np.array_equal(relu_gradient(y, g), expected)
    for orders in "CC", "CF", "FC", "FF":
        there = [put(np.array(a, order=order)) for a, order in zip((y, g), orders, strict=True)]
        found = relu_gradient(*there)
        assert type(found) is Emulated and np.array_equal(found, expected)
        assert found.strides == there[0].strides
    for place in np.asarray, put:
        infinite = place(np.array([np.inf, np.nan], dtype))
        assert not relu_gradient(place(np.zeros(2, dtype)), infinite).any()
        nans = place(np.full(2, np.nan, dtype))
        assert relu_gradient(nans, place(np.array([1, 2], dtype))).tolist() == [1, 2]


def gelu_and_slope(x):
    """GELU and its derivative, by the closed form with tanh, in a wider type."""
    x = x.astype(WIDER[x.dtype.type])
    root, cube = np.sqrt(2 / np.arccos(x.dtype.type(-1))), x.dtype.type("0.044715")
    tanh = np.tanh(root * (x + cube * x**3))
    return x * (1 + tanh) / 2, (1 + tanh + x * (1 - tanh**2) * root * (1 + 3 * cube * x**2)) / 2


@each_dtype
@each("shape", [(0, 3), (), (5,), (7, 33), (2, 3, N)])
def test_gelu_and_its_gradient_are_those_of_the_closed_form(gpu, shape, dtype):
    x, g = np.asarray(3 * picture(shape, dtype)), np.asarray(picture(shape, dtype, 1))
    expected, slope = gelu_and_slope(x)
    eps = np.finfo(dtype).eps
    for place, kind in (np.asarray, np.ndarray), (put, Emulated):
        y, s = gelu(place(x))
        delta = gelu_gradient(place(x), s, place(g))
        for found in y, s, delta:
            assert type(found) is kind and found.dtype == dtype and found.shape == shape
        np.testing.assert_allclose(y, expected, 0, 32 * eps)
        np.testing.assert_allclose(delta, g * slope, 0, 256 * eps)


@each_dtype
def test_gelu_of_large_numbers_is_the_number_or_0(gpu, dtype):
    most = np.finfo(dtype).max
    x, g = np.array([100, 1e4, most, -100, -1e4, -most, 0], dtype), np.ones(7, dtype)
    for place in np.asarray, put:
        y, s = gelu(place(x))
        assert np.array_equal(y, np.maximum(x, 0))
        assert gelu_gradient(place(x), s, place(g)).tolist() == [1, 1, 1, 0, 0, 0, 0.5]


@each_dtype
def test_gelu_takes_numbers_in_any_memory_order(gpu, dtype):
    x, g = picture((5, 7), dtype), picture((5, 7), dtype, 1)
    y, s = gelu(put(x))
    expected = gelu_gradient(put(x), s, put(g))
    for other in put(np.asfortranarray(x)), put(np.repeat(x, 2, axis=1))[:, ::2]:
        for found, its in zip(gelu(other), (y, s), strict=True):
            same_bits(found, its)
        for there in put(np.asfortranarray(g)), put(np.repeat(g, 2, axis=1))[:, ::2]:
            same_bits(gelu_gradient(other, s, there), expected)


@each_dtype
@each("scale", [0.1, 1, 6, 37])
def test_the_normal_distribution_is_right_to_the_last_digits_also_where_it_is_small(
    gpu, scale, dtype
):
    """PyTorch's exact GELU has the digits of 1 + erf, which are few below 0."""
    x = (scale * np.linspace(-1, 1, 4001)).astype(dtype)
    expected = np.array([math.erfc(-z * 0.5**0.5) / 2 for z in x.tolist()])
    x, expected = (a[expected > 100 * np.finfo(dtype).tiny] for a in (x, expected))
    digit = np.square(x, dtype=float)  # how the last digit of z moves erfc(z), relative to it
    for place, kind in (np.asarray, np.ndarray), (put, Emulated):
        y = normal_cdf(place(x))
        assert type(y) is kind and y.dtype == dtype
        bound = (4 + digit) * np.finfo(float).eps + 4 * np.finfo(dtype).eps
        bound += digit * np.finfo(dtype).eps * (kind is Emulated)
        np.testing.assert_array_less(np.abs(y - expected), bound * expected)
    for place in np.asarray, put:
        edges = normal_cdf(place(np.array([-np.inf, -1e30, -0.0, 0, 1e30, np.inf, np.nan], dtype)))
        assert str(edges.tolist()) == "[0.0, 0.0, 0.5, 0.5, 1.0, 1.0, nan]"
        assert normal_cdf(place(np.zeros((0, 3), dtype))).shape == (0, 3)


# Cells of recurrent layers


def lstm(x, z, s, g):
    """y, x.grad, z.grad and s.grad, by the kernels' functions."""
    y, *kept = lstm_cell(x, z, s)
    delta, ds = lstm_cell_gradient(*kept, s, g)
    return y, delta, delta, ds


def gru(x, z, h, g):
    y, *kept = gru_cell(x, z, h)
    return y, *gru_cell_gradient(*kept, z, h, g)


def lstm_of_pytorch(x, z, s):
    (i, f, o, g), (c, _) = (x + z).chunk(4, 1), s.chunk(2, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return c, o.sigmoid() * c.tanh()


def gru_of_pytorch(x, z, h):
    (xr, xu, xn), (zr, zu, zn) = x.chunk(3, 1), z.chunk(3, 1)
    r, u = (xr + zr).sigmoid(), (xu + zu).sigmoid()
    return [(1 - u) * (xn + r * zn).tanh() + u * h]


# A cell; what PyTorch makes of it; how many numbers x and z, and the state, have for each j.
CELLS = {"LSTM": (lstm, lstm_of_pytorch, 4, 2), "GRU": (gru, gru_of_pytorch, 3, 1)}
each_cell = pytest.mark.parametrize("cell, theirs, gates, states", CELLS.values(), ids=CELLS)


def of_cell(B, J, gates, states, dtype):
    """x, z, s and y.grad."""
    sizes = gates * J, gates * J, states * J, states * J
    return [picture((B, size), dtype, seed) for seed, size in enumerate(sizes)]


@each_dtype
@each_cell
@each_width
@each("B", [0, 1, 7])
def test_a_cell_and_its_gradients_are_those_of_pytorch_in_float64(
    gpu, cell, theirs, gates, states, B, J, dtype
):
    torch = pytest.importorskip("torch", reason="the reference is PyTorch")
    arrays = of_cell(B, J, gates, states, dtype)
    *leaves, g = (torch.tensor(a.astype(np.float64)) for a in arrays)
    for leaf in leaves:
        leaf.requires_grad_()
    y = torch.cat(theirs(*leaves), 1)
    y.backward(g)
    expected = [y.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)]
    for place, kind in (np.asarray, np.ndarray), (put, Emulated):
        for found, its in zip(cell(*map(place, arrays)), expected, strict=True):
            assert type(found) is kind and found.dtype == dtype and found.shape == its.shape
            np.testing.assert_allclose(found, its, 0, 64 * np.finfo(dtype).eps)


@each_dtype
@each_cell
@each("J", [1, 3, 40])
def test_a_cell_takes_positions_of_a_sequence_and_arrays_in_any_memory_order(
    gpu, cell, theirs, gates, states, J, dtype
):
    arrays = of_cell(5, J, gates, states, dtype)
    expected = [*map(np.array, cell(*map(put, arrays)))]

    def position(x):  # of a sequence of 3, as z[:, t]
        return put(np.stack([x, x + 1, x], axis=1))[:, 2]

    orders = {
        "a position of a sequence": position,
        "columns of wider rows": lambda x: put(np.hstack([x, x, x]))[:, x.shape[1] : -x.shape[1]],
        "by columns": lambda x: put(np.asfortranarray(x)),
        "every other column": lambda x: put(np.repeat(x, 2, axis=1))[:, ::2],
        "rows from the last": lambda x: put(x[::-1].copy())[::-1],
    }
    for name, order in orders.items():
        others = [order(x) for x in arrays]
        assert all(map(np.array_equal, others, arrays)), name
        for mine in range(4):  # one of them lies so, or all do
            mixed = [others[k] if k == mine else put(x) for k, x in enumerate(arrays)]
            for some in mixed, others:
                for found, its in zip(cell(*some), expected, strict=True):
                    same_bits(np.ascontiguousarray(found), its)


@each_dtype
@each_cell
def test_the_gradient_of_a_cell_takes_one_number_for_all(gpu, cell, theirs, gates, states, dtype):
    """y.grad as the gradient of a sum is it."""
    *arrays, g = of_cell(5, 7, gates, states, dtype)
    one = np.broadcast_to(put(g[:1, :1]), g.shape, subok=True)
    expected = cell(*map(put, arrays), put(np.full_like(g, g[0, 0])))
    for found, its in zip(cell(*map(put, arrays), one), expected, strict=True):
        same_bits(found, its)


@each_dtype
@each_cell
def test_a_row_of_a_cell_has_the_same_bits_whatever_rows_stand_beside_it(
    gpu, cell, theirs, gates, states, dtype
):
    arrays = [*map(put, of_cell(9, 33, gates, states, dtype))]
    whole = cell(*arrays)
    for rows in slice(0, 1), slice(4, 9):
        for found, its in zip(cell(*(x[rows] for x in arrays)), whole, strict=True):
            same_bits(found, its[rows])


@each_dtype
@each_cell
def test_gates_that_are_wide_open_or_shut_leave_or_take_all(
    gpu, cell, theirs, gates, states, dtype
):
    """Scores too large for exp.  Nothing flows back through such a gate."""
    x, z, s, g = of_cell(8, 5, gates, states, dtype)
    x += 1e5 * np.random.default_rng(0).choice([-1, 1], x.shape)
    *scores, _ = np.split(x > 0, gates, axis=1)
    for place in np.asarray, put:
        y, dx, dz, ds = cell(*map(place, (x, z, s, g)))
        new = np.sign(x[:, -5:])
        if cell is lstm:
            i, f, o = scores
            np.testing.assert_allclose(y[:, :5], f * s[:, :5] + i * new, 1e-6)
            np.testing.assert_allclose(y[:, 5:], o * np.tanh(y[:, :5]), 1e-6)
        else:
            np.testing.assert_allclose(y, np.where(scores[1], s, new), 1e-6)
        assert not np.asarray(dx).any() and not np.asarray(dz).any()
        assert np.isfinite(ds).all()


@each_dtype
@each_cell
def test_a_nan_stays_in_its_row_and_is_not_lost(gpu, cell, theirs, gates, states, dtype):
    for which in range(3):
        arrays = of_cell(3, 4, gates, states, dtype)
        arrays[which][1, 2] = np.nan  # of the first gate, and of the state
        y, dx, dz, _ = cell(*map(put, arrays))
        for value in y, dx, dz:
            assert np.isnan(value[1]).any() and np.isfinite(value[[0, 2]]).all()


@each_dtype
def test_a_small_new_value_of_an_lstm_is_not_lost_in_rounding(gpu, dtype):
    """tanh(a) as 2 sigmoid(2a) - 1 has a relative error of 1e-3 at a = 1e-5 in float32."""
    small = np.array([1e-3, -1e-5, 1e-7], dtype)
    x, zeros = np.zeros((3, 4), dtype), np.zeros((3, 4), dtype)
    x[:, 3] = small
    y, *_ = lstm_cell(*map(put, (x, zeros, zeros[:, :2])))
    expected = np.tanh(small.astype(np.longdouble)) / 2
    np.testing.assert_allclose(y[:, 0], expected.astype(dtype), 4 * np.finfo(dtype).eps)


@each_cell
def test_numbers_of_two_types_are_refused_by_a_cell(gpu, cell, theirs, gates, states):
    for which in range(3):
        arrays = [*map(put, of_cell(2, 3, gates, states, np.float32))]
        arrays[which] = put(np.asarray(arrays[which], np.float64))
        with pytest.raises(ValueError, match="float64.*, expected one type"):
            cell(*arrays)


# Arrays one after the other


LIE = {  # how the parts lie in memory
    "packed": put,
    "by columns": lambda x: put(np.asfortranarray(x)),
    "in wider rows": lambda x: put(np.concatenate([x, x], axis=-1))[..., x.shape[-1] :],
    "every other": lambda x: put(np.repeat(x, 2, axis=-1))[..., ::2],
    "from the last": lambda x: put(np.flip(x))[tuple([slice(None, None, -1)] * x.ndim)],
}


@each_dtype
@each("shape", [(5,), (0,), (4, 3), (4, 1), (0, 3), (3, 0), (2, 3, 4), (2, 1, 3, 2)])
@each("count", [1, 2, 7, 8, 9, 17])
@each("lie", LIE)
def test_arrays_become_one_along_any_index(gpu, shape, count, lie, dtype):
    """Those that lie alike come 8 at a time: all of them, or none, or some."""
    for axis in range(len(shape)):
        for sizes in [shape[axis]] * count, range(count), [1, *[2] * count, 1]:
            shapes = [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]
            parts = [picture(size, dtype, seed) for seed, size in enumerate(shapes)]
            expected = np.concatenate(parts, axis)
            there = [LIE[lie](x) for x in parts]
            y = np.empty(expected.shape, dtype, like=there[0])
            where = concat.concat(y, there, axis)
            same_bits(y, expected)
            assert all(map(np.array_equal, (y[place] for place in where), parts))


@each_dtype
def test_arrays_that_lie_otherwise_than_the_one_before_become_one_with_it(gpu, dtype):
    parts = [picture((4, 6), dtype, seed) for seed in range(2 * len(LIE))]
    there = [lie(x) for x, lie in zip(parts, [*LIE.values()] * 2, strict=True)]
    y = np.empty((4, 6 * len(parts)), dtype, like=there[0])
    concat.concat(y, there, 1)
    same_bits(y, np.hstack(parts))


@each("types", [("int64", "int64"), ("uint8", "int64"), ("float32", "float64"), ("bool", "bool")])
def test_arrays_of_any_type_become_one(gpu, types):
    parts = [np.arange(6).reshape(2, 3).astype(dtype) for dtype in types]
    expected = np.concatenate(parts, axis=1)
    y = np.empty(expected.shape, expected.dtype, like=put(parts[0]))
    concat.concat(y, [*map(put, parts)], 1)
    same_bits(y, expected)


@each_dtype
def test_arrays_that_lie_alike_are_copied_eight_at_a_time(gpu, dtype, monkeypatch):
    launched = []
    monkeypatch.setattr(concat.cuda, "concat", lambda *arguments: launched.append(arguments))
    h = put(picture((4, 20, 3), dtype))
    for parts, expected in (17, 3), (16, 2), (8, 1), (1, 1):
        launched.clear()
        y = np.empty((4, 3 * parts), dtype, like=h)
        concat.concat(y, [h[:, t] for t in range(parts)], 1)
        assert len(launched) == expected


@each_dtype
@each("lead", [(), (3,)])
@each("sizes", [[4], [4] * 8, [1, 2, 3], [4] * 9 + [2]])
def test_products_are_added_up_as_one(gpu, lead, sizes, dtype):
    """Also of parts of rows, as the output of an LSTM is one of its state."""
    wide = [put(picture((*lead, n, 14), dtype, n)) for n in sizes]
    pairs = [(x[..., 7:], put(picture((*lead, x.shape[-2], 5), dtype, 1))) for x in wide]
    out = put(picture((*lead, 7, 5), dtype, 2))
    wider = [[np.asarray(a, WIDER[dtype]) for a in pair] for pair in pairs]
    expected = np.asarray(out, WIDER[dtype]) + sum(x.swapaxes(-1, -2) @ g for x, g in wider)
    add_products(pairs, out)
    np.testing.assert_allclose(out, expected, 0, 64 * np.finfo(dtype).eps * len(sizes))


# Rows added up by number


def in_order(rows):
    """Their sum, one after the other."""
    total = np.zeros_like(rows[0])
    for row in rows:
        total += row
    return total


def check_scattered(g, x, J, on_gpu):
    """The kernels add in order, in pieces of 64; NumPy's meaning as near as the type allows."""
    expected, sizes = np.zeros((2, len(g), J, g.shape[2]), g.dtype)
    for v, j in product_of(range(len(g)), range(J)):
        rows = g[v, x[v] == j]
        for low in range(0, len(rows), 64):
            expected[v, j] += in_order(rows[low : low + 64])
        sizes[v, j] = np.abs(rows).sum(axis=0)
    found = scattered(*on_gpu, J)
    assert type(found) is Emulated
    same_bits(found, expected)
    meant = scattered(g, x, J)
    assert meant.dtype == g.dtype
    assert (np.abs(meant - expected) <= x.size * np.finfo(g.dtype).eps * sizes).all()


@each_dtype
@each("labels", [np.uint8, np.int32, np.int64])
@each("J, I", [(1, 1), (1, 5), (7, 1), (7, 33), (200, 3), (5, 0)])
@each("V, N", [(1, 0), (1, 1), (4, 0), (1, 300), (5, 7), (3, 40)])
def test_rows_added_up_on_a_gpu_have_the_bits_of_loops(gpu, V, N, J, I, labels, dtype):
    """Those of each slice by themselves."""
    g = picture((V, N, I), dtype)
    for high in J, 1 + J // 2:  # also where the last ones do not occur
        x = np.random.default_rng(high).integers(0, high, (V, N)).astype(labels)
        check_scattered(g, x, J, (put(g), put(x)))


@each_dtype
@each("run", [1, 2, 3, 8])
@each("V, N", [(1, 1), (1, 7), (3, 8), (2, 33), (3, 100)])
def test_runs_of_labels_are_merged_until_all_are_sorted(gpu, V, N, run, dtype, monkeypatch):
    monkeypatch.setattr(embedding, "RUN", run)
    g = picture((V, N, 5), dtype)
    for high in 1, 3, 50:
        x = np.random.default_rng(high).integers(0, high, (V, N))
        check_scattered(g, x, 50, (put(g), put(x)))


def test_a_label_without_a_row_adds_to_none(gpu):
    g, x = picture((1, 6, 3), np.float64), np.array([[3, -1, 0, -7, 2, 0]])
    found = scattered(put(g), put(x), 3)
    assert np.array_equal(found[0], [g[0, 2] + g[0, 5], np.zeros(3), g[0, 4]])


@each_dtype
def test_rows_are_added_up_in_any_memory_order(gpu, dtype):
    g, x = picture((5, 7, 3), dtype), np.random.default_rng(0).integers(0, 4, (5, 7))
    for g_there in put(np.asfortranarray(g)), put(np.repeat(g, 2, axis=1))[:, ::2]:
        for x_there in put(x), put(np.asfortranarray(x)), put(np.repeat(x, 2, axis=1))[:, ::2]:
            check_scattered(g, x, 4, (g_there, x_there))


# Rounding to bfloat16


@pytest.fixture(scope="module")
def floats():
    """Every upper half with lower halves around what decides."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    lower = np.uint32([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
    return (upper[:, np.newaxis] | lower).view(np.float32)


def bfloat16(bits):
    """The value of each, in float64; an infinity stands for what would come next."""
    value = (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return np.where(np.isinf(value), np.copysign(2.0**128, value), value)


def test_rounding_to_bfloat16_takes_the_nearest_and_of_two_the_even(gpu, floats):
    found = np.asarray(rounded(put(floats)))
    assert found.dtype == np.uint16
    known = np.isfinite(floats)
    x, bits = floats[known].astype(np.float64), floats[known].view(np.uint32)
    down = bits >> 16
    up = down + 1
    below, above = np.abs(x - bfloat16(down)), np.abs(bfloat16(up) - x)
    nearest = np.where((above < below) | ((above == below) & (down % 2 == 1)), up, down)
    assert np.array_equal(found[known], nearest)


def test_in_bfloat16_nan_stays_nan_and_infinity_stays_infinity(gpu, floats):
    found = (np.asarray(rounded(put(floats))).astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(np.isnan(found), np.isnan(floats))
    infinite = np.isinf(floats)
    assert infinite.sum() == 2
    assert np.array_equal(found[infinite], floats[infinite])


def test_rounding_to_bfloat16_agrees_with_pytorch(gpu, floats):
    torch = pytest.importorskip("torch", reason="the reference is PyTorch")
    theirs = torch.tensor(floats).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    known = ~np.isnan(floats)
    assert np.array_equal(np.asarray(rounded(put(floats)))[known], theirs[known])


@each("shape", [(0, 3), (1, 1), (5, 7), (300, 33)])
def test_rounding_to_bfloat16_leaves_every_number_in_its_place(gpu, shape):
    x = scores(*shape, np.float32)
    expected = np.asarray(rounded(put(x.reshape(1, x.size)))).reshape(shape)
    for other in put(x), put(x.T.copy()).T, put(np.repeat(x, 2, axis=1))[:, ::2]:
        assert np.array_equal(rounded(other), expected)
    transposed = rounded(put(x.T.copy()).T)
    assert transposed.T.flags.c_contiguous


# Normalization


EPSILON = 1e-5
NORMS = [  # (y, n, s) of x, w and c, and the gradients of them
    (partial(layer_norm, epsilon=EPSILON), layer_norm_gradient),
    (lambda x, w, c: rms_norm(x, w, EPSILON), rms_norm_gradient),
]
each_norm = each("norm, norm_gradient", NORMS)


def rows_to_normalize(shape, dtype):
    """x and g, far from 0 and of many sizes, and w and c."""
    sizes = 10.0 ** np.arange(prod(shape[:-1])).reshape(*shape[:-1], 1)
    x, g = (sizes * (2 + picture(shape, np.float64, seed)) for seed in (0, 1))
    w, c = (numbers(shape[-1], dtype, seed) for seed in (2, 3))
    return x.astype(dtype), g.astype(dtype), w, c


@each_dtype
@each_width
@each_norm
@each("lead", [(0,), (1,), (7,), (2, 3)])
def test_normalized_rows_on_a_gpu_are_those_of_numpy(gpu, lead, norm, norm_gradient, J, dtype):
    x, g, w, c = rows_to_normalize((*lead, J), dtype)
    eps = (J / 32 + 16) * np.finfo(dtype).eps
    y, n, s = norm(*map(put, (x, w, c)))
    wide = [array.astype(WIDER[dtype]) for array in (x, w, c)]
    expected_y, expected_n, expected_s = norm(*wide)
    most = np.abs(x).max(axis=-1, keepdims=True) / expected_s  # n is a difference of such numbers
    np.testing.assert_array_less(np.abs(s - expected_s), eps * (1 + most) * expected_s)
    np.testing.assert_array_less(
        np.abs(n - expected_n), eps * (1 + most) * (1 + np.abs(expected_n))
    )
    bound = np.abs(expected_n * w) + np.abs(c) + np.abs(w) * (1 + most)
    np.testing.assert_array_less(np.abs(y - expected_y), eps * bound + np.finfo(dtype).tiny)

    delta, h = norm_gradient(put(g), n, s, put(w))
    expected, _ = norm_gradient(*(np.asarray(a, WIDER[dtype]) for a in (g, n, s, w)))
    steps = np.abs(g * w).max(axis=-1, keepdims=True) * (2 + np.square(n)) / s
    np.testing.assert_array_less(np.abs(delta - expected), eps * steps)
    same_bits(np.asarray(h), g * np.asarray(n))
    for found in y, n, s, delta, h:
        assert type(found) is Emulated and found.dtype == dtype
    assert y.shape == n.shape == delta.shape == h.shape == x.shape and s.shape == (*lead, 1)


@each_dtype
def test_rows_of_the_largest_numbers_are_normalized(gpu, dtype):
    """By the closed form, where squares of them are infinite."""
    sizes = 1e3, np.sqrt(np.finfo(dtype).max), np.finfo(dtype).max / 8
    for place, size in product_of((np.asarray, put), sizes):
        one, no = place(np.ones(4, dtype)), place(np.zeros(4, dtype))
        x = place(np.array([[-size, 0, 0, 0], [-size, size, -size, size], [0, 0, 0, 0]], dtype))
        centred = np.array([-3, 1, 1, 1]) / np.sqrt(3), [-1, 1, -1, 1], [0, 0, 0, 0]
        not_centred = [-2, 0, 0, 0], *centred[1:]
        np.testing.assert_allclose(layer_norm(x, one, no, EPSILON)[0], centred, 1e-6)
        np.testing.assert_allclose(rms_norm(x, one, EPSILON)[0], not_centred, 1e-6)


@each_dtype
@each_norm
def test_a_row_without_differences_is_divided_by_the_root_of_epsilon(
    gpu, norm, norm_gradient, dtype
):
    for place in np.asarray, put:
        x = place(np.array([[1e-20, -1e-20, 1e-20, -1e-20], [0, 0, 0, 0]], dtype))
        _, n, s = norm(x, place(np.ones(4, dtype)), place(np.zeros(4, dtype)))
        np.testing.assert_allclose(s, np.full((2, 1), np.sqrt(EPSILON)), 1e-6)
        np.testing.assert_allclose(n, x / np.sqrt(EPSILON), 1e-6)


@each_dtype
@each_norm
@each("J", [1, 31, 65])
def test_a_normalized_row_does_not_depend_on_those_beside_it(gpu, J, norm, norm_gradient, dtype):
    """Nor does a nan or an infinity leave its row."""
    x, g, w, c = rows_to_normalize((7, J), dtype)
    x[2, J // 2], x[4, 0] = np.nan, np.inf
    y, n, s = norm(*map(put, (x, w, c)))
    together = y, n, s, *norm_gradient(put(g), n, s, put(w))
    for row in range(7):
        y, n, s = norm(put(x[row : row + 1]), put(w), put(c))
        alone = y, n, s, *norm_gradient(put(g[row : row + 1]), n, s, put(w))
        for one, those in zip(alone, together, strict=True):
            same_bits(np.asarray(one), np.asarray(those[row : row + 1]))
        assert np.isfinite(alone[0]).all() == (row not in (2, 4))


@each_dtype
@each_norm
def test_rows_are_normalized_in_any_memory_order(gpu, norm, norm_gradient, dtype):
    """And by parameters of another type, as numbers of that of x."""
    x, g, w, c = (put(array) for array in rows_to_normalize((3, 2, 9), dtype))
    w, c = w.round(), c.round()
    y, n, s = norm(x, w, c)
    expected = y, n, s, *norm_gradient(g, n, s, w)
    other = put(w.astype(np.float64)), put(np.repeat(c, 2))[::2]
    for order in (
        lambda a: put(np.asfortranarray(a)),
        lambda a: put(np.repeat(a, 2, axis=-1))[..., ::2],
        lambda a: put(a[::-1])[::-1],
    ):
        y, n, s = norm(order(x), *other)
        assert not order(x).flags.c_contiguous
        found = y, n, s, *norm_gradient(order(g), n, s, other[0])
        for one, those in zip(found, expected, strict=True):
            same_bits(one, those)


# Attention


@pytest.fixture
def watched(gpu, monkeypatch):
    """What is written beside a product is noticed too."""

    def product(a, b):
        y = np.matmul(a, b)
        return put(y) if type(a) is Emulated else y

    monkeypatch.setattr(attention, "product", product)


def whole(shape, dtype, seed):
    """Small whole numbers, whose products are exact."""
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(dtype)


POSITIONS = [(1, 1), (2, 31), (31, 2), (32, 32), (33, 33), (65, 65), (3, 1000)]  # (T, S)
each_positions = each("T, S", POSITIONS)


@each_dtype
@each_positions
@pytest.mark.parametrize("causal", [False, True])
def test_weights_of_attention_on_a_gpu_are_those_of_numpy(watched, causal, T, S, dtype):
    for B, H in (0, 2), (1, 1), (3, 2):
        q, k = whole((B, H, T, 5), dtype, 0), whole((B, H, S, 5), dtype, 1)
        a = attention_weights(put(q), put(k), 0.5, causal)
        assert type(a) is Emulated and a.dtype == dtype and a.shape == (B, H, S, T)
        wide = attention_weights(*(x.astype(WIDER[dtype]) for x in (q, k)), 0.5, causal)
        np.testing.assert_allclose(a, wide, (S / 32 + 60) * np.finfo(dtype).eps)
        if causal:
            assert not np.asarray(a)[..., np.arange(S)[:, np.newaxis] > np.arange(T)].any()


@each_dtype
@each("bad", [np.nan, np.inf, -np.inf])
def test_positions_before_a_key_that_is_no_number_do_not_look_at_it(watched, bad, dtype):
    q, k = whole((2, 2, 40, 3), dtype, 0), whole((2, 2, 40, 3), dtype, 1)
    for at in 0, 7, 33:
        spoilt = k.copy()
        spoilt[:, :, at] = bad
        for place in np.asarray, put:
            expected = np.asarray(attention_weights(place(q), place(k), 0.5, True))
            with np.errstate(invalid="ignore"):
                a = np.asarray(attention_weights(place(q), place(spoilt), 0.5, True))
                those = np.asarray(attention_weights(place(q), place(spoilt), 0.5, False))
            same_bits(a[..., :at], expected[..., :at])
            if np.isnan(bad):
                assert np.isnan(a[..., : at + 1, at:]).all() and np.isnan(those).all()


@each_dtype
@pytest.mark.parametrize("causal", [False, True])
def test_weights_of_large_scores_neither_overflow_nor_vanish(watched, causal, dtype):
    scores = np.array([-1e30, -1e4, 0, 1e4, 1e30], dtype)
    k = np.tile(scores, 20)[np.newaxis, np.newaxis, :, np.newaxis]
    for place in np.asarray, put:
        a = np.asarray(attention_weights(place(np.ones_like(k)), place(k), 1.0, causal))[0, 0]
        seen = np.tri(100, dtype=bool).T if causal else np.ones((100, 100), bool)
        largest = (k[0, 0] == np.where(seen, k[0, 0], -np.inf).max(axis=0)) & seen
        np.testing.assert_allclose(a, largest / largest.sum(axis=0), 1e-6, 0)


@each_dtype
@each_positions
@each("J", [1, 33])
def test_the_gradient_of_scores_on_a_gpu_is_that_of_numpy(watched, J, T, S, dtype):
    """With y as it lies in the value of the node, and the weights as they are made."""
    for B, H in (0, 2), (1, 1), (3, 2):
        v, g = whole((B, H, S, J), dtype, 0), whole((B, H, T, J), dtype, 1)
        a, y = picture((B, H, T, S), dtype, 2), picture((B, T, H, J), dtype, 3)
        there = put(a).swapaxes(2, 3), put(v), put(g), put(y).swapaxes(1, 2)
        d = scores_gradient(*there, 0.3)
        wide = [np.asarray(x).astype(WIDER[dtype]) for x in there]
        expected = scores_gradient(*wide, 0.3)
        assert type(d) is Emulated and d.dtype == dtype and d.shape == (B, H, S, T)
        wide[0] = np.abs(wide[0])
        largest = 10 + np.abs(g * y.swapaxes(1, 2)).sum(axis=3)[:, :, np.newaxis]
        bound = (J + 8) * np.finfo(dtype).eps * wide[0] * (np.abs(v @ g.swapaxes(2, 3)) + largest)
        assert (np.abs(d - expected) <= bound).all()


@each_dtype
def test_rows_of_attention_do_not_depend_on_those_beside_them(watched, dtype):
    B, H, T, S, I = 3, 2, 33, 40, 5
    q, k = whole((B, H, T, I), dtype, 0), whole((B, H, S, I), dtype, 1)
    v, g, y = (
        whole((B, H, S, I), dtype, 2),
        whole((B, H, T, I), dtype, 3),
        picture((B, T, H, I), dtype),
    )
    q, k, v, g, y = map(put, (q, k, v, g, y))

    def both(b):
        a = attention_weights(q[b], k[b], 0.5, True)
        return a, scores_gradient(a, v[b], g[b], y[b].swapaxes(1, 2), 0.5)

    for b in range(B):
        for one, those in zip(both(slice(b, b + 1)), both(slice(None)), strict=True):
            same_bits(np.asarray(one[0]).copy(), np.asarray(those[b]).copy())


@each_dtype
@each("shapes", [[(3, 5, 2, 7)], [(2, 4, 3, 1)] * 4, [(2, 4, 1, 3), (2, 5, 3, 2), (2, 4, 1, 3)]])
def test_indices_change_places_on_a_gpu_as_by_numpy(gpu, shapes, dtype):
    """Of arrays of one shape together, and in any memory order."""
    for B in 0, 1, 33:
        arrays = [picture((B, *shape[1:]), dtype, k) for k, shape in enumerate(shapes)]
        for order in np.asarray, np.asfortranarray, lambda x: np.repeat(x, 2, axis=3)[..., ::2]:
            found = swapped(*[put(order(x)) for x in arrays])
            for one, x in zip(found, arrays, strict=True):
                assert type(one) is Emulated and one.flags.c_contiguous
                same_bits(one, np.ascontiguousarray(x.swapaxes(1, 2)))
    mixed = picture((2, 3, 4, 5), np.float32), picture((2, 3, 4, 5), np.float64)
    for one, x in zip(swapped(*map(put, mixed)), mixed, strict=True):
        same_bits(one, np.ascontiguousarray(x.swapaxes(1, 2)))


# Pieces of a vector, rounded or negated


PIECES = [(0, 1), (1, 31), (40, 255), (300, 256), (556, 257), (3000, 1000)]  # first, size


@pytest.fixture(params=["rounded", "negated"])
def pieces(gpu, request):
    """(vector, pieces, change): Pieces of a vector, and what each of them is to be."""
    vector = put(scores(1, 5000, np.float32)[0])[500:4500]
    if request.param == "rounded":
        return vector, Pieces(vector, operands.cuda.round_pieces, np.uint16), rounded
    return vector, Pieces(vector, operands.cuda.negate_pieces, vector.dtype), np.negative


def test_pieces_of_a_vector_are_changed_as_each_by_itself(pieces):
    """As the vector is when they are made."""
    vector, copies, change = pieces
    parts = [vector[first : first + size].reshape(1, size) for first, size in PIECES]
    parts.append(vector[3000:3960].reshape(30, 32))
    assert [copies.of(x) for x in parts] == [None] * len(parts)
    copies.prepare()
    for _ in range(2):
        vector *= -3
        copies.refresh()
        found = [copies.of(x) for x in parts]
        for x, its in zip(parts, found, strict=True):
            same_bits(its, change(x))
    starts = {(its.data.ptr - copies.copies.data.ptr) // its.itemsize for its in found}
    assert len(starts) == len(parts) and {start % kernels.THREADS for start in starts} == {0}


def test_a_vector_has_copies_of_no_other_pieces_than_were_asked_for_at_first(pieces):
    vector, copies, _ = pieces
    whole = vector.base
    strangers = vector[:0], whole[:500], whole[490:510], whole[4490:4510], whole[4500:]
    copies.prepare()  # nothing was asked for, so it is still asked
    assert [copies.of(x) for x in (*strangers, vector[5:9])] == [None] * 6
    copies.prepare()
    found = copies.of(vector[5:9])
    assert [copies.of(x) for x in (*strangers, vector[5:8], vector[3990:])] == [None] * 7
    copies.prepare()
    assert copies.of(vector[5:9]).data.ptr == found.data.ptr and [*copies.places] == [(5, 4)]


def test_copies_are_found_in_a_block_alone_and_are_those_of_its_beginning(gpu):
    vector, capturing = put(np.arange(8.0)), False
    stream = SimpleNamespace(is_capturing=lambda: capturing)
    gemm = SimpleNamespace(bindings=SimpleNamespace(stream=stream), reused=None)
    block = Reused(vector, gemm)
    capturing = True  # nothing can be brought to the GPU
    with block:
        assert gemm.reused.negated.of(vector[2:4]) is None
    assert block.negated.copies is None and gemm.reused is None
    capturing = False
    with pytest.raises(ZeroDivisionError), block:
        raise ZeroDivisionError
    assert block.negated.copies is None and gemm.reused is None
    with block:
        pass
    vector += 1
    with block:
        assert gemm.reused.negated.of(vector[2:4]).tolist() == [-3, -4]
    assert gemm.reused is None
