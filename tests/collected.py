"""Inputs of given values, and their gradients, which they do not get in training."""

from contextlib import contextmanager

from dpedf.check import collected
from dpedf.edf import CompNodes, Input
from dpedf.program import connect, program


def given(value):
    """An Input of this value."""
    node = Input(value.shape[1:], value.dtype)
    node.value = value
    return node


@contextmanager
def gradients_collected(node):
    """In the with block, a node's Inputs of floats get gradients, too: {Input: its gradient}."""
    inputs = [x for x in program(node).inputs if x.value.dtype.kind == "f"]
    try:
        yield {x: collected(x, node) for x in inputs}
    finally:
        for x in inputs:
            del x.varies, x.own_grad, x.addgrad
        for n in CompNodes(node):
            connect(n)
