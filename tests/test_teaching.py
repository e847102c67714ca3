"""What is wrong with a node of one's own is said in a line, and nodes say what they are."""

import importlib
import pkgutil
from types import SimpleNamespace

import numpy as np
import pytest

from dpedf import models, ops
from dpedf.check import check
from dpedf.edf import Backward, CompNode, CompNodes, Forward, Input, Package, Parameter, Parameters
from dpedf.ops import (
    Affine,
    BatchNorm,
    Clip,
    Concat,
    Crop,
    Dropout,
    Log,
    LogLoss,
    MaxPool,
    Normal,
    NotEqual,
    OneHot,
    Pad,
    Softmax,
    Square,
    Stack,
    Zeros,
)
from dpedf.phi import Phi, dense


class Double(CompNode):
    """y = 2 x, and a gradient that is wrong by 12,345 times"""

    def __init__(self, x):
        self.hold(x)

    def hold(self, x):
        self.x = x

    def input(self):
        return self.x

    def forward(self):
        self.value = 2 * self.input().value

    def backward(self):
        self.input().addgrad(12345 * self.grad)


class InAnObject(Double):
    def hold(self, x):
        self.inputs = SimpleNamespace(x=x)

    def input(self):
        return self.inputs.x


class InAClosure(Double):
    def hold(self, x):
        self.input = lambda: x


class Cycle(Double):
    def hold(self, x):
        self.nodes = [x, self]


class InADict(Double):
    """It finds its input in a dict that was filled after it was made, beside one that it lacks."""

    def __init__(self, x, labels):
        self.labels, self.inputs = labels, {}

    def input(self):
        return self.inputs.get("x", self.labels)


def labels():
    return Input((4,), int, 3)


def in_a_dict():
    node = InADict(None, labels())
    node.labels.value = np.zeros((3, 4), int)
    node.inputs["x"] = Input()
    node.inputs["x"].value = np.ones((3, 4))
    return node


class TooFew(Double):
    def backward(self):
        self.x.addgrad(self.grad[:, :2])


UNCHECKED = {  # what nothing can be compared of, and what check says, or whoever makes it
    "InAnObject.inputs has nodes in an object of type SimpleNamespace": lambda: InAnObject(
        Input((4,))
    ),
    "InAClosure has no inputs, expected nodes as its attributes": lambda: InAClosure(Input((4,))),
    "InADict of Input: (B, 4) of 3 classes of int64: no number to compare": in_a_dict,
    "OneHot of Input: (B, 4) of 3 classes of int64: no number to compare, expected an": lambda: (
        OneHot(labels(), 3)
    ),
    "Double of Input: (B, 0) of float64: no number": lambda: Double(Input((0,))),
    "Square of no Input: no number to compare": lambda: Square(Parameter(np.ones((2, 0)))),
    "an Input without a value, expected one, or a shape": lambda: Double(Input()),
    "Log makes value[0, 0] -inf, expected numbers: change its inputs": lambda: Log(
        Parameter(np.zeros(2)) * Input((2,))
    ),
    "Cycle.nodes1 is the node itself, expected its inputs": lambda: Cycle(Input((4,))),
    "check of Input: (B, 4): it computes nothing, expected a CompNode": lambda: Input((4,)),
    "check of Uniform: (4, 8): it computes nothing": lambda: dense(4, 8).w,
    "the loss is the class Double, expected a node, such as Double(...)": lambda: Double,
    "TooFew: addgrad of shape (3, 2), expected (3, 4)": lambda: TooFew(Input((4,))),
}


@pytest.mark.parametrize("message", UNCHECKED)
def test_a_check_fails_where_nothing_can_be_checked(message):
    with pytest.raises(ValueError) as caught:
        check(UNCHECKED[message]())
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_check_compares_what_it_can_and_finds_what_is_wrong():
    check(NotEqual(Input((4,)), 3))  # right: it sends no gradient, and has none
    check(Zeros(Input((4,)), 3))
    with pytest.raises(ValueError, match="gradient .* by Backward, expected"):
        check(Double(Input((4,))))


def test_inputs_without_rows_get_as_many_as_others_have():
    x, y = Input((2,)), Input((2,))
    x.value = rows = np.ones((5, 2))
    check(x * y)
    assert x.value is rows and y.value.shape == (0, 2)


def test_a_check_leaves_a_graph_as_it_was():
    x, norm = Input((4,)), Package(w=Parameter(np.ones(4)), b=Parameter(np.zeros(4)))
    z = BatchNorm(norm, x)
    check(z)
    assert z.state["mean"].tolist() == [0] * 4 and not norm.w.grad.any() and z.grad is None
    with pytest.raises(ValueError, match="Affine of Phi.w .9, 3., .* x .B, 4.: expected"):
        Affine(dense(9, 3), z)


class Own(CompNode):
    def __init__(self, x):
        self.x = x

    def forward(self):
        self.value = self.x.value

    def backward(self):
        self.x.addgrad(self.grad)


class Listed(Own):
    def __init__(self, x):
        CompNodes.append(self)
        self.x = x


class ListedParameter(Own):
    def __init__(self, x):
        self.x, self.w = x, Parameter(np.ones(3))
        Parameters.append(self.w)


class Silent(Own):
    def forward(self):
        self.values = self.x.value


class Returning(Own):
    def forward(self):
        return 2 * self.x.value


class WithoutRows(Own):
    def forward(self):
        self.value = self.x.value.sum()


class WithGrad(Own):
    def __init__(self, x):
        self.x, self.grad = x, 0


class NoForward(CompNode):
    def __init__(self, x):
        self.x = x


class NoBackward(NoForward):
    def forward(self):
        self.value = self.x.value


class Bare:
    """The slide of Sigmoid leaves its base out."""

    def __init__(self, x):
        self.x = x

    forward, backward = Own.forward, Own.backward


def differentiated(node):
    Forward(node)
    Backward(node)


WRONG = {
    "CompNodes.append(Listed): drop this line, as nodes are found from the loss": Listed,
    "Parameters.append(Parameter): drop this line": ListedParameter,
    "Silent.forward sets no value, expected self.value = ...": Silent,
    "Returning.forward returns ndarray, expected self.value = ...": Returning,
    "WithoutRows.forward of no rows makes a value of shape (), expected (0, ...)": WithoutRows,
    "WithGrad.grad is an attribute that the framework sets, expected another name": WithGrad,
    "NoForward of x (B, 3): has no forward, expected def forward(self)": NoForward,
    "CompNode: has no forward, expected def forward(self)": lambda x: CompNode(),
    "NoBackward has no backward, expected def backward(self) in its class": lambda x: (
        differentiated(NoBackward(x * Parameter(np.ones(3))))
    ),
    "Own.x is of class Bare, expected class Bare(CompNode)": lambda x: Own(Bare(x)),
    "the loss is of class Bare, expected class Bare(CompNode)": lambda x: Forward(Bare(x)),
    "the loss is of type tuple, expected a node": lambda x: Forward((x, Own(x))),
    "the loss is of type NoneType, expected a node": lambda x: CompNodes(None),
    "Silent.forward sets no value": lambda x: Forward(Square(Silent(Input()))),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_a_node_of_ones_own_lacks_is_said_in_a_line(message):
    with pytest.raises(ValueError) as caught:
        WRONG[message](Input((3,)))
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_what_is_only_half_like_the_slides_still_computes():
    class Super(Own):
        def __init__(self, x):
            super().__init__(x)
            self.again = {"x": x}  # it is reached as self.x

    check(Super(Input((3,))))
    assert Forward(NoBackward(Input((3,)))) is None


def test_a_node_says_its_name_class_inputs_shape_and_equation():
    x, y, image = Input((4,)), Input((), int, 3), Input((2, 6, 6))
    z = Affine(dense(4, 3), x)
    ell = LogLoss(Softmax(Dropout(z, 0.5)), y)
    equation = "y[b,...,j] = sum_i x[b,...,i] W[i,j] - C[j]"
    assert repr(z) == f"Affine(Phi=Package, x=Input): (B, 3), {equation}"
    Phi(ell)
    assert repr(z) == f"z1 = Affine(Phi=Phi1, x=Input): (B, 3), {equation}"
    assert repr(ell.Q.s) == "z2 = Dropout(x=z1, rate=0.5): (B, 3), y = x keep"
    assert repr(ell).startswith("ell = LogLoss(Q=z3, y=Input): (B,), ell[b] = ")
    assert repr([x, y]) == "[Input: (B, 4), Input: (B,) of 3 classes]"
    assert repr(z.Phi) == "Phi1 = Package(w=(4, 3), b=(3,))"
    assert repr(z.Phi.w) == "Phi1.w = Uniform: (4, 3)"
    assert repr(2 * z).startswith("Multiply(x=2, y=z1): (B, 3), ")
    assert repr(Concat([z] * 9)).startswith("Concat(x=[z1, z1, z1, z1, ... 9 in all]): (B, 27)")
    assert repr(Crop(image, 2)).startswith("Crop(x=Input, padding=2): (B, 2, 6, 6), ")
    assert repr(MaxPool(image, (2, 3), padding=1)).startswith(
        "MaxPool(x=Input, size=(2, 3), stride=(2, 3), padding=1): (B, 2, 4, 2), "
    )
    assert repr(Pad(x, [(1, 0)], 2)).startswith("Pad(x=Input, widths=[(1, 0)], fill=2.0): (B, 5), ")
    assert repr(Normal(x, 2)) == "Normal(x=Input, I=2): (B, 2), y[b,i] = e[b,i]"
    assert repr(Stack([x, x])) == "Stack(x=[Input, Input]): (B, 2, 4), y[b,0,i] = x0[b,i]"
    assert repr(Clip(x, 0)).endswith(": (B, 4), y = min(max(x, low), high)")
    assert repr(Parameter(np.zeros((500, 500)))) == "Parameter: (500, 500)"


def every_class():
    files = pkgutil.iter_modules(ops.__path__)
    found = [importlib.import_module(f"dpedf.ops.{file.name}") for file in files]
    its = {its for module in found for its in vars(module).values() if isinstance(its, type)}
    return {
        its for its in its if issubclass(its, CompNode) and its.__module__.startswith("dpedf.ops")
    }


EVERY_CLASS = [*sorted(every_class(), key=str), CompNode, Own, Input, Parameter, Package]


@pytest.mark.parametrize("its", EVERY_CLASS, ids=str)
def test_a_half_made_node_has_a_repr(its):
    made = object.__new__(its)
    assert its.__name__ in repr(made) and "\n" not in repr(made)
    for thing in None, "value", [1, [2]], its:
        vars(made).update(x=thing, value=thing, name=thing)
        assert "\n" not in repr(made)


def test_a_star_brings_nodes_and_nothing_else():
    brought = {}
    exec("from dpedf.ops import *", brought)
    del brought["__builtins__"]
    found = {its for its in every_class() if not its.__subclasses__() or its.__name__ in brought}
    assert set(brought.values()) == found and len(brought) == len(found)
    assert not {*brought} & {*vars(models)}


def test_what_a_node_knows_for_a_reason_of_its_own_is_left_alone():
    """A helper with the methods of a node, an object that knows nodes, and a gradient to come."""

    class Helper:
        forward = backward = append = lambda self: None

    class Own(Double):
        def hold(self, x):
            self.x, self.grad, self.kind, self.helper = x, None, Square, Helper()
            self.helper.nodes = [Square(x)]

        def backward(self):
            self.x.addgrad(2 * self.grad)

    check(Own(Input((3,))))
