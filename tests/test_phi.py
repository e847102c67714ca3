"""Phi: one vector, its names and its initial values."""

import copy
import hashlib
import pickle

import numpy as np
import pytest

from dpedf.edf import SGD, Backward, Forward, Input, Package, Parameter
from dpedf.ops import Affine, Sigmoid, Square, Sum
from dpedf.optim import Adam, Momentum, RMSProp
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


@pytest.mark.parametrize("Rule", [Momentum, Adam, RMSProp])
def test_an_update_of_a_phi_that_lost_a_parameter_is_refused(Rule):
    ell = perceptron(3, 4, 2)
    old = Rule(Phi(ell))
    old(0.1, 0)
    now = Rule(Phi(ell))
    with pytest.raises(ValueError, match=r"Phi1.w.value is no part of this Phi any more"):
        old(0.1, 1)
    now(0.1, 0)
    now.phi.parameters[3].value = np.zeros(2, np.float32)
    with pytest.raises(ValueError, match=r"expected .* and Phi2.b.value\[...\] = ..."):
        now(0.1, 1)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_phi_is_not_copied_since_parameters_would_be_no_views_of_the_copy(copied):
    ell = perceptron(3, 4, 2)
    phi = Phi(ell)
    with pytest.raises(TypeError, match="Phi cannot be copied"):
        copied((ell, phi)) if copied is not copy.copy else copied(phi)
    again = Phi(copy.deepcopy(ell))  # of the copied loss there may be another one
    again.value += 1
    np.testing.assert_array_equal(again.value, phi.value + 1)


def test_a_parameter_that_does_not_vary_is_kept_beside_phi_under_its_name_and_value():
    def made(varies):
        P, x = dense(3, 3, name="head"), Input()
        P.w.varies, x.value = varies, np.ones((2, 3), np.float32)
        ell = Sum(Affine(dense(3, 3), Affine(P, x)))
        return ell, Phi(ell, 5), P

    _, whole, its = made(True)
    ell, phi, P = made(False)
    assert [p.name for p in phi.parameters] == ["head.b", "Phi2.w", "Phi2.b"]
    assert phi.state == {"head.w": P.w.value} and P.w.value.dtype == np.float32
    assert np.array_equal(P.w.value, its.w.value) and whole.state == {}
    before = P.w.value.copy()
    for _ in range(3):
        Forward(ell)
        Backward(ell)
        SGD([phi], 0.5)
    assert np.array_equal(P.w.value, before) and not P.w.grad.any()
    assert not np.array_equal(P.b.value, its.b.value)


def test_no_backward_runs_below_the_last_parameter_that_does_not_vary():
    x = Input((3,))
    first, second = (Affine(P, x) for P in (dense(3, 3), dense(3, 3)))
    second.x = first
    first.Phi.w.varies = first.Phi.b.varies = False
    ell = Sum(second)
    Phi(ell)
    x.value = np.ones((2, 3), np.float32)
    first.backward = lambda: pytest.fail("for nobody")
    Forward(ell)
    Backward(ell)
    assert second.Phi.w.grad.any() and first.grad is None


def test_a_parameter_has_an_array_of_its_own():
    z = np.zeros(3)
    a, b = Parameter(z), Parameter(z)
    x = Input()
    x.value = np.full((1, 3), 5.0)
    ell = Sum(x * a + b)
    Forward(ell)
    Backward(ell)
    SGD([a, b], 1)
    assert (a.value == -5).all() and (b.value == -1).all() and (z == 0).all()


@pytest.mark.parametrize("values", [2, 2.0, [1, 2], [[0.5]], np.arange(3), np.float32(1)])
def test_a_parameter_may_be_made_of_numbers(values):
    p = Parameter(values)
    dtype = np.float32 if isinstance(values, np.float32) else np.float64
    assert p.value.dtype == p.grad.dtype == dtype and p.grad.shape == p.value.shape
    np.testing.assert_array_equal(p.value, values)


@pytest.mark.parametrize("values", [np.ones(2, complex), ["a"], np.array(["b"])])
def test_a_parameter_of_no_real_numbers_is_refused(values):
    with pytest.raises(ValueError, match="expected floats"):
        Parameter(values)
