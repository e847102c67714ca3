"""The program as source code: its lines, in which order they run, and what they cost."""

import re
import shutil
from collections import Counter

import numpy as np
import pytest
from conftest import ROOT
from evaluator import Evaluator
from test_ops import CASES, nodes_of_the_package

from dpedf.device import CPU
from dpedf.edf import (
    Backward,
    CompNode,
    CompNodes,
    Forward,
    Input,
    Package,
    Parameter,
    Parameters,
    program,
)
from dpedf.kernels.slices import Slices
from dpedf.kernels.sum_over_rows import SumOverRows, SumOverSlices
from dpedf.models import mlp
from dpedf.ops import (
    Affine,
    Attention,
    AveragePool,
    AveragePool1D,
    BatchNorm,
    Concat,
    Conv1D,
    Conv2D,
    Einsum,
    Embedding,
    Flatten,
    GlobalAveragePool,
    LayerNorm,
    LogLoss,
    LogSumExp,
    LSTMCell,
    MatMul,
    MaxPool,
    MaxPool1D,
    Mean,
    Pad,
    Relu,
    Reshape,
    Sigmoid,
    Slice,
    Softmax,
    Sqrt,
    SquareLoss,
    Stack,
    Sum,
    Tanh,
    Transpose,
)
from dpedf.parallel.gradient import Gradient
from dpedf.parallel.ranks import Ranks
from dpedf.phi import Phi
from dpedf.program import during
from dpedf.run import config
from dpedf.source import grammar
from dpedf.source.listing import listing, naming, page, scaled
from dpedf.source.statements import statements as statements_of
from dpedf.source.statements import update
from dpedf.tools.source import ADDING, Stopwatch, Training, show


@pytest.fixture
def digits(digits, tmp_path_factory):
    """A copy, since the steps of these tests keep it open, without the locks that others want."""
    return shutil.copy(digits, tmp_path_factory.mktemp("digits"))


def classifier(sizes, B=6):
    """(ell, x, y) of an MLP that has seen B rows."""
    x, y = Input((sizes[0],), np.float64), Input((), np.intp, sizes[-1])
    x.value, y.value = np.ones((B, sizes[0])), np.arange(B) % sizes[-1]
    Q, ell = mlp(x, y, sizes)
    Phi(ell, dtype=np.float64)
    Forward(ell)
    return ell, x, y


def statements(ell, slices=1, **named):
    return [*statements_of(ell, naming(ell, **named), slices)]


def test_the_program_of_the_slide_of_cmu_has_its_three_statements():
    """W. Cohen, CMU 10-405, "Automatic differentiation": z1 = add(x1,x1), z2 = add(z1,x2), ..."""
    for kind in Input, lambda: Parameter(np.ones(3)):
        x1, x2 = kind(), kind()
        f = (x1 + x1 + x2) ** 2
        lines = listing(f, x1=x1, x2=x2, f=f).splitlines()
        assert lines[:3] == ["z1 = x1 + x1", "z2 = z1 + x2", "f = z2**2"]


def test_the_program_of_mcallesters_slide_has_its_four_statements():
    x, y = Input(), Input()
    u, v = x**2, y**2
    r = u + v
    f = Sqrt(r)
    expected = ["u = x**2", "v = y**2", "r = u + v", "f = sqrt(r)"]
    assert listing(f, x=x, y=y, u=u, v=v, r=r, f=f).splitlines() == expected


def test_backward_adds_in_reverse_order_and_twice_to_what_is_used_twice():
    x1, x2 = Parameter(np.ones(3)), Parameter(np.ones(3))
    f = (x1 + x1 + x2) ** 2
    assert listing(f, x1=x1, x2=x2, f=f).splitlines()[3:] == [
        "f.grad = 1/B",
        "z2.grad += 2 z2 f.grad",
        "z1.grad += z2.grad",
        "x2.grad += z2.grad",
        "x1.grad += z1.grad",
        "x1.grad += z1.grad",
    ]


def test_a_classifier_reads_as_on_the_slides():
    ell, x, y = classifier([4, 5, 3])
    assert listing(ell, x=x, y=y).splitlines() == [
        "z1[b,j] = sum_i x[b,i] Phi1.w[i,j] - Phi1.b[j]",
        "z2 = max(z1, 0)",
        "z3[b,j] = sum_i z2[b,i] Phi2.w[i,j] - Phi2.b[j]",
        "z4[b,j] = exp(z3[b,j]) / z4.Z[b]",
        "    z4.Z[b] = sum_j exp(z3[b,j])",
        "ell[b] = log(z4.Z[b]) - z3[b,y[b]]",
        "ell.grad = 1/B",
        "z3.grad[b,j] += ell.grad[b] (z4[b,j] - [j = y[b]])",
        "z2.grad[b,i] += sum_j z3.grad[b,j] Phi2.w[i,j]",
        "Phi2.w.grad[i,j] += sum_b z2[b,i] z3.grad[b,j]",
        "Phi2.b.grad[j] -= sum_b z3.grad[b,j]",
        "z1.grad += z2.grad [z1 > 0]",
        "Phi1.w.grad[i,j] += sum_b x[b,i] z1.grad[b,j]",
        "Phi1.b.grad[j] -= sum_b z1.grad[b,j]",
    ]


def test_a_log_loss_of_what_is_no_softmax_sends_its_gradient_to_q():
    Q, p, y = Input(), Parameter(np.ones(3)), Input()
    Q.value, y.value = np.ones((2, 3)), np.zeros(2, int)
    ell = LogLoss(Q * p, y)
    Forward(ell)
    lines = listing(ell, Q=Q, y=y, p=p).splitlines()
    assert lines[1:3] == ["z2 = log(z1)", "ell[b] = -z2[b,y[b]]"]
    assert lines[4:6] == ["z2.grad[b,y[b]] -= ell.grad[b]", "z1.grad += z2.grad / z1"]


def test_what_broadcasts_gets_indices_and_its_gradient_a_sum_over_those_it_lacks():
    x, p = Input(), Parameter(np.ones(3))
    x.value = np.ones((4, 3))
    ell = SquareLoss(Tanh(x * p), Tanh(p * 2 - x))
    Forward(ell)
    lines = listing(ell, x=x, p=p).splitlines()
    assert lines[0] == "z1[b,i] = x[b,i] p[i]"
    assert "z3 = 2 p" in lines and "z4[b,i] = z3[i] - x[b,i]" in lines
    assert "p.grad[i] += sum_b z1.grad[b,i] x[b,i]" in lines
    assert "p.grad += 2 z3.grad" in lines


def test_a_matrix_product_shows_the_indices_that_its_operands_have():
    x, W, v = Input(), Parameter(np.ones((3, 3))), Parameter(np.ones(3))
    x.value = np.ones((4, 2, 3))
    ell = SquareLoss(x @ W @ v, x @ v)
    Forward(ell)
    lines = listing(ell, x=x, W=W, v=v).splitlines()
    assert lines[:2] == ["z1[b,i,j] = sum_k x[b,i,k] W[k,j]", "z2[b,i] = sum_k z1[b,i,k] v[k]"]
    assert "v.grad[k] += sum_b,i z1[b,i,k] z2.grad[b,i]" in lines


class Plain(CompNode):
    """A node that says nothing of its equation."""

    def __init__(self, x, w):
        self.x, self.w = x, w

    def forward(self):
        self.value = self.x.value * self.w.value

    def backward(self):
        self.w.addgrad(self.grad * self.x.value)


class Half(Plain):
    """y = x w, forward alone"""


def test_a_part_and_a_transposed_matrix_are_shown_with_their_indices():
    x, W = Input((5, 8)), Parameter(np.zeros((3, 4)))
    ell = Sum(Slice(x, (2, slice(4, None))) @ Transpose(W))
    lines = listing(ell, x=x, W=W)
    assert "[b,i] = x[b,2,4+i]" in lines and "[i,j] = W[j,i]" in lines
    assert "W.grad[j,i] += z2.grad[i,j]" in lines
    several = Sum(Transpose(Slice(x, slice(1, 4, 2))))
    lines = listing(several, x=x)
    assert "[b,i,j] = x[b,1+2 i,j]" in lines and "[b,i,j] = z1[b,j,i]" in lines


def test_a_node_without_equations_is_shown_by_name():
    x, w = Input(), Parameter(np.ones(3))
    x.value = np.ones((2, 3))
    for node, line in (Plain, "z1 = Plain(x, w)"), (Half, "z1 = x w"):
        ell = SquareLoss(node(x, w), x)
        Forward(ell)
        lines = listing(ell, x=x, w=w).splitlines()
        assert lines[0].replace("[b,i]", "").replace("[i]", "") == line
        assert lines[-1] == f"w.grad += {node.__name__}'s"


@pytest.mark.parametrize(
    "right",
    [
        "x[b,i,j] w[i]",
        "x[b] w[i]",
        "w[i] sum_k x[b,i]",
        "n[b] w[i]\n\nn[b,i] = x[b,i]",
    ],
)
def test_equations_of_values_with_other_indices_are_not_shown(right):
    x, w = Input(), Parameter(np.ones(3))
    x.value = np.ones((2, 3))
    n = Plain(x, w)
    n.__doc__ = f"y[b,i] = {right}"
    Forward(n)
    assert listing(n, x=x, w=w).splitlines()[0] == "ell = Plain(x, w)"


def test_what_has_no_name_gets_one_and_no_two_have_the_same(refused):
    x1, other = Input(), Input()
    assert listing(x1 + other, x1=other) == "ell = x2 + x1"
    with refused("two things are named z1", "expected a name for each"):
        listing((x1 + other) + x1, z1=x1)
    with refused("x = 3", "expected a node"):
        listing(x1 + other, x=3)


def cases_of(node):
    """Programs of a node of the package that have run, in training and not."""
    for case in (case for case in CASES if case.node is node):
        for train in False, True:
            ell, leaves = case.program(3)
            Forward(ell, train=train)
            yield ell


def added_by(n, ell):
    """{node: what backward of one node adds to its gradient}."""
    nodes = [i for i in (*CompNodes(ell), *Parameters(ell)) if i is not n]
    for i in nodes:
        i.grad, i.owns_grad = None, False
    for i in program(ell).summed:
        i.sum_over_rows = SumOverRows(i.value)
    n.backward()
    return {i: i.sum_over_rows.so_far()[0] if i.sum_over_rows else i.own_grad() for i in nodes}


def compare(n, ell):
    """AssertionError: the equations of a node are not what it computes, forward and backward."""
    said, near = Evaluator(ell), dict(rtol=1e-9, atol=1e-12)
    assert n in said.values, f"{type(n).__name__}: expected a docstring with equations"
    for value in said.forward(n):
        np.testing.assert_allclose(value, n.value, **near)
    n.grad = np.random.default_rng(0).normal(size=n.value.shape)
    expected = said.backward(n)
    for i, added in added_by(n, ell).items():
        np.testing.assert_allclose(expected.get(i, 0.0 * added), added, **near)


@pytest.mark.parametrize("node", [*nodes_of_the_package()])
def test_the_equations_of_every_node_are_what_it_computes(node):
    for ell in cases_of(node):
        for n in (n for n in CompNodes(ell) if type(n) is node):
            compare(n, ell)


# Their docstring shows the general form; equations() writes that of the arguments, which is read.
GENERAL = {
    *(Concat, Einsum, Flatten, LogSumExp, MatMul, Mean, Pad, Reshape, Slice, Stack, Sum, Transpose),
    *(Conv1D, Conv2D, AveragePool, AveragePool1D, GlobalAveragePool, MaxPool, MaxPool1D),
}


def test_of_other_nodes_the_docstring_itself_is_read():
    nodes = [param.values[0] for param in nodes_of_the_package()]
    assert {node for node in nodes if hasattr(node, "equations")} == GENERAL


@pytest.mark.parametrize(
    ("node", "right", "wrong"),
    [
        (Affine, "- C[j]", "+ C[j]"),
        (Attention, "/ sqrt(I) + causal", "+ causal"),
        (Attention, "causal log([s <= t]))\n    I", "causal log([s >= t]))\n    I"),
        (Attention, "e[b,h,s,t] + causal log([s <= t]) + log(looks[b,t,s])", "e[b,h,s,t]"),
        (Attention, "v.grad[b,s,J g + j] += sum_n,t", "v.grad[b,s,J g + j] += 2 sum_n,t"),
        (Attention, "d[b,h,s,t] q[b,t,I h + i]", "d[b,h,s,t] q[b,t,i]"),
        (LayerNorm, "mean_k h[b,...,k] n[b,...,k]", "mean_k h[b,...,k] n[b,...,j]"),
        (LayerNorm, "+ epsilon", "- epsilon"),
        (LSTMCell, "d[b,2J+j] = y.grad[b,J+j]", "d[b,2J+j] = y.grad[b,j]"),
        (LSTMCell, "c[b,j] i[b,j] (1 - g", "c[b,j] i[b,j] (1 + g"),
        (LogLoss, "(Q[b,...,j] - [j", "(Q[b,...,j] + [j"),
        (LogLoss, "s[b,...,y[b,...]]) / N[b]", "s[b,...,0]) / N[b]"),
        (Sigmoid, "y = 1 / (1 + exp(-x))", "y = 1 / (1 + exp(x))"),
    ],
)
def test_a_wrong_equation_is_noticed(node, right, wrong):
    """A factor, a sign or an index, in one of its equations."""
    assert node.__doc__.count(right) == 1
    with pytest.raises(AssertionError):
        for ell in cases_of(node):
            for n in (n for n in CompNodes(ell) if type(n) is node):
                n.__doc__ = node.__doc__.replace(right, wrong)
                compare(n, ell)


@pytest.mark.parametrize("node", [*nodes_of_the_package()])
def test_every_node_of_the_package_has_statements_with_costs(node):
    for ell in cases_of(node):
        for s in statements(ell):
            if type(s.node) is node and s.node.value.size:
                assert s.operations is not None and s.bytes >= 8, s.text


def recorded(ell):
    """(node, target) of each time that a node's backward adds to a gradient, as it runs."""
    found, running = [], [ell]

    def watch(thing, name, before, after=lambda: None):
        method = getattr(thing, name)

        def call(*args):
            before()
            result = method(*args)
            after()
            return result

        setattr(thing, name, call)

    def note(target):
        if running[-1]:  # a node's backward, and not the program
            found.append((running[-1], target))

    for n in CompNodes(ell):
        watch(n, "backward", lambda n=n: running.append(n), lambda: running.append(None))
    for t in (*CompNodes(ell), *Parameters(ell)):
        for name in ADDING:
            watch(t, name, lambda t=t: note(t))
    Backward(ell)
    return found


def without_repeats(pairs):
    return [pair for pair, before in zip(pairs, [None, *pairs], strict=False) if pair != before]


@pytest.mark.parametrize("node", [*nodes_of_the_package()])
def test_statements_are_in_the_order_in_which_they_run(node):
    for ell in cases_of(node):
        expected = [(s.node, s.target) for s in statements(ell) if s.target]
        assert without_repeats(recorded(ell)) == without_repeats(expected)


@pytest.mark.parametrize("sizes", [[7, 3], [7, 5, 3], [7, 11, 5, 3]])
def test_the_operations_of_an_mlp_are_those_of_its_formula(sizes):
    B = 6
    ell, x, y = classifier(sizes, B)
    found, hidden = Counter(), sum(sizes[1:-1])
    for s in statements(ell, x=x, y=y):
        found[type(s.node).__name__, bool(s.target)] += s.operations
    layers = list(zip(sizes, sizes[1:], strict=False))
    biases = B * sum(sizes[1:])
    products = 2 * B * sum(I * J for I, J in layers)
    first = 2 * B * sizes[0] * sizes[1]
    assert found["Affine", False] == products + biases
    assert found["Affine", True] == 2 * products - first + biases
    assert found["Relu", False] == B * hidden and found["Relu", True] == 2 * B * hidden


def test_bytes_are_those_of_operands_and_results_as_far_as_indices_reach():
    ell, x, y = classifier([7, 5, 3], 6)
    found = {s.text.split(" ")[0]: s.bytes for s in statements(ell, x=x, y=y)}
    assert found["z1[b,j]"] == 8 * (6 * 7 + 7 * 5 + 5 + 6 * 5)
    assert found["z2"] == 8 * 2 * 6 * 5
    assert found["ell[b]"] == 8 * (6 + 6 + 6)  # ell, one score a row, labels
    assert found["Phi1.w.grad[i,j]"] == 8 * (6 * 7 + 6 * 5 + 7 * 5)


def test_what_is_added_to_a_gradient_that_is_there_costs_an_addition():
    x = Parameter(np.ones(5))
    y = Tanh(x)
    ell = SquareLoss(Relu(y), Relu(y))
    Forward(ell)
    first, again = [s for s in statements(ell) if s.target is y]
    assert (first.operations, again.operations) == (10, 15)
    assert again.bytes == first.bytes + y.value.nbytes


def test_the_costs_of_a_node_without_equations_are_not_known():
    x, w = Input(), Parameter(np.ones(3))
    x.value = np.ones((2, 3))
    ell = Sum(Plain(Plain(x, w), w))
    Forward(ell)
    found = [s for s in statements(ell, 2, w=w) if isinstance(s.node, Plain)]
    assert {(s.bytes, s.operations) for s in found} == {(None, None)}
    w_grad = "w.grad += Plain's, x 2 slices"
    assert [s.text for s in found if s.target] == ["z1.grad += Plain's", w_grad, w_grad]


# slices


def sliced(ell, **named):
    """The lines of a program of three slices that say that they are done slice by slice."""
    lines = [line for s in statements(ell, 3, **named) for line in (s.text, *s.steps)]
    return [line.removesuffix(", x 3 slices") for line in lines if ", x 3 slices" in line]


def test_products_and_sums_of_rows_are_done_slice_by_slice_and_nothing_else():
    ell, x, y = classifier([4, 5, 3])
    assert sliced(ell, x=x, y=y) == [
        "z1[b,j] = sum_i x[b,i] Phi1.w[i,j] - Phi1.b[j]",
        "z3[b,j] = sum_i z2[b,i] Phi2.w[i,j] - Phi2.b[j]",
        "z2.grad[b,i] += sum_j z3.grad[b,j] Phi2.w[i,j]",
        "Phi2.w.grad[i,j] += sum_b z2[b,i] z3.grad[b,j]",
        "Phi2.b.grad[j] -= sum_b z3.grad[b,j]",
        "Phi1.w.grad[i,j] += sum_b x[b,i] z1.grad[b,j]",
        "Phi1.b.grad[j] -= sum_b z1.grad[b,j]",
    ]


@pytest.mark.parametrize(
    ("make", "shape", "expected"),
    [
        (lambda x, p: x * p, 3, ["p.grad[i]"]),
        (lambda x, p: x @ p, 3, ["z1[b]", "p.grad[k]"]),
        (lambda x, p: Tanh(x * 2 - p) @ p, 3, ["z4[b]", "p.grad[k]", "p.grad[i]"]),
        (lambda x, p: Einsum("bi,ij->bj", x, p), (3, 2), ["z1[b,j]", "p.grad[i,j]"]),
        (lambda x, p: p @ x, (2, 3), ["p.grad[i,k]"]),  # where each row is a product of its own
        (lambda x, p: x @ Transpose(p), (2, 3), ["z2[b,j]", "z1.grad[k,j]", "p.grad[j,i]"]),
        (lambda x, p: x - p * p, 3, ["z1.grad[i]", "p.grad", "p.grad"]),
        (Plain, 3, ["p.grad"]),
    ],
)
def test_where_a_parameter_meets_rows_lines_say_slices(make, shape, expected):
    x, p = Input(), Parameter(np.ones(shape))
    x.value = np.ones((6, 3))
    ell = Sum(make(x, p))
    Forward(ell)
    assert [line.split(" ")[0] for line in sliced(ell, x=x, p=p)] == expected


def test_the_statistics_of_batch_norm_are_done_slice_by_slice_where_it_learns():
    x, Phi1 = Input(), Package(w=Parameter(np.ones(3)), b=Parameter(np.ones(3)))
    x.value = np.ones((6, 3))
    z = BatchNorm(Phi1, x * Parameter(np.ones(3)))
    ell = Sum(z)
    for train, expected in (False, []), (True, ["z.m[j]", "z.s[j]", "z.p[j]", "z.q[j]"]):
        Forward(ell, train)
        found = [line.split(" ")[0] for line in sliced(ell, x=x, z=z)]
        statistics = [name for name in found if name.startswith("z.") and "grad" not in name]
        assert statistics[: len(expected)] == expected and z.learns == train
        assert train or not {"z.m[j]", "z.s[j]"} & {*found}


# Einsum cuts whatever it computes, MatMul also what is no sum, x.grad[b,k] += z.grad[b] y[k], the
# convolutions also groups, and BatchNorm, where it does not learn, for its parameters' gradients.
CUT_MORE = {Einsum, MatMul, Conv1D, Conv2D, BatchNorm}


class Watched(Slices):
    """Three slices, which note that somebody cuts rows."""

    def __init__(self):
        super().__init__([0, 1, 2, 3], 3 * [(0, ())])

    def cut(self, *arrays):
        self.were_used = True
        return super().cut(*arrays)

    def rows(self, *arguments):
        self.were_used = True
        return super().rows(*arguments)

    def used_in(self, method, train):
        self.were_used = False
        with during(slices=self, train=train):
            method()
        return self.were_used


@pytest.mark.parametrize("node", [*nodes_of_the_package()])
def test_what_says_slices_is_what_cuts_rows(node):
    """Of values and gradients with b: all that adds to a gradient without b says so."""
    slices = Watched()
    for ell in cases_of(node):
        said = statements(ell, 3)
        for n in (n for n in CompNodes(ell) if type(n) is node and n.batched):
            of = [s for s in said if s.node is n and (s.target is None or s.target.batched)]
            for method, made in (
                (n.forward, [s for s in of if not s.target]),
                (n.backward, [s for s in of if s.target]),
            ):
                for i in program(ell).summed:
                    i.sum_over_rows = None
                n.grad = np.ones_like(n.value)
                says = any("x 3 slices" in line for s in made for line in (s.text, *s.steps))
                used = bool(made) and slices.used_in(method, program(ell).facts["train"])
                assert used if says else not used or node in CUT_MORE


def test_a_slice_reads_and_writes_by_itself_what_has_no_b():
    ell, x, y = classifier([7, 5, 3], 6)
    whole, found = ({s.text.split(" ")[0]: s for s in statements(ell, V, x=x, y=y)} for V in (1, 3))
    w, b, rows = 7 * 5, 5, 6
    assert found["z1[b,j]"].bytes == 8 * (rows * 7 + 3 * (w + b) + rows * 5)
    assert found["z1[b,j]"].operations == whole["z1[b,j]"].operations
    assert found["z2"].bytes == whole["z2"].bytes
    tree = 3 * 2 * w  # two additions, each of which reads two parts and writes one
    assert found["Phi1.w.grad[i,j]"].bytes == 8 * (rows * 7 + rows * 5 + 3 * w + tree)
    assert found["Phi1.w.grad[i,j]"].operations == 2 * rows * w + 2 * w


def test_the_slices_of_a_parameter_are_added_once_after_all_its_uses():
    x, p = Input((3,)), Parameter(np.ones((3, 3)))
    x.value = np.ones((6, 3))
    ell = Sum(Tanh(x @ p) @ p)
    Forward(ell)
    first, last = [s for s in statements(ell, 4) if s.target is p]
    size, rows = p.value.size, x.value.size
    assert (first.operations, last.operations) == (2 * 6 * size, 2 * 6 * size + 4 * size + 3 * size)
    assert first.bytes == 8 * (2 * rows + 4 * size)
    assert last.bytes == 8 * (2 * rows + 2 * 4 * size + 3 * 3 * size)


def test_an_embedding_writes_a_gradient_for_each_slice():
    x, W = Input((), np.intp, 5), Parameter(np.ones((5, 2)))
    x.value = np.arange(40) % 5
    ell = Sum(Embedding(W, x))
    Forward(ell)
    value, gradient = [s for s in statements(ell, 4) if isinstance(s.node, Embedding)]
    assert value.bytes == 8 * (40 + 10 + 80)
    assert gradient.text.endswith(", x 4 slices")
    assert gradient.bytes == 8 * (40 + 80 + 4 * 10 + 3 * 3 * 10)


def test_what_has_no_b_is_differentiated_for_each_slice():
    x, p = Input((3,)), Parameter(np.ones((3, 3)))
    x.value = np.ones((6, 3))
    z = Tanh(p)
    ell = Sum(x @ z)
    Forward(ell)
    found = statements(ell, 4)
    value, gradient = [s for s in found if s.node is z]
    assert (value.operations, gradient.operations) == (9, 4 * 3 * 9 + 3 * 9)
    (product,) = [s for s in found if s.target is z]  # of which no slices are added
    assert (product.bytes, product.operations) == (8 * (18 + 18 + 4 * 9), 2 * 6 * 9)


def test_rows_that_windows_share_are_read_once_in_all_slices():
    x, w, c = Input((1, 6, 6)), Parameter(np.ones((1, 1, 3, 3))), Parameter(np.ones(1))
    x.value = np.ones((8, 1, 6, 6))
    ell = Sum(Conv2D(Package(w=w, b=c), x))
    Forward(ell)
    assert statements(ell, 4)[0].bytes == 8 * (8 * 36 + 4 * (9 + 1) + 8 * 16)


def equations(docstring):
    return [e for _, found in grammar.sections(docstring) for e in found]


@pytest.mark.parametrize(
    ("text", "sizes", "operations", "left"),
    [
        ("z[b,j] = sum_i x[b,i] W[i,j] - C[j]", {"b": 2, "i": 3, "j": 5}, 60 + 10, ["b", "j"]),
        ("z = sum_i,j x[i] y[j]", {"i": 3, "j": 5}, 30, []),
        ("z[j] = exp(s[j]) / Z", {"j": 4}, 8, ["j"]),
        ("z[i] = a[i] (b[i] + c[i])**2", {"i": 2}, 6, ["i"]),
        ("z[i] = [x[i] > 0] / -2", {"i": 3}, 6, ["i"]),
        ("z[b,j] = W[x[b],j + 1]", {"b": 2, "j": 3}, 0, ["b", "j"]),
    ],
)
def test_operations_are_counted_for_all_values_of_their_letters(text, sizes, operations, left):
    (e,) = equations(text)
    found = e.right.operations(sizes), [*e.right.letters()]
    assert found == (operations, left)


@pytest.mark.parametrize(
    "text",
    [
        "y[b,j] = sum_i x[b,i] W[i,j] - C[j]",
        "y[b,m] += -x[b,2 m+u-1] (a - b / (c d)) [i = y[b]]",
        "y = (sum_i x[i]) / max(a, -b)**2 + sum_i,j x[i,j] / 2",
        "y[b] = x[b,(2 b+1)/3,b**2] - (c - d)",
    ],
)
def test_an_equation_is_written_as_it_is_read(text):
    (e,) = equations(text)
    assert str(e) == text and [str(e)] == [str(e) for e in equations(str(e))]


def test_what_is_no_equation_is_prose():
    docstring = """Computes y[b] = 3 of x.

    y[b] = x[b], for each b
    k = 2, more or less
    where x is an Input; y: (B,)
    """
    assert [str(e) for e in equations(docstring)] == ["y[b] = x[b]", "k = 2"]


@pytest.mark.parametrize("text", ["x +", "sum_i +", "(x", "x)", "x!", "exp(x,)", "exp x", "f(x)"])
def test_an_equation_that_cannot_be_read_is_none(text):
    with pytest.raises(SyntaxError):
        equations(f"y = {text}, ")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("y = 1 x + 0 (x / y)", "y = x"),
        ("y = x (3 - 1) y", "y = 2 x y"),
        ("y = sqrt(4) / 3", "y = 2 / 3"),
        ("y = (1 - 0.9) x", "y = (1 - 0.9) x"),
        ("y[i] = x[1 i + 0,2 i - 0]", "y[i] = x[i,2 i]"),
        ("y = sum_i 1", "y = 5"),
    ],
)
def test_whole_numbers_are_computed(text, shown):
    (e,) = equations(text)
    assert str(e.simplified({"i": 5})) == shown


# the tool


def training(digits, *settings):
    file = ROOT / "configs" / "digits_mlp.toml"
    return Training(config.load(file, [f"data.file={digits}", *settings]), Ranks(), CPU())


def test_buckets_start_their_sum_after_the_gradients_that_complete_them(digits):
    s = training(digits, "run.allreduce=buckets", "run.bucket=4000")
    found, node = {}, None
    for line in s.sections()["backward"]:
        node = line.node or node
        if not line.node:
            ends = re.search(r"\[(\d+):(\d+)\] starts", line.text).groups()
            found.setdefault(node, []).append(ends)
    started, ready = {}, []
    gradient = Gradient(s.ell, s.phi, Ranks(), s.data.put, s.V, True, 4000)
    gradient.start = lambda low, high: started.setdefault(ready[-1], []).append(
        (str(low), str(high))
    )
    of = {p: n for n, completed in program(s.ell).completes.items() for p in completed}
    method = gradient.ready
    gradient.ready = lambda p: (ready.append(of[p]), method(p))
    gradient(*s.minibatch)
    assert found == started and sum(map(len, found.values())) == 5


def test_a_step_in_slices_has_the_lines_of_one_without_but_more_costs_where_it_says_so(digits):
    whole, sliced = training(digits, "train.slices=0"), training(digits, "train.slices=5")
    lines = ([s for made in t.sections().values() for s in made] for t in (whole, sliced))
    for one, many in zip(*lines, strict=True):
        if one.text == many.text:
            assert (one.bytes, one.operations) == (many.bytes, many.operations)
        else:
            assert many.text == f"{one.text}, x 5 slices" and many.bytes > one.bytes


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], ["g = grad", "v <- 0.9 v + g", "Phi <- Phi - eta (g + 0.9 v)"]),
        (
            ["train.nesterov=false", "train.momentum=0.0", "train.weight_decay=0.1"],
            ["g = grad + 0.1 Phi", "Phi <- Phi - eta g"],
        ),
        (
            ["train.nesterov=false", "train.momentum=0.0", "train.optimizer=rmsprop"],
            [
                "g = grad",
                "s <- 0.99 s + (1 - 0.99) g**2",
                "Phi <- Phi - eta g / (sqrt(s) + 1e-08)",
            ],
        ),
    ],
)
def test_the_update_is_that_of_the_settings(digits, settings, expected):
    s = training(digits, *settings)
    line = update(s.step.update, s.settings.train)
    assert [*line.steps, line.text] == expected


def test_adamw_is_adam_with_its_own_first_and_last_line(digits):
    none = ["train.momentum=0.0", "train.nesterov=false", "train.weight_decay=0.5"]
    trainings = [training(digits, f"train.optimizer={name}", *none) for name in ("adam", "adamw")]
    lines = [update(s.step.update, s.settings.train) for s in trainings]
    adam, adamw = ([*line.steps, line.text] for line in lines)
    assert adam[1:-1] == adamw[1:-1] and adam[1] == "m <- 0.9 m + (1 - 0.9) g"
    assert (adam[0], adam[-1]) == ("g = grad + 0.5 Phi", "Phi <- Phi - eta d")
    assert (adamw[0], adamw[-1]) == ("g = grad", "Phi <- Phi - eta (d + 0.5 Phi)")


MODEL = """
from dpedf.ops import Affine, LogLoss, Slice, Softmax
from dpedf.phi import dense

def net(x, y):
    Q = Softmax(Affine(dense(8, y.classes), Slice(Affine(dense(8, 8), x), 0)))
    return Q, LogLoss(Q, y)
"""


def test_all_that_passes_in_a_step_belongs_to_the_line_that_it_is_spent_on(
    digits, monkeypatch, tmp_path
):
    """By a clock that ticks as a method of a node, put, the update or the end of a sum over rows
    begins, and as it ends."""
    (tmp_path / "own.py").write_text(MODEL)
    s = training(digits, f'model={{build="{tmp_path}/own.py:net"}}', "train.grad_clip=1.0")
    made, ticks, passes = [line for lines in s.sections().values() for line in lines], [], 4
    monkeypatch.setattr("dpedf.tools.source.perf_counter", lambda: len(ticks))
    s.gradient.compute_in(passes)
    nodes, parameters = CompNodes(s.ell), Parameters(s.ell)
    methods = [(n, name) for n in nodes for name in ("forward", "backward")]
    methods += [(s.gradient, "put"), (s.step, "update"), (SumOverSlices, "finish")]
    for thing, name in methods:
        method = getattr(thing, name)
        ticking = lambda *args, f=method: (ticks.append(1), f(*args), ticks.append(1))  # noqa: E731
        monkeypatch.setattr(thing, name, ticking)
    found = Counter()
    for line, seconds in Stopwatch(s, made).run().items():
        found[line.node or line, bool(line.target)] += seconds
        if line.target in parameters:
            assert seconds >= 2 * passes
    backwards = [n for n in nodes if not isinstance(n, Softmax)]  # to whose s LogLoss adds
    expected = Counter((n, False) for n in (s.data.x, *nodes))
    expected += Counter([*((n, True) for n in backwards), *completed(s.ell)])
    ends = {which: 2 * passes * times for which, times in expected.items()}
    assert +found == ends | {(made[-1], False): 2}
    assert found.total() == len(ticks)


def completed(ell):
    """(node, True) for each parameter whose gradient its backward completes."""
    return ((n, True) for n, parameters in program(ell).completes.items() for p in parameters)


TIED = """
import numpy as np
from dpedf.edf import Parameter
from dpedf.ops import LogLoss, Slice, Softmax, Transpose

def tied(x, y):
    W = Parameter(np.ones((8, y.classes)))
    Q = Softmax(Slice(x, 0) @ W @ Transpose(W) @ W)
    return Q, LogLoss(Q, y)
"""


@pytest.mark.parametrize(("method", "which"), [("open", 0), ("so_far", -1), ("finish", -1)])
def test_the_first_line_that_adds_to_a_gradient_opens_it_and_the_last_completes_it(
    digits, monkeypatch, tmp_path, method, which
):
    (tmp_path / "own.py").write_text(TIED)
    s, ticks = training(digits, f'model={{build="{tmp_path}/own.py:tied"}}'), []
    made = [line for lines in s.sections().values() for line in lines]
    monkeypatch.setattr("dpedf.tools.source.perf_counter", lambda: len(ticks))
    original = getattr(SumOverSlices, method)
    ticking = lambda *args: (original(*args), ticks.append(1))[0]  # noqa: E731
    monkeypatch.setattr(SumOverSlices, method, ticking)
    found = [line for line, seconds in Stopwatch(s, made).run().items() if seconds]
    (W,) = Parameters(s.ell)
    lines = [line for line in made if line.target is W]
    assert [line for line in found if line.target is W] == [lines[which]] and len(lines) == 3


def test_slices_of_several_sizes_are_said(digits, capsys):
    show("a config", training(digits, "train.slices=5"), False)
    assert "B = 64 rows in 5 slices of 12 to 13 rows" in capsys.readouterr().out


def test_columns_stand_under_one_another_however_long_the_code():
    x, p = Parameter(np.ones((2, 123456))), Parameter(np.ones((2, 123456)))
    name = "a_name_that_nobody_would_give_to_a_parameter"
    ell = SquareLoss(x - p, p)
    Forward(ell)
    names = {"forward": statements(ell, **{name: x, f"{name}_too": p})}
    lines = [*page(names)]
    assert max(map(len, lines)) <= 160
    shape = lines[0].index("shape")
    assert all(line[shape - 1] == " " for line in lines if len(line) > shape)


@pytest.mark.parametrize(
    ("n", "text"), [(None, ""), (0, "0"), (999, "999"), (999_600, "1 M"), (123_456, "123 k")]
)
def test_numbers_have_three_digits(n, text):
    assert scaled(n) == text


def test_the_tool_lists_a_step_and_times_each_line(python, digits, tmp_path):
    config = ROOT / "configs" / "digits_mlp.toml"
    words = "-m", "dpedf", "source", config, f"data.file={digits}"
    plain = python(*words, cwd=tmp_path)
    timed = python(*words, "--time", "train.rows=16", cwd=tmp_path)
    assert plain.returncode == timed.returncode == 0, timed.stderr
    assert "B = 64 rows in 8 slices of 8 rows" in plain.stdout
    assert "2 in a pass of 16 rows" in timed.stdout
    lines = [line for line in plain.stdout.splitlines() if re.match(r" *\d+  ", line)]
    assert [int(line.split()[0]) for line in lines] == list(range(1, len(lines) + 1))
    assert "z2[b,j] = sum_i z1[b,i] Phi1.w[i,j] - Phi1.b[j], x 8 slices" in plain.stdout
    shares = [float(found) for found in re.findall(r" ([\d.]+)%", timed.stdout)]
    assert sum(shares[:-1]) == pytest.approx(shares[-1], abs=0.1 * len(shares)) and shares[-1] > 0
    columns = [re.split(r"  +", line.strip())[1:3] for line in lines]  # code and shape
    there = [line for line in timed.stdout.splitlines() if re.match(r" *\d+  ", line)]
    assert [re.split(r"  +", line.strip())[1:3] for line in there] == columns
    assert not list(tmp_path.iterdir())


def test_lines_are_timed_on_a_gpu(python, digits, gpu):
    config = ROOT / "configs" / "digits_mlp.toml"
    words = "-m", "dpedf", "source", config, f"data.file={digits}", "run.device=gpu", "--time"
    found = python(*words, **gpu)
    assert found.returncode == 0, found.stderr
    here = python(*words[:-2], "run.device=cpu")
    code = [line.split("  ")[1:3] for line in here.stdout.splitlines()[3:]]
    assert [line.split("  ")[1:3] for line in found.stdout.splitlines()[3 : len(code) + 3]] == code


def test_a_wrong_setting_is_one_line(python):
    config = ROOT / "configs" / "digits_mlp.toml"
    found = python("-m", "dpedf", "source", config, "train.slices=-1")
    assert (found.returncode, len(found.stderr.splitlines())) == (2, 1)
    assert "train.slices = -1" in found.stderr
