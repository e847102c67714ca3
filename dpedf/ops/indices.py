"""How a node writes the equations of the indices that it was made for."""

LETTERS = "ijklmnopqrst"  # of indices after b


def indexed(name, index):
    """x[b,i], or x without an index."""
    return f"{name}[{','.join(index)}]" if index else name


def moves(x, here, there):
    """The equations of a node that moves numbers of x; its indices after b, and those of x."""
    b = ["b"] * x.batched
    here, there = [*b, *here], [*b, *there]
    gradient = f"{indexed('x.grad', there)} += {indexed('y.grad', here)}"
    return f"{indexed('y', here)} = {indexed('x', there)}\n{gradient}"
