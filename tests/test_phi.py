"""Phi: one vector, its names and its initial values."""

import hashlib

import numpy as np
import pytest

from dpedf.edf import SGD, Backward, Forward, Input, Package, Parameter
from dpedf.ops import Affine, Sigmoid, Square
from dpedf.phi import Phi, Uniform, dense, glorot, he


def perceptron(*sizes, bound=glorot):
    """ell of Affine and Sigmoid layers of these sizes."""
    x = Input()
    x.value = np.ones((2, sizes[0]), np.float32)
    for I, J in zip(sizes, sizes[1:], strict=False):
        x = Sigmoid(Affine(dense(I, J, bound), x))
    return x


def values(phi):
    return {p.name: p.value for p in phi.parameters}


def test_parameters_are_views_of_phi_in_program_order():
    phi = Phi(perceptron(3, 4, 2))
    assert phi.value.dtype == phi.grad.dtype == np.float32
    phi.value[...] = np.arange(26)
    expected = {
        "Phi1.w": np.arange(12).reshape(3, 4),
        "Phi1.b": np.arange(12, 16),
        "Phi2.w": np.arange(16, 24).reshape(4, 2),
        "Phi2.b": np.arange(24, 26),
    }
    assert [*values(phi)] == [*expected]
    assert phi.offsets == [0, 12, 16, 24, 26]
    for p in phi.parameters:
        assert np.array_equal(p.value, expected[p.name])
        p.value += 100
    assert np.array_equal(phi.value, np.arange(26) + 100)


def test_gradients_are_views_of_one_vector_too():
    ell = perceptron(3, 4, 2)
    phi = Phi(ell)
    Forward(ell)
    Backward(ell, 2)
    assert np.array_equal(phi.grad, np.concatenate([p.grad.ravel() for p in phi.parameters]))
    before, others = phi.grad.copy(), np.full_like(phi.grad, np.nan, shape=(2, len(phi.grad)))
    phi.differentiate_into(others)
    phi.value += 1
    Forward(ell)
    Backward(ell, 2)
    assert np.shares_memory(phi.grad, others[0]) and np.isfinite(phi.grad).all()
    assert not np.array_equal(phi.grad, before) and np.isnan(others[1]).all()
    for p, view in zip(phi.parameters, phi.views(others), strict=True):
        assert np.array_equal(p.grad, view[0]) and view.shape == (2, *p.value.shape)


def test_sgd_moves_phi_as_one_parameter():
    ell = perceptron(3, 4, 2)
    phi = Phi(ell)
    Forward(ell)
    Backward(ell, 2)
    expected = [p.value - np.float32(0.5) * p.grad for p in phi.parameters]
    SGD([phi], 0.5)
    for p, value in zip(phi.parameters, expected, strict=True):
        assert np.array_equal(p.value, value)


def test_initial_values_do_not_depend_on_what_comes_after():
    short, long = values(Phi(perceptron(3, 4, 2))), values(Phi(perceptron(3, 4, 2, 5)))
    for name, value in short.items():
        assert np.array_equal(value, long[name])


def test_initial_values_depend_on_the_name_alone():
    def start(name, x):
        return values(Phi(Affine(dense(4, 5, name=name), x)))[f"{name}.w"]

    assert np.array_equal(start("head", Input()), start("head", perceptron(3, 4)))
    assert not np.array_equal(start("head", Input()), start("tail", Input()))


def test_initial_values_depend_on_the_seed():
    ell = perceptron(3, 4, 2)
    first, again, other = (Phi(ell, seed).sha256() for seed in (0, 0, 1))
    assert first == again != other


def test_no_two_parameters_start_the_same():
    weights = values(Phi(perceptron(4, 4, 4, 4), dtype=np.float64))
    drawn = np.concatenate([w.ravel() for name, w in weights.items() if name.endswith("w")])
    assert len(np.unique(drawn)) == 48


def test_float32_values_are_the_rounded_float64_ones():
    ell = perceptron(3, 4, 2)
    single, double = Phi(ell, dtype=np.float32).value, Phi(ell, dtype=np.float64).value
    assert single.dtype == np.float32 and double.dtype == np.float64
    assert np.array_equal(single, double.astype(np.float32))
    assert not np.array_equal(single, double)


@pytest.mark.parametrize("bound, expected", [(glorot, 6 / (300 + 200)), (he, 6 / 300)])
def test_weights_are_uniform_within_the_bound_and_biases_zero(bound, expected):
    assert bound(300, 200) == pytest.approx(expected**0.5)
    w, b = values(Phi(perceptron(300, 200, bound=bound), dtype=np.float64)).values()
    assert abs(w).max() < expected**0.5
    shares, edges = np.histogram(w / expected**0.5, 20, (-1, 1))
    np.testing.assert_allclose(shares / w.size, 1 / 20, rtol=0.1)
    assert not b.any()


def test_affine_draws_within_the_bound_of_glorot_unless_told():
    P = dense(300, 200)
    assert P.w.bound == glorot(300, 200) and P.w.value.shape == (300, 200)
    assert P.b.value.shape == (200,) and type(P.b) is Parameter
    assert dense(300, 200, he).w.bound == he(300, 200)


def test_a_parameter_with_a_value_keeps_it():
    p, q = Parameter(np.array([1.5, 2.5])), Uniform((2,), 1.0)
    phi = Phi(p * q)
    assert np.array_equal(phi.value[:2], [1.5, 2.5])
    assert phi.value[2:].all()


def test_sha256_is_that_of_the_bytes_of_all_parameters():
    phi = Phi(perceptron(3, 4, 2))
    sha256 = hashlib.sha256()
    for p in phi.parameters:
        sha256.update(np.ascontiguousarray(p.value).tobytes())
    assert phi.sha256() == sha256.hexdigest()
    before = phi.sha256()
    phi.value[-1] = np.nextafter(phi.value[-1], np.float32(1))
    assert phi.sha256() != before


def test_two_parameters_of_one_name_are_refused():
    ell = Affine(dense(3, 3, name="same"), Affine(dense(3, 3, name="same"), Input()))
    with pytest.raises(ValueError, match=r"two parameters are named same\.w, expected a name"):
        Phi(ell)


def test_a_name_that_is_given_may_not_be_that_of_another_by_count():
    first, second = dense(3, 3), dense(3, 3, name="Phi1")
    with pytest.raises(ValueError, match=r"two parameters are named Phi1\.w"):
        Phi(Affine(second, Affine(first, Input())))


def test_a_parameter_outside_of_packages_is_named_like_one():
    p, q = Parameter(np.ones(2)), Package(w=Parameter(np.ones(2)))
    assert [r.name for r in Phi(q.w * p).parameters] == ["Phi2.w", "Phi1"]


def test_a_loss_without_parameters_has_an_empty_phi():
    phi = Phi(Square(Input()))
    assert phi.value.shape == phi.grad.shape == (0,) and phi.parameters == []
