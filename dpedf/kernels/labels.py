"""Labels: whole numbers of 0..J-1, one for each class."""

from dpedf.kernels import function, on_gpu


def expect_integers(x, node):
    """ValueError: these labels of a node are not whole numbers."""
    if x.dtype.kind not in "iub":
        raise ValueError(f"{node} with labels of {x.dtype}, expected integers")


@function
def expect_labels(x, J, node):
    """ValueError: these labels of a node are not whole numbers of 0..J-1."""
    expect_integers(x, node)
    if x.size and not (x.min() >= 0 and x.max() < J):
        wrong = x[(x < 0) | (x >= J)][0]
        raise ValueError(f"{node} with label {wrong}, expected 0..{J - 1}")


@on_gpu(expect_labels)
def expect_integers_on_gpu(x, J, node):
    expect_integers(x, node)  # to look at the numbers would wait for the GPU
